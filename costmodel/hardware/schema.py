"""What may stand in a hardware file: its tables, their keys and the unit of each.

Every table may also hold ``source`` (for all its figures), ``<key>_source`` (for one figure),
``verified = false`` (its headline figure comes from general knowledge) and ``unverified = [keys]``.
A source may begin with a short name from the file's ``[sources]`` table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from costmodel.devices import generation_names
from costmodel.errors import InputError, near_matches
from costmodel.hardware.profile import BOARDS, DTYPES, ENGINES, KINDS
from costmodel.units import UNITS, parse_quantity

__all__ = ["Problem", "Table", "percent", "schema_problems", "source_of", "tables"]

#: Key -> what its value is: a unit of :data:`UNITS`, or text, texts, count, number, fraction, percent, flag, made_of.
_TOP = dict.fromkeys(("name", "title", "vendor", "kind", "architecture", "compute_capability", "form_factor"), "text")
_TOP |= {"generation": "text", "board": "text", "launched": "text", "aliases": "texts", "notes": "texts"}
_UNITS = {"count": "count", "threads": "count", "simd": "text", "clock": "Hz", "matrix_clock": "Hz", "base_clock": "Hz"}
_PEAK = {"peak": "FLOP/s", "accumulate": "text", "made_of": "made_of", "tolerance": "percent", "why": "text"}
_PEAK |= {"measured": "flag"}
_CACHE = {"capacity": "B", "bandwidth": "B/s", "per_unit": "flag", "measured_bandwidth": "B/s"}
_DRAM = _CACHE | {"type": "text", "made_of": "made_of", "tolerance": "percent", "why": "text", "achievable": "fraction"}
_DRAM |= {"inline_ecc": "flag"}
_LIMITS = dict.fromkeys(("warp_size", "max_warps", "max_blocks", "registers"), "count")
_LIMITS |= {"shared_memory": "B", "shared_memory_per_block": "B"}
_OVERHEADS = {"kernel_fixed_cycles": "number", "dispatch": "s", "sync": "s"}
#: Written by ``costmodel calibrate``; what each means stands in ``hardware/calibration.py``.
_CALIBRATION = {"threads": "count", "operator_bytes": "sizes", "cold_share": "shares", "page_fault": "s"}
_CALIBRATION |= {"spread": "number", "drift": "number", "steal": "number", "disturbed": "number", "samples": "count",
                 "single_thread_peak": "FLOP/s"}  # fmt: skip
_KERNEL_TIME = {"hot": "s", "cold": "s", "rate": "FLOP/s", "activations": "B/s", "weights": "B/s", "matrix": "s"}
_KERNEL_TIME |= {"elements": "counts", "time": "times"}
_EVERYWHERE = {"source": "text", "verified": "flag", "unverified": "texts"}

_TABLES: Mapping[str, Mapping[str, str]] = {
    "units": _UNITS,
    **{f"{e}.{d}{a}": _PEAK for e in ENGINES for d in DTYPES for a in ("", "_acc16", "_acc32")},
    "memory.dram": _DRAM,
    **dict.fromkeys(("memory.l1", "memory.l2", "memory.l3"), _CACHE),
    "limits": _LIMITS,
    "power": {"tdp": "W"},
    "overheads": _OVERHEADS,
    "host": {"usual": "text", "met_with": "texts", "slowdown": "number"},
    "calibration": _CALIBRATION,
}
#: The same for people, in one line.
_TABLE_NAMES = (
    "units, matrix.DTYPE, vector.DTYPE, memory.dram, memory.l1, memory.l2, memory.l3, limits, power, overheads, host, "
    f"calibration, calibration.KIND, sources; DTYPE is one of {', '.join(DTYPES)}, or such as fp16_acc16"
)
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "": ("name", "title", "vendor", "kind"),
    "units": ("count", "clock"),
    "memory.dram": ("type", "bandwidth"),
    **{table: ("peak",) for table, keys in _TABLES.items() if keys is _PEAK},
    **{table: ("capacity",) for table, keys in _TABLES.items() if keys is _CACHE},
    "power": ("tdp",),
}
_MADE_OF: Mapping[str, Mapping[str, str]] = {
    "peak": {"units": "count", "clock": "Hz", "flop_per_clock": "count"},
    "bandwidth": {"bus_bits": "count", "rate": "bit/s"},
}


#: Keys whose value is one of a few words.
_WORDS: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "kind": lambda: KINDS,
    "board": lambda: BOARDS,
    "generation": generation_names,
}


class Problem(NamedTuple):
    """Something wrong with a hardware file. An error keeps it from loading; a warning and a note do not."""

    severity: str  # error, warning, note
    where: str  # table and key: matrix.bf16.peak
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.message}"


class Table(NamedTuple):
    """One table of a hardware file."""

    name: str  # matrix.bf16
    values: Mapping[str, Any]


def tables(raw: Mapping[str, Any]) -> Iterator[Table]:
    """All tables of a file but ``[sources]``, in its order, nested ones by their dotted name."""
    for key, value in raw.items():
        if key == "sources" or not isinstance(value, dict):
            continue
        if key == "calibration":
            yield Table(key, {k: v for k, v in value.items() if not isinstance(v, dict)})
            yield from (Table(f"{key}.{k}", v) for k, v in value.items() if isinstance(v, dict))
        elif key in (*ENGINES, "memory"):
            yield from (Table(f"{key}.{k}", v) if isinstance(v, dict) else Table(key, {k: v}) for k, v in value.items())
        else:
            yield Table(key, value)


def source_of(raw: Mapping[str, Any], table: Mapping[str, Any], key: str) -> str:
    """The full source of one figure; empty where the file gives none."""
    text = str(table.get(f"{key}_source", table.get("source", "")))
    word = text.split(" ", 1)[0].rstrip(",;")
    full = raw.get("sources", {}).get(word)
    return text if full is None else full + text[len(word) :]


def percent(text: str) -> float:
    """``"1.3 %"`` as 0.013; raises ValueError.

    >>> percent("1.5 %")
    0.015
    """
    number, sign, rest = text.partition("%")
    if not sign or rest.strip() or not 0 < float(number) < 10:
        raise ValueError(f"{text!r} is not a percentage between 0 and 10, such as '1.3 %'")
    return float(number) / 100


def schema_problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Unknown and missing keys, and values of the wrong kind or unit."""
    top = {k: v for k, v in raw.items() if not isinstance(v, dict)}
    yield from _table_problems(Table("", top), _TOP)
    present = {table.name for table in tables(raw)}
    for name in ("units", "memory.dram"):
        if name not in present:
            yield Problem("error", name, f"the table [{name}] is missing")
    if not any(name.split(".")[0] in ENGINES for name in present):
        yield Problem("error", "vector.fp32", "there is no peak; a machine needs at least [vector.fp32]")
    for table in tables(raw):
        known = _KERNEL_TIME if table.name.startswith("calibration.") else _TABLES.get(table.name)
        if known is not None:
            yield from _table_problems(table, known)
        else:
            hint = _did_you_mean(table.name, _TABLES)
            yield Problem("error", table.name, f"unknown table [{table.name}]{hint}; there are: {_TABLE_NAMES}")


def _did_you_mean(word: str, known: Mapping[str, Any]) -> str:
    near = near_matches(word, known, limit=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _table_problems(table: Table, known: Mapping[str, str]) -> Iterator[Problem]:
    prefix = f"{table.name}." if table.name else ""
    for key in _REQUIRED.get(table.name, ()):
        if key not in table.values:
            yield Problem("error", prefix + key, "is missing")
    allowed = {**known, **_EVERYWHERE, **{f"{key}_source": "text" for key in known}}
    for key, value in table.values.items():
        if key not in allowed:
            hint = _did_you_mean(key, allowed)
            yield Problem("error", prefix + key, f"unknown key {key!r}{hint}; there are: {', '.join(known)}")
        elif key == "made_of":
            yield from _made_of_problems(prefix + key, value, _MADE_OF["peak" if "peak" in known else "bandwidth"])
        elif message := _value_problem(key, value, allowed[key]):
            yield Problem("error", prefix + key, message)
    for key in table.values.get("unverified", ()):
        if key not in table.values:
            yield Problem("error", prefix + "unverified", f"{key!r} is not a key of this table")


def _made_of_problems(where: str, value: Any, known: Mapping[str, str]) -> Iterator[Problem]:
    for part in value if isinstance(value, list) else [value]:
        if not isinstance(part, dict) or set(part) != set(known):
            yield Problem("error", where, f"must have exactly the keys {', '.join(known)}; it is {part!r}")
            continue
        for key, kind in known.items():
            if message := _value_problem(key, part[key], kind):
                yield Problem("error", f"{where}.{key}", message)


def _value_problem(key: str, value: Any, kind: str) -> str:
    """What is wrong with a value; empty if nothing is."""
    if key in _WORDS:
        words = _WORDS[key]()
        return "" if value in words else f"{value!r} is not one of {', '.join(words)}"
    if kind in UNITS:
        return _quantity_problem(value, kind)
    checks: Mapping[str, tuple[bool, str]] = {
        "text": (isinstance(value, str) and value != "", "a text in quotes"),
        "texts": (isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of texts"),
        "flag": (isinstance(value, bool), "true or false"),
        "count": (isinstance(value, int) and not isinstance(value, bool) and value > 0, "a whole number above 0"),
        "number": (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0, "a number >= 0"),
        "fraction": (isinstance(value, (int, float)) and 0 < value <= 1, "a fraction above 0 and up to 1"),
        "percent": (_is_percent(value), "a percentage between 0 and 10, such as '1.3 %'"),
        "counts": (_is_list(value, int, 0), "a list of whole numbers of at least 0"),
        "shares": (_is_list(value, (int, float), 0, 1), "a list of numbers from 0 to 1"),
        "sizes": (_are_quantities(value, "B"), "a list of texts with a unit of B"),
        "times": (_are_quantities(value, "s"), "a list of texts with a unit of s"),
    }
    fits, wanted = checks[kind]
    return "" if fits else f"must be {wanted}; it is {value!r}"


def _is_percent(value: Any) -> bool:
    try:
        percent(value)
    except (ValueError, AttributeError):
        return False
    return True


def _is_list(value: Any, kind: Any, least: float, most: float = math.inf) -> bool:
    """Whether this is a list, not empty, of numbers in a range."""
    numbers = isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)
    return numbers and bool(value) and all(least <= v <= most for v in value)


def _are_quantities(value: Any, unit: str) -> bool:
    """Whether this is a list, not empty, of texts such as "1.5 µs", none negative."""
    try:
        return isinstance(value, list) and bool(value) and all(parse_quantity(text, unit) >= 0 for text in value)
    except InputError:
        return False


def _quantity_problem(value: Any, unit: str) -> str:
    if not isinstance(value, str):
        return f"must be a text with a unit ({unit}), such as a number, a space and the unit; it is {value!r}"
    try:
        number = parse_quantity(value, unit)
    except InputError as error:
        return str(error)
    least_allowed = 0 if unit == "s" else 1e-9
    return "" if number >= least_allowed else f"must be positive; it is {value!r}"
