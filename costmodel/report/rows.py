"""The table of where the time goes: by operator, by module or by type of operator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.report.columns import NONE, intensity_column, quantity_column, share_column, text_column
from costmodel.report.document import Column, Row, Table
from costmodel.units import format_quantity

__all__ = ["ADDITIVE", "GROUPINGS", "record", "rows_table", "sum_remarks", "word"]

#: What ``rows(by=...)`` can be grouped by, with what one row is called.
GROUPINGS = {"op": "operator", "module": "module", "type": "type of operator"}

#: Quantities of a row that add up over rows, by key; floats last.
ADDITIVE = (
    "count", "flops", "matrix_flops", "vector_flops", "macs", "params", "bytes_read", "bytes_written",
    "activations", "workspace_bytes", "kernels", "latency_s",
)  # fmt: skip

#: Totals that a page compares with the sum of its rows: name, unit, and why they may differ.
_SUMMED = {
    "flops": ("FLOPs", "FLOP", ""),
    "params": ("parameters", "", " (those that operators share count once)"),
    "bytes_read": ("bytes read", "B", ""),
    "bytes_written": ("bytes written", "B", ""),
    "latency_s": ("time", "s", " (kernels overlap, or wait for one another)"),
}

#: Columns that name a row, by grouping; they are on every page.
_MAIN = {"op": ("module", "op"), "module": ("name",), "type": ("name",)}


def word(value: Any) -> str:
    """The plain word of a bound, an algorithm or a mode, whether it is a string or an enumeration."""
    return str(getattr(value, "value", value) or "")


def record(row: Any) -> dict[str, Any]:
    """The exact values of an analysis row by key, units in the keys."""
    values: dict[str, Any] = {"name": row.name, "op": row.op, "module": row.module}
    values |= {key: getattr(row, key) for key in ADDITIVE}
    values["time_share"] = row.share
    values["intensity_flop_per_byte"] = _finite(row.intensity)
    return values | {
        "bound": word(row.bound),
        "algorithm": word(row.algorithm),
        "inputs": row.inputs,
        "outputs": row.outputs,
    }


def rows_table(analysis: Any, *, by: str = "op", top: int | None = None, columns: Sequence[str] | None = None) -> Table:
    """The rows of an analysis: all in the analysis's order, or the ``top`` longest by time, and the total.

    ``columns`` names the quantities that pages show, by key; data formats always get all of them.
    Raises InputError for an unknown grouping or column, and for a negative ``top``.
    """
    if by not in GROUPINGS:
        raise InputError(librarian(f"rows cannot be grouped by {by!r}", there_is=list(GROUPINGS)))
    if top is not None and top < 0:
        raise InputError(f"--top {top}: a number of rows is asked for, 0 shows all")
    about = {"model": analysis.model.name, "hardware": analysis.hardware.name}
    rows = [{**about, **_page_record(row)} for row in analysis.rows(by=by)]
    shown = sorted(rows, key=lambda r: -r["latency_s"])[:top] if top else rows
    rest = len(rows) - len(shown)
    footer = [_rest_row(rows, shown)] * bool(rest) + [_total_row(rows, analysis.totals)]
    return Table(
        title=_title(by, len(shown), len(rows)),
        columns=_chosen(_all_columns(by, shown), by, columns),
        rows=tuple(shown),
        footer=tuple({_MAIN[by][0]: label, **values} for label, values in footer),
    )


def sum_remarks(rows: Iterable[Any], totals: Any) -> list[str]:
    """A sentence for each quantity whose total is not the sum of the rows, as with shared parameters."""
    rows, remarks = list(rows), []
    for key, (name, unit, why) in _SUMMED.items():
        parts, whole = math.fsum(getattr(row, key) for row in rows), getattr(totals, key)
        if not math.isclose(parts, whole, rel_tol=1e-3, abs_tol=1e-12):
            shown, total = format_quantity(parts, unit), format_quantity(whole, unit)
            remarks.append(f"{name}: the rows add up to {shown}, the total is {total}{why}")
    return remarks


def _page_record(row: Any) -> dict[str, Any]:
    values = record(row)
    return {**values, "bytes": values["bytes_read"] + values["bytes_written"]}


def _sums(rows: Iterable[Row]) -> dict[str, Any]:
    """Sums of what adds, and the intensity that follows from them."""
    rows = list(rows)
    sums: dict[str, Any] = {key: sum(row[key] for row in rows) for key in (*ADDITIVE, "bytes")}
    sums |= {key: math.fsum(row[key] for row in rows) for key in ("latency_s", "time_share")}
    return sums | {"intensity_flop_per_byte": sums["flops"] / sums["bytes"] if sums["bytes"] else None}


def _rest_row(rows: Sequence[Row], shown: Sequence[Row]) -> tuple[str, Row]:
    kept = {id(row) for row in shown}
    rest = [row for row in rows if id(row) not in kept]
    return f"… {len(rest)} more", _sums(rest)


def _total_row(rows: Sequence[Row], totals: Any) -> tuple[str, Row]:
    """The totals of the analysis, which count shared parameters once; sums where it keeps no total."""
    sums = _sums(rows)
    sums |= {key: getattr(totals, key) for key in ADDITIVE if hasattr(totals, key)}
    sums["count"] = sum(row["count"] for row in rows)
    sums["bytes"] = totals.bytes_read + totals.bytes_written
    sums["intensity_flop_per_byte"] = totals.flops / sums["bytes"] if sums["bytes"] else None
    return "total", sums


def _title(by: str, shown: int, of: int) -> str:
    noun = "types of operator" if by == "type" else GROUPINGS[by] + "s"
    if shown < of:
        return f"{shown} of {of} {noun}, longest first"
    return f"All {of} {noun}" + (", in order of execution" if by == "op" else "")


def _all_columns(by: str, rows: Sequence[Row]) -> tuple[Column, ...]:
    """Every column in reading order; widths and prefixes fit the rows of this page."""

    def quantity(key: str, heading: str, unit: str, **options: Any) -> Column:
        return quantity_column(key, heading, unit, [row[key] for row in rows], **options)

    hidden: dict[str, Any] = {"on_page": False}
    return (
        text_column("model", "model", **hidden),
        text_column("hardware", "machine", **hidden),
        text_column(
            "name", GROUPINGS[by], shrinks=True, importance=99, on_page=by != "op", render=_operator, empty="(model)"
        ),
        text_column("module", "module", shrinks=True, importance=99, on_page=by == "op"),
        text_column("op", "operator", shrinks=True, importance=98, on_page=by == "op", render=_operator),
        text_column("inputs", "inputs", shrinks=True, importance=5, **hidden),
        text_column("outputs", "outputs", shrinks=True, importance=6, **hidden),
        quantity("count", "ops", "", on_page=by != "op", importance=20),
        quantity("flops", "FLOPs", "FLOP", importance=80),
        quantity("matrix_flops", "matrix", "FLOP", **hidden),
        quantity("vector_flops", "vector", "FLOP", **hidden),
        quantity("macs", "MACs", "MAC", **hidden),
        quantity("params", "params", "", importance=30),
        quantity("bytes", "bytes", "B", importance=70, in_data=False),
        quantity("bytes_read", "read", "B", **hidden),
        quantity("bytes_written", "written", "B", **hidden),
        intensity_column("intensity_flop_per_byte", "FLOP/B", importance=40),
        quantity("activations", "activations", "", **hidden),
        quantity("workspace_bytes", "workspace", "B", **hidden),
        quantity("kernels", "kernels", "", **hidden),
        quantity("latency_s", "time", "s", importance=97),
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
    return tuple(replace(column, on_page=column.key in keys or column.key in _MAIN[by]) for column in columns)


def _operator(name: str) -> str:
    """An operator as its users call it: ``conv2d`` for ``aten.conv2d``."""
    return name.removeprefix("aten.") or NONE


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
