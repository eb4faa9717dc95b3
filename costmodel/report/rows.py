"""The table of where the time goes: by operator, by module, by type of operator, by kernel, ..."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.nodes import operator_word
from costmodel.report.columns import NONE, intensity_column, quantity_column, share_column, text_column
from costmodel.report.document import Column, Row, Table
from costmodel.report.kernel_table import kernel_table
from costmodel.report.text import common_path
from costmodel.rows import QUANTITIES
from costmodel.units import format_quantity

__all__ = ["ADDITIVE", "GROUPINGS", "record", "rows_table", "sum_remarks", "word"]

#: What ``rows(by=...)`` can be grouped by, with what one row is called.
GROUPINGS = {
    "op": "operator",
    "module": "module",
    "type": "type of operator",
    "stage": "size of maps",
    "phase": "phase",
    "kernel": "kernel",
}

_IN_DATA = tuple(quantity for quantity in QUANTITIES if quantity.in_data)
#: Quantities of a row that add up over rows, by key; floats last.
ADDITIVE = ("count", *(quantity.key for quantity in _IN_DATA))

#: Why the total of a quantity may differ from the sum of its rows, which a page then says.
_DIFFERS = {
    "params": " (those that operators share count once)",
    "latency_s": " (kernels overlap, or wait for one another)",
}

#: What operators have in common that pages show as one row, besides the pattern of their module's path.
_ALIKE = (
    "op", "inputs", "outputs", "algorithm", "bound", "flops", "params", "bytes_read", "bytes_written", "kernels",
    "latency_s",
)  # fmt: skip

#: Columns that say what an operator sees of the input; only for rows by operator.
FIELD_KEYS = ("map_size", "receptive_field", "jump")

_FIELD_HEADINGS = ("maps", "sees", "every")

#: Columns that name a row, by grouping; they are on every page.
_MAIN = {by: ("module", "op") if by == "op" else ("name",) for by in GROUPINGS}


def word(value: Any) -> str:
    """The plain word of a bound, an algorithm or a mode, whether it is a string or an enumeration."""
    return str(getattr(value, "value", value) or "")


def known(value: Any) -> Any:
    """The value; None for the NaN of a quantity that is not modelled on this machine."""
    return None if isinstance(value, float) and math.isnan(value) else value


def record(row: Any) -> dict[str, Any]:
    """The exact values of an analysis row by key, units in the keys."""
    values: dict[str, Any] = {"name": row.name, "op": row.op, "module": row.module}
    values |= {key: known(getattr(row, key)) for key in ADDITIVE}
    values["time_share"] = row.share
    values["intensity_flop_per_byte"] = _finite(row.intensity)
    return values | {
        "phase": row.phase,
        **({"forward": row.forward} if row.forward else {}),
        "bound": word(row.bound),
        "algorithm": word(row.algorithm),
        "inputs": row.inputs,
        "outputs": row.outputs,
    }


def rows_table(
    analysis: Any, *, by: str = "op", top: int | None = None, columns: Sequence[str] | None = None,
    in_full: bool = False,
) -> Table:  # fmt: skip
    """The rows of an analysis and their total: the ``top`` longest by time, or all where it is None or 0.

    Among the top, operators or modules that are alike (same operator, shapes, cost and time, their paths
    differ by numbers only) are one row. All operators and all modules are in order of execution, types
    of operators the longest first. ``columns`` names the quantities that pages show, by key; data formats
    always get all of them, but receptive fields, which take a walk through the graph, only where they are asked
    for or ``in_full``.
    Raises InputError for an unknown grouping or column, and for a negative ``top``.
    """
    if by not in GROUPINGS:
        raise InputError(librarian(f"rows cannot be grouped by {by!r}", there_is=list(GROUPINGS)))
    if by == "kernel":
        return kernel_table(analysis, top=top, columns=columns)
    if top is not None and top < 0:
        raise InputError(f"--top {top}: a number of rows is asked for, 0 shows all")
    about = {"model": analysis.model.name, "hardware": analysis.hardware.name}
    rows = [{**about, **_page_record(row)} for row in analysis.rows(by=by)]
    if by == "op" and (in_full or any(key in FIELD_KEYS for key in columns or ())):
        rows = [{**row, **seen} for row, seen in zip(rows, field_records(analysis), strict=True)]
    folded = fold_alike(rows, _MAIN[by][0]) if top and by in ("op", "module") else rows
    few = by in ("stage", "phase")  # read from the input to the output
    by_time = by == "type" or (bool(top) and not few)
    shown = sorted(folded, key=lambda row: -row["latency_s"])[: top or None] if by_time else folded
    footer = [*_rest_row(folded, shown, by), _total_row(rows, analysis.totals, by)]
    return Table(
        title=_title(by, len(shown), len(folded), len(rows), by_time),
        columns=_chosen(_all_columns(by, [*shown, *footer], counted=len(folded) < len(rows)), by, columns),
        rows=tuple(shown),
        footer=tuple(footer),
    )


def field_records(analysis: Any) -> list[Row]:
    """For every operator the size of the maps that it puts out, the window of the input that one of their positions
    sees, and the elements of the input from one to the next."""
    return [
        {
            "map_size": size,
            "receptive_field": "" if fields is None else "x".join(str(field.size) for field in fields),
            "jump": "" if fields is None else "x".join(dict.fromkeys(str(field.jump) for field in fields)),
        }
        for size, fields in analysis.feature_maps
    ]


def fold_alike(rows: Iterable[Row], path: str) -> list[Row]:
    """Rows with those that differ by nothing but numbers in their ``path`` (the key of it) added up to one."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (re.sub(r"\d+", "*", row[path]), *(_without_noise(row[key]) for key in _ALIKE))
        alike.setdefault(key, []).append(row)
    return [
        {**members[0], **_sums(members), path: common_path([row[path] for row in members])}
        for members in alike.values()
    ]


def _without_noise(value: Any) -> Any:
    """A float to nine digits: times are differences of when launches start, and their last bits hang on that moment."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def sum_remarks(rows: Iterable[Any], totals: Any) -> list[str]:
    """A sentence for each quantity whose total is not the sum of the rows, as with shared parameters."""
    rows, remarks = list(rows), []
    for quantity in _IN_DATA:
        parts, whole = math.fsum(getattr(row, quantity.key) for row in rows), getattr(totals, quantity.key)
        if not math.isnan(whole) and not math.isclose(parts, whole, rel_tol=1e-3, abs_tol=1e-12):
            shown, total = format_quantity(parts, quantity.unit), format_quantity(whole, quantity.unit)
            why = _DIFFERS.get(quantity.key, "")
            if quantity.key == "params" and parts < whole:
                why = " (no operator reads the others)"
            remarks.append(f"{quantity.title}: the rows add up to {shown}, the total is {total}{why}")
    return remarks


def _page_record(row: Any) -> dict[str, Any]:
    values = record(row)
    return {**values, "bytes": values["bytes_read"] + values["bytes_written"]}


def _sums(rows: Iterable[Row]) -> dict[str, Any]:
    """Sums of what adds, and the intensity that follows from them."""
    rows = list(rows)
    sums: dict[str, Any] = {key: _sum([row[key] for row in rows]) for key in (*ADDITIVE, "bytes")}
    sums |= {key: math.fsum(row[key] for row in rows) for key in ("latency_s", "time_share")}
    return sums | {"intensity_flop_per_byte": sums["flops"] / sums["bytes"] if sums["bytes"] else None}


def _sum(values: Sequence[Any]) -> Any:
    """Their sum; None where one of them is not known."""
    return None if None in values else sum(values)


def _rest_row(rows: Sequence[Row], shown: Sequence[Row], by: str) -> list[Row]:
    """One row for all that are not shown, or none."""
    kept = {id(row) for row in shown}
    rest = [row for row in rows if id(row) not in kept]
    return [{_MAIN[by][0]: f"… {len(rest):,} more", **_sums(rest)}] if rest else []


def _total_row(rows: Sequence[Row], totals: Any, by: str) -> Row:
    """The totals of the analysis, which count shared parameters once; sums where it keeps no total."""
    sums = _sums(rows)
    sums |= {key: known(getattr(totals, key)) for key in ADDITIVE if key != "count"}
    sums["bytes"] = totals.bytes_read + totals.bytes_written
    sums["intensity_flop_per_byte"] = totals.flops / sums["bytes"] if sums["bytes"] else None
    return {_MAIN[by][0]: "total", **sums}


def _title(by: str, shown: int, of: int, unfolded: int, by_time: bool) -> str:
    noun = {"type": "types of operator", "stage": "sizes of maps"}.get(by, GROUPINGS[by] + "s")
    if of < unfolded:
        return f"{shown:,} of {of:,} groups of alike {noun}, longest first (* stands for several numbers)"
    if shown < of:
        return f"{shown:,} of {of:,} {noun}, longest first"
    return f"All {of:,} {noun}, {'longest first' if by_time else 'in order of execution'}"


def _all_columns(by: str, rows: Sequence[Row], *, counted: bool) -> tuple[Column, ...]:
    """Every column in reading order, prefixes chosen for the total; ``counted``: a row may be several operators."""

    def quantity(key: str, heading: str, unit: str, **options: Any) -> Column:
        return quantity_column(key, heading, unit, [row[key] for row in rows], least=100.0, **options)

    hidden: dict[str, Any] = {"on_page": False}
    fields = (text_column(key, heading, **hidden) for key, heading in zip(FIELD_KEYS, _FIELD_HEADINGS, strict=True))
    behind: dict[str, tuple[Column, ...]] = {
        "params": (quantity("bytes", "bytes", "B", importance=70, in_data=False),),
        "bytes_written": (intensity_column("intensity_flop_per_byte", "FLOP/B", importance=40),),
        "activation_bytes": tuple(fields),
    }

    def amounts() -> Iterator[Column]:
        for q in _IN_DATA:
            shown: dict[str, Any] = hidden if q.importance is None else {"importance": q.importance}
            yield quantity(q.key, q.heading, q.unit, **shown)
            yield from behind.get(q.key, ())

    return (
        text_column("model", "model", **hidden),
        text_column("hardware", "machine", **hidden),
        text_column(
            "name", GROUPINGS[by], shortest=24, importance=99, on_page=by != "op", render=_operator, empty="(model)"
        ),
        text_column("module", "module", shortest=24, importance=99, on_page=by == "op"),
        text_column("op", "operator", shortest=18, importance=98, on_page=by == "op", render=_operator),
        text_column("inputs", "inputs", shortest=14, importance=5, **hidden),
        text_column("outputs", "outputs", shortest=14, importance=6, **hidden),
        quantity("count", "ops", "", on_page=by != "op" or counted, importance=75),
        *amounts(),
        share_column("time_share", "share", importance=90),
        text_column("bound", "bound", importance=95),
        text_column("algorithm", "algorithm", importance=60, on_page=by == "op"),
    )


def _chosen(columns: tuple[Column, ...], by: str, keys: Sequence[str] | None) -> tuple[Column, ...]:
    """The columns with those on the page that were asked for; what names a row always is."""
    if keys is None:
        return columns
    from dataclasses import replace

    known = [column.key for column in columns]
    for key in keys:
        if key not in known:
            raise InputError(librarian(f"there is no column {key!r}", there_is=known, near=near_matches(key, known)))
        if key in FIELD_KEYS and by != "op":
            raise InputError(f"{key} is of one operator, not of several added up\n  ask for it with --by op")
    return tuple(replace(column, on_page=column.key in keys or column.key in _MAIN[by]) for column in columns)


def _operator(name: str) -> str:
    """An operator as its users call it: ``conv2d`` for ``aten.conv2d``."""
    return operator_word(name) or NONE


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
