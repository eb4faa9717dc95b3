"""The laws by which a hardware file is checked against itself.

Beside each headline figure stand the figures it is made of, so a wrong one shows: units x clock x
FLOP per clock gives a peak, bus x rate a bandwidth, both within 1 %, or within a ``tolerance`` that
the file states together with its ``why``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from costmodel.devices import GpuGeneration
from costmodel.hardware.identity import board_of, generation_of
from costmodel.hardware.profile import default_accumulate
from costmodel.hardware.schema import Problem, percent, schema_problems, tables
from costmodel.units import format_quantity, parse_quantity

__all__ = ["TOLERANCE", "peak_key", "problems"]

#: Allowed difference between a figure and the product it is made of; vendors round to three digits.
TOLERANCE = 0.01


def problems(raw: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong with the content of one file. The laws are tried only where its form is right."""
    found = list(schema_problems(raw))
    if not any(problem.severity == "error" for problem in found):
        for law in _LAWS:
            found += law(raw)
    return found


def peak_key(table: str, values: Mapping[str, Any]) -> tuple[str, str, str]:
    """(engine, dtype, accumulate) of a peak's table.

    >>> peak_key("matrix.fp16_acc16", {}), peak_key("matrix.bf16", {})
    (('matrix', 'fp16', 'fp16'), ('matrix', 'bf16', 'fp32'))
    """
    engine, word = table.split(".")
    dtype, suffix, bits = word.partition("_acc")
    default = f"fp{bits}" if suffix else default_accumulate(engine, dtype)
    return engine, dtype, values.get("accumulate", default)


def _peaks(raw: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {table.name: table.values for table in tables(raw) if table.name.startswith(("matrix.", "vector."))}


def _product_problem(
    where: str, stated: float, product: float, unit: str, table: Mapping[str, Any]
) -> Iterator[Problem]:
    """Complain where ``stated`` and ``product`` differ by more than the tolerance."""
    tolerance = percent(table["tolerance"]) if "tolerance" in table else TOLERANCE
    if "tolerance" in table and "why" not in table:
        yield Problem("error", where, "a tolerance needs a why")
    if abs(product - stated) <= tolerance * stated:
        return
    numbers = f"{format_quantity(stated, unit, 4)} is stated, but made_of gives {format_quantity(product, unit, 4)}"
    if abs(stated / product - 2) < 0.1:
        do = "twice the product is usually the 2:4 sparse figure, or fp16 accumulate on GeForce: state the dense one"
    else:
        do = f"correct one of them, or state a tolerance and a why (allowed now: {100 * tolerance:g} %)"
    yield Problem("error", where, f"{numbers} ({(product - stated) / stated:+.1%}); {do}")


def _parts(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    made_of = table.get("made_of", [])
    return made_of if isinstance(made_of, list) else [made_of]


def _peak_products(raw: Mapping[str, Any]) -> Iterator[Problem]:
    count = raw["units"]["count"]
    for name, table in _peaks(raw).items():
        parts = _parts(table)
        if not parts:
            yield Problem("warning", f"{name}.made_of", "is missing, so the peak cannot be checked")
            continue
        units = sum(part["units"] for part in parts)
        if units != count:
            yield Problem(
                "error", f"{name}.made_of.units", f"is {units}, but units.count is {count}; correct one of them"
            )
        product = sum(part["units"] * parse_quantity(part["clock"], "Hz") * part["flop_per_clock"] for part in parts)
        stated = parse_quantity(table["peak"], "FLOP/s")
        yield from _product_problem(f"{name}.peak", stated, product, "FLOP/s", table)


def _bandwidth_product(raw: Mapping[str, Any]) -> Iterator[Problem]:
    dram = raw["memory"]["dram"]
    for part in _parts(dram):
        product = part["bus_bits"] * parse_quantity(part["rate"], "bit/s") / 8
        stated = parse_quantity(dram["bandwidth"], "B/s")
        yield from _product_problem("memory.dram.bandwidth", stated, product, "B/s", dram)


def _sparse_rates(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """A peak that agrees with its product may still be sparse in both."""
    of = generation_of(raw)
    dense = of.dense_fp16_flop_per_clock if isinstance(of, GpuGeneration) else None
    for name, table in _peaks(raw).items():
        if dense is None or peak_key(name, table)[:2] not in (("matrix", "fp16"), ("matrix", "bf16")):
            continue
        for part in _parts(table):
            if part["flop_per_clock"] > dense:
                message = (
                    f"{part['flop_per_clock']} FLOP per clock and {of.family.unit}, but the dense rate of "
                    f"{of.title} is {dense}; a figure twice that is the 2:4 sparse one"
                )
                yield Problem("error", f"{name}.made_of.flop_per_clock", message)


def _generation(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """A machine is of its generation's kind, and its matrix units multiply no dtype that the generation lacks."""
    of = generation_of(raw)
    if ("generation" in raw) and of.family.name not in _FAMILIES_OF_KIND[raw["kind"]]:
        yield Problem("error", "generation", f"{of.title} is no {raw['kind']}")
        return
    if not isinstance(of, GpuGeneration) or not of.capabilities:
        return
    capability = raw.get("compute_capability")
    if "generation" in raw and capability and of.capabilities and capability not in of.capabilities:
        message = f"{capability} is none of {of.title}'s: {', '.join(of.capabilities)}"
        yield Problem("error", "compute_capability", message)
    for name, table in _peaks(raw).items():
        engine, dtype, _ = peak_key(name, table)
        if engine == "matrix" and dtype not in of.matrix_dtypes:
            there = ", ".join(of.matrix_dtypes) or "none"
            yield Problem("warning", name, f"the matrix units of {of.title} multiply {there}, not {dtype}")


_FAMILIES_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "gpu": ("cuda", "rocm"), "cpu": ("cpu",), "accelerator": ("accelerator",)
}  # fmt: skip


def _accumulate_names(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """A table's name and its ``accumulate`` must not contradict each other, nor two tables mean the same peak."""
    seen: dict[tuple[str, str, str], str] = {}
    for name, table in _peaks(raw).items():
        key = peak_key(name, table)
        expected = peak_key(name, {})[2]
        if key[2] != expected:
            hint = f"a table [{name.split('_')[0]}] means {expected} accumulate; name others like [matrix.fp16_acc16]"
            yield Problem("error", f"{name}.accumulate", f"is {key[2]!r}; {hint}")
        elif key in seen:
            yield Problem("error", name, f"states the same peak as [{seen[key]}]")
        seen[key] = name


def _accumulate_ratios(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """GeForce cards run fp16 at twice the rate when they accumulate in fp16; all other machines at the same."""
    peaks = _peaks(raw)
    if "matrix.fp16" not in peaks or "matrix.fp16_acc16" not in peaks:
        return
    ratio = 2 if board_of(raw) == "geforce" else 1
    acc32, acc16 = (parse_quantity(peaks[name]["peak"], "FLOP/s") for name in ("matrix.fp16", "matrix.fp16_acc16"))
    if abs(acc16 / acc32 - ratio) > 0.02 * ratio:
        message = (
            f"{format_quantity(acc16, 'FLOP/s', 4)} with fp16 accumulate is {acc16 / acc32:.2f} times the "
            f"{format_quantity(acc32, 'FLOP/s', 4)} with fp32 accumulate; on "
            f"{'GeForce cards it is 2' if ratio == 2 else 'machines other than GeForce cards it is 1'}"
        )
        yield Problem("error", "matrix.fp16_acc16.peak", message)


def _calibration(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Tables are as long as their sizes, which rise, as do the times; nothing is faster cold than hot."""
    for name, values in tables(raw):
        if name.split(".")[0] != "calibration":
            continue
        for sizes, results, unit in (("elements", "time", "s"), ("operator_bytes", "cold_share", "")):
            if sizes not in values and results not in values:
                continue
            xs = [parse_quantity(x, "B") if isinstance(x, str) else x for x in values.get(sizes, ())]
            ys = [parse_quantity(y, unit) if unit else y for y in values.get(results, ())]
            if len(xs) != len(ys):
                yield Problem("error", f"{name}.{results}", f"has {len(ys)} values for {len(xs)} {sizes}")
            elif sorted(set(xs)) != xs or sorted(ys) != ys:
                yield Problem("error", f"{name}.{results}", f"{sizes} must rise, and {results} must not fall")
        if "cold" in values and parse_quantity(values["cold"], "s") < parse_quantity(values.get("hot", "0 s"), "s"):
            yield Problem("error", f"{name}.cold", f"{values['cold']} is less than hot, {values['hot']}")


def _sources(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Every table of figures has a source; what is unverified is said."""
    used = set()
    for table in tables(raw):
        values = table.values
        if "source" not in values and not table.name.startswith("calibration."):  # the source of [calibration]
            yield Problem("warning", table.name, "has no source")
        used |= {str(v).split(" ", 1)[0].rstrip(",;") for k, v in values.items() if k.endswith("source")}
        if values.get("verified") is False:
            yield Problem("note", table.name, "unverified: no source was found, or it rests on general knowledge")
        for key in values.get("unverified", ()):
            yield Problem("note", f"{table.name}.{key}", "unverified: no source was found")
    for name in raw.get("sources", {}):
        if name not in used:
            yield Problem("warning", f"sources.{name}", "is never used")


_LAWS = (
    _peak_products,
    _bandwidth_product,
    _generation,
    _sparse_rates,
    _accumulate_names,
    _accumulate_ratios,
    _calibration,
    _sources,
)
