"""The table of kernels: how each runs, what it moves between which levels, how long it takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.nodes import operator_word
from costmodel.report.columns import (
    intensity_column,
    number_column,
    quantity_column,
    share_column,
    text_column,
)
from costmodel.report.document import Column, Row, Table
from costmodel.report.text import common_path
from costmodel.rows import KernelRow

__all__ = ["kernel_record", "kernel_remarks", "kernel_table"]

#: Quantities that add up over launches.
_ADDITIVE = (
    "flops", "matrix_flops", "bytes_read", "bytes_written", "bytes", "dram_bytes", "cache_bytes", "loaded_bytes",
    "starts", "waited_s", "busy_s", "latency_s", "time_share", "energy_j", "count",
)  # fmt: skip
#: What launches have in common that pages show as one row, besides the pattern of the node's name.
_ALIKE = (
    "op", "algorithm", "tile", "waves", "split_k", "units", "flops", "bytes_read", "bytes_written", "dram_bytes",
    "busy_s", "bound",
)  # fmt: skip


def kernel_record(row: KernelRow) -> dict[str, Any]:
    """The exact values of one launch by key, units in the keys; tiles as ``128x64``."""
    values = {field.name: _known(getattr(row, field.name)) for field in fields(KernelRow)}
    values["time_share"] = values.pop("share")
    tile = "" if row.tile is None else "x".join(map(str, row.tile))
    return {**values, "nodes": list(row.nodes), "tile": tile, "bytes": row.bytes, "units": row.units,
            "intensity_flop_per_byte": row.intensity}  # fmt: skip


def kernel_table(analysis: Any, *, top: int | None = None, columns: Sequence[str] | None = None) -> Table:
    """The launches of an analysis: the ``top`` longest by time, alike ones as one row, or all in program order.

    Raises InputError for an unknown column and a negative ``top``.
    """
    if top is not None and top < 0:
        raise InputError(f"--top {top}: a number of rows is asked for, 0 shows all")
    about = {"model": analysis.model.name, "hardware": analysis.hardware.name}
    rows = [_page_record(about, row) for row in analysis.kernels]
    folded = _folded(rows) if top else rows
    shown = sorted(folded, key=lambda row: -row["latency_s"])[:top] if top else folded
    kept = {id(row) for row in shown}
    rest = [row for row in folded if id(row) not in kept]
    footer = [{"name": f"… {len(rest):,} more", **_sums(rest)}] if rest else []
    footer.append({"name": "total", **_sums(rows)})
    found = tuple(_columns([*shown, *footer], several=len(folded) < len(rows)))
    return Table(
        title=_title(len(shown), len(folded), len(rows)),
        columns=found if columns is None else _chosen(found, columns),
        rows=tuple(shown),
        footer=tuple(footer),
    )


def kernel_remarks(analysis: Any) -> list[str]:
    """What one must know to read the table: what its levels are."""
    followed = any(row.cache_bytes is not None for row in analysis.kernels)
    levels = (
        "DRAM and cache add up to the traffic of a kernel: what device memory serves, and hits on what was just "
        "written; loads are all that its tiles fetch and store through the shared cache, each operand as often as "
        "tiles need it; a kernel is busy for its time less what it waits for the host"
        if followed
        else "which level of memory serves a kernel is not followed on this machine, launch by launch"
    )
    return [levels]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _page_record(about: Row, row: KernelRow) -> dict[str, Any]:
    values = {**about, **kernel_record(row), "count": 1}
    values["nodes"] = ";".join(values["nodes"])
    values["serves"] = len(row.nodes)
    return values


def _folded(rows: Iterable[Row]) -> list[Row]:
    """Launches that differ by nothing but numbers in the name of their node as one row."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (re.sub(r"\d+", "*", row["name"]), *(_rounded(row[key]) for key in _ALIKE))
        alike.setdefault(key, []).append(row)
    return [{**m[0], **_sums(m), "name": common_path([row["name"] for row in m])} for m in alike.values()]


def _rounded(value: Any) -> Any:
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _sums(rows: Sequence[Row]) -> dict[str, Any]:
    sums: dict[str, Any] = {}
    for key in _ADDITIVE:
        values = [row[key] for row in rows]
        sums[key] = None if None in values else sum(values)
    moved = sums["bytes"] if sums["dram_bytes"] is None else sums["dram_bytes"]
    return sums | {"intensity_flop_per_byte": sums["flops"] / moved if moved else None}


def _title(shown: int, of: int, unfolded: int) -> str:
    if of < unfolded:
        return f"{shown:,} of {of:,} groups of alike kernels, longest first (* stands for several numbers)"
    if shown < of:
        return f"{shown:,} of {of:,} kernels, longest first"
    return f"All {of:,} kernels, in the order in which they are launched"


def _columns(rows: Sequence[Row], *, several: bool) -> Iterable[Column]:
    """Every column in reading order."""

    def amount(key: str, heading: str, unit: str, **options: Any) -> Column:
        return quantity_column(key, heading, unit, [row.get(key) for row in rows], least=100.0, **options)

    hidden: dict[str, Any] = {"on_page": False}
    followed = any(row.get("dram_bytes") is not None for row in rows)
    waits = any(row.get("waited_s") for row in rows)
    yield text_column("model", "model", **hidden)
    yield text_column("hardware", "machine", **hidden)
    yield text_column("name", "node", shortest=18, importance=99)
    yield text_column("nodes", "nodes", **hidden)
    yield text_column("module", "module", **hidden)
    yield text_column("phase", "phase", **hidden)
    yield text_column("op", "operator", render=operator_word, shortest=12, **hidden)
    yield text_column("algorithm", "kernel", shortest=16, importance=98)
    yield replace(number_column("count", "×", decimals=0, importance=85), on_page=several, in_data=False)
    yield text_column("tile", "tile", importance=91)
    yield number_column("waves", "waves", decimals=0, importance=30)
    yield replace(number_column("split_k", "split", decimals=0), **hidden)
    yield text_column("units", "units", importance=70)
    for key in ("engine", "dtype", "accumulate"):
        yield text_column(key, key, **hidden)
    yield amount("flops", "FLOPs", "FLOP", importance=80)
    yield amount("matrix_flops", "matrix", "FLOP", **hidden)
    yield amount("bytes_read", "read", "B", **hidden)
    yield amount("bytes_written", "written", "B", **hidden)
    yield amount("bytes", "moved", "B", importance=86, on_page=not followed)
    yield amount("dram_bytes", "DRAM", "B", importance=86, on_page=followed)
    yield amount("cache_bytes", "cache", "B", importance=84, on_page=followed)
    yield amount("loaded_bytes", "loads", "B", importance=60, on_page=followed)
    yield amount("workspace_bytes", "workspace", "B", **hidden)
    yield intensity_column("intensity_flop_per_byte", "FLOP/B", importance=20)
    yield replace(number_column("starts", "starts", decimals=0), **hidden)
    for key in ("issued_s", "start_s", "end_s", "compute_s", "memory_s", "launch_s"):
        yield amount(key, key.removesuffix("_s"), "s", **hidden)
    yield amount("busy_s", "busy", "s", importance=93, on_page=waits)
    yield amount("waited_s", "waits", "s", importance=88, on_page=waits)
    yield amount("latency_s", "time", "s", importance=97)
    yield share_column("time_share", "share", importance=65)
    yield text_column("bound", "bound", importance=95)
    yield amount("energy_j", "energy", "J", **hidden)
    yield amount("held_hz", "clock held at", "Hz", **hidden)


def _chosen(columns: tuple[Column, ...], keys: Sequence[str]) -> tuple[Column, ...]:
    known = [column.key for column in columns]
    for key in keys:
        if key not in known:
            raise InputError(librarian(f"there is no column {key!r}", there_is=known, near=near_matches(key, known)))
    return tuple(replace(column, on_page=column.key in (*keys, "name", "algorithm")) for column in columns)
