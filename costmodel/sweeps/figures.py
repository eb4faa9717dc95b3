"""Figures of a sweep: latency and throughput over the batch, FLOPs against latency, and a Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.report import figures
from costmodel.sweeps.columns import COORDINATES, named
from costmodel.sweeps.page import model_labels, quantity_word
from costmodel.sweeps.pareto import pareto

__all__ = ["FIGURES", "figure"]

#: More lines or colours than these cannot be told apart.
_MOST_SERIES = len(figures.COLOURS)

FIGURES = ("latency", "throughput", "flops", "pareto")


def figure(sweep: Any, kind: str) -> figures.Picture:
    """One of :data:`FIGURES`, to be drawn as SVG, PDF or PNG: ``latency`` and ``throughput`` over the batch, ``flops``
    against latency, and ``pareto``, the objectives of the sweep's front (else MACs and latency) with what is beaten
    behind it.

    Raises InputError for another kind, and where there is nothing to draw.
    """
    if kind not in FIGURES:
        raise InputError(librarian(f"there is no figure {kind!r}", there_is=FIGURES, near=near_matches(kind, FIGURES)))
    rows = [row for row in (sweep.among if kind == "pareto" else sweep.rows) if not row["reason"]]
    if not rows:
        raise InputError("no point is left to draw")
    if kind in ("latency", "throughput"):
        return _over_batch(rows, kind)
    x, y = ("flops", "latency") if kind == "flops" else sweep.objectives[:2] or ("macs", "latency")
    return _scatter(rows, x, y, with_front=kind == "pareto")


def _over_batch(rows: Sequence[Mapping[str, Any]], kind: str) -> figures.Picture:
    if len({row["batch"] for row in rows}) < 2:
        raise InputError(f"a figure of {kind} over the batch needs two batches or more\n  such as --batch 1,2..64")
    what = named(kind).column
    series = _series(rows, without=("batch",))
    points = {
        name: sorted((float(row["batch"]), float(row[what.key])) for row in members) for name, members in series.items()
    }
    y = "latency (s)" if kind == "latency" else "samples a second (1/s)"
    return figures.lines_picture(points, "batch", y, f"{kind} over the batch{_left_out(rows, series)}")


def _scatter(rows: Sequence[Mapping[str, Any]], x: str, y: str, *, with_front: bool) -> figures.Picture:
    across, up = named(x).column, named(y).column
    rows = [row for row in rows if row[across.key] and row[up.key]]
    by = "hw" if len({row["hw"] for row in rows}) > 1 else "model"
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    kept = dict(list(groups.items())[:_MOST_SERIES])
    dots = {
        name: [(float(r[across.key]), float(r[up.key]), _label(r, rows, (by,))) for r in members]
        for name, members in kept.items()
    }
    fronts: dict[str, list[tuple[float, float]]] = {}
    if with_front:
        for row in pareto([row for members in kept.values() for row in members], (x, y)):
            key = f"{row['hw']} {row['batch']}"
            fronts.setdefault(key, []).append((float(row[across.key]), float(row[up.key])))
    said = f"{quantity_word(up)} against {quantity_word(across)}"
    title = f"{said}{_left_out(rows, kept) if len(kept) < len(groups) else ''}"
    return figures.scatter_picture(dots, list(fronts.values()), _axis(across), _axis(up), title)


def _axis(column: Any) -> str:
    return f"{quantity_word(column)} ({column.unit})" if column.unit else quantity_word(column)


def _series(rows: Sequence[Mapping[str, Any]], without: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by what differs between them besides ``without``, the first ones."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(_label(row, rows, without) or row["model"], []).append(row)
    return dict(list(found.items())[:_MOST_SERIES])


def _label(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], without: Sequence[str] = ()) -> str:
    """What tells a row from others."""
    keys = [c.key for c in COORDINATES if c.key not in (*without, "width") and len({r[c.key] for r in rows}) > 1]
    said = {"model": model_labels(rows).get(row["model"])}
    said |= {
        key: f"{word} {row[key]}" for key, word in (("batch", "batch"), ("context", "context"), ("seq_len", "tokens"))
    }
    return ", ".join(str(said.get(key, row[key])) for key in keys if row[key] is not None)


def _left_out(rows: Sequence[Mapping[str, Any]], shown: Mapping[str, Sequence[Any]]) -> str:
    missing = len(rows) - sum(map(len, shown.values()))
    return f" ({missing} of {len(rows)} points left out: more than {_MOST_SERIES} lines)" if missing else ""
