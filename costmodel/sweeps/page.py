"""A sweep as a page: a line a design, a column a batch (or what else varies), what failed and why; and as data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from costmodel.report.as_json import SCHEMA_VERSION
from costmodel.report.columns import NONE, number_column, quantity_column, text_column
from costmodel.report.document import Block, Column, Document, KeyValues, Notes, Table
from costmodel.report.summary import PREDICTED
from costmodel.sources.arguments import parse_request
from costmodel.sweeps.columns import COLUMNS, COORDINATES, SHARED, Named, SweepColumn, named

__all__ = ["model_labels", "quantity_word", "rows_table", "swept_document", "swept_json"]

#: Coordinates that a pivot may spread over its columns, the first that varies and has few enough values.
_ACROSS = ("batch", "context", "hw", "dtype", "mode", "height", "seq_len", "layout", "phase", "model")
_MOST_ACROSS = 14
#: Coordinates that are numbers.
_NUMBERS = ("height", "width", "seq_len", "context", "batch")
#: Coordinates of training steps, which all of them share.
_OF_TRAINING = ("optimizer", "trained")
#: Reasons of failed points that a page lists.
_MOST_REASONS = 8
#: Quantities of the plain list beside coordinates and what was asked for.
_LISTED = ("latency_s", "throughput_per_s", "macs", "params", "peak_memory_bytes", "energy_j")
_PREFIXES = ("p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")
_NOT_FITTING = "! "  # before the number, so that digits stay below one another


def swept_document(sweep: Any, *, show: str = "latency", top: int | None = None) -> Document:
    """The page of a sweep, quantity ``show`` pivoted; chosen rows (a condition, a Pareto front) as a plain list.

    ``top`` lines at most (None or 0: all). Raises InputError where ``show`` is no quantity.
    """
    what = named(show)
    rows = [row for row in sweep.rows if not row["reason"]]
    across = None if sweep.said else _across(rows)
    table = _list(sweep, rows, what, top) if across is None else _pivot(rows, across, what, top)
    blocks: list[Block] = [KeyValues(tuple(_facts(sweep, rows))), table]
    cut = (len(rows) if across is None else _lines(rows, across)) - len(table.rows)
    notes = [f"{_counted(cut, 'more line')} (--top 0 shows all; -o sweep.csv holds every row)"] if cut > 0 else []
    without = [Notes(tuple(_failures(sweep)), title="Without numbers")] if sweep.failed or sweep.unjudged else []
    if not sweep.rows:
        return Document(_title(sweep), (Notes(("no point of the sweep passes",)), *without))
    if any(row["fits"] is False for row in rows) and across is not None:
        notes.append("! does not fit into the memory of the machine")
    blocks += [Notes(tuple(notes))] * bool(notes)
    blocks += without
    blocks.append(
        Notes((PREDICTED, "intervals, counts and energy: --format csv, json or parquet"), title="Conventions")
    )
    return Document(_title(sweep), tuple(blocks))


def _title(sweep: Any) -> str:
    models, machines = (len({row[key] for row in sweep.rows}) for key in ("model", "hw"))
    found = f"{_counted(len(sweep.rows), 'point')}: {_counted(models, 'model')}, {_counted(machines, 'machine')}"
    return f"{found}; {'; '.join(sweep.said)}" if sweep.said else found


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _facts(sweep: Any, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """What all rows have in common, and how many have numbers."""
    same = {c.key: rows[0][c.key] for c in (*COORDINATES, *SHARED) if rows and len({row[c.key] for row in rows}) == 1}
    if "height" in same and "width" in same:
        height, width = same.pop("height"), same.pop("width")
        same["image"] = f"{height}x{width}" if height else None
    requests = {parse_request(row["model"]).bare for row in rows}
    if "model" not in same and len(requests) == 1:
        same = {"model": requests.pop(), **same}
    if not any(row["height"] for row in rows):
        same.pop("layout", None)  # is one of images
    if limit := same.pop("power_limit_w", None):
        same["power limit"] = f"{limit:g} W"
    yield "all", ", ".join(_said(key, value) for key, value in same.items() if value is not None) or "nothing in common"
    training = next((row for row in rows if row["optimizer"]), None)
    if training and "phase" not in same:
        yield "training", ", ".join(_said(key, training[key]) for key in _OF_TRAINING if training[key])
    if sweep.failed:
        yield "failed", f"{_counted(len(sweep.failed), 'point')} of {len(sweep.rows):,}, listed below"
    if sweep.unjudged:
        yield "failed", f"{_counted(len(sweep.unjudged), 'point')} beside these, listed below"


def _said(key: str, value: Any) -> str:
    return str(value) if key == "trained" else f"{_HEADINGS.get(key, key)} {value}"


def _failures(sweep: Any) -> Iterator[str]:
    """Reasons with how often and where, the most frequent first."""
    failed = (*sweep.failed, *sweep.unjudged)
    counts = Counter(row["reason"] for row in failed)
    for reason, count in counts.most_common(_MOST_REASONS):
        models = list(dict.fromkeys(row["model"] for row in failed if row["reason"] == reason))
        where = ", ".join(models[:2]) + (f" and {len(models) - 2} more" if len(models) > 2 else "")
        yield f"{count} x {reason} ({where})"
    if len(counts) > _MOST_REASONS:
        yield f"{len(counts) - _MOST_REASONS} more reasons: the column 'reason' of --format csv"


# -- pivot ---------------------------------------------------------------------------------------------------------


def _across(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The coordinate that the columns of a pivot stand for; None where a plain list is better."""
    for key in _ACROSS:
        if 1 < len({row[key] for row in rows}) <= _MOST_ACROSS:
            return key
    return None


def _labels(rows: Sequence[Mapping[str, Any]], across: str) -> list[str]:
    """Coordinates that name the lines: those that vary, the model always, square images by their height alone."""
    varying = [c.key for c in _lines_by(rows) if c.key != across]
    if "width" in varying and all(row["height"] == row["width"] for row in rows):
        varying.remove("width")
    if across == "height" and "width" in varying:
        varying.remove("width")
    return varying if "model" in varying or across == "model" else ["model", *varying]


def _lines_by(rows: Sequence[Mapping[str, Any]]) -> list[SweepColumn]:
    """Coordinates that differ, those of training aside: they follow from the phase."""
    return [c for c in COORDINATES if c.key not in _OF_TRAINING and len({row[c.key] for row in rows}) > 1]


def _lines(rows: Sequence[Mapping[str, Any]], across: str) -> int:
    labels = _labels(rows, across)
    return len({tuple(row[key] for key in labels) for row in rows})


def _pivot(rows: Sequence[Mapping[str, Any]], across: str, what: Named, top: int | None) -> Table:
    labels = _labels(rows, across)
    values = sorted({row[across] for row in rows}) if across in _NUMBERS else _first_seen(rows, across)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault(tuple(row[key] for key in labels), {key: row[key] for key in labels})
        line[str(row[across])] = (row[what.column.key], row["fits"])
    kept = list(lines.values())[: top or None]
    shown = [cell[0] for line in kept for key, cell in line.items() if key not in labels]
    unit, scale = _unit(what.column.unit, shown)
    names = model_labels(rows)
    columns = [_label_column(key, names, labels) for key in labels]
    columns += [
        Column(key=str(value), heading=str(value), unit=unit, render=_cell(scale), importance=60 - i)
        for i, value in enumerate(values)
    ]
    if across != "hw":
        columns[len(labels)] = replace(columns[len(labels)], heading=f"{_HEADINGS.get(across, across)} {values[0]}")
    empty = {str(value): None for value in values}
    return Table(
        columns=tuple(columns),
        rows=tuple({**empty, **line} for line in kept),
        title=f"{quantity_word(what.column)} by {_HEADINGS.get(across, across)}",
    )


def _unit(unit: str, values: Sequence[float | None]) -> tuple[str, float]:
    """The unit of all cells, with the prefix that suits the smaller ones: they may be far apart."""
    known = sorted(abs(value) for value in values if value)
    column = quantity_column("", "", unit, known[len(known) // 4 :][:1], least=1.0)
    power = _PREFIXES.index(column.unit.removesuffix(unit) if unit else column.unit) - _PREFIXES.index("")
    return column.unit, 1000.0**power


def _cell(scale: float) -> Callable[[Any], str]:
    """Value and whether it fits -> text."""
    return lambda cell: (
        NONE if cell is None or cell[0] is None else _NOT_FITTING * (cell[1] is False) + _digits(cell[0] / scale)
    )


def _digits(value: float) -> str:
    """At least three significant digits, none left out before the point.

    >>> _digits(0.01234), _digits(5.9), _digits(51.41), _digits(12430.2)
    ('0.0123', '5.90', '51.4', '12,430')
    """
    if not value:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def model_labels(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What tells models apart: where all are one model built with other arguments, the arguments that differ."""
    parsed = {request: parse_request(request) for request in dict.fromkeys(row["model"] for row in rows)}
    if len({each.bare for each in parsed.values()}) > 1 or len(parsed) < 2:
        return {request: request for request in parsed}
    values: dict[str, set[str]] = {}
    for each in parsed.values():
        for name in {name for other in parsed.values() for name in other.arguments}:
            values.setdefault(name, set()).add(repr(each.arguments.get(name)))
    return {
        request: ", ".join(f"{n}={v!r}" for n, v in each.arguments.items() if len(values[n]) > 1) or request
        for request, each in parsed.items()
    }


def _first_seen(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


_HEADINGS = {"height": "image size", "hw": "machine", "seq_len": "tokens"}


def _label_column(key: str, models: Mapping[str, str], labels: Sequence[str]) -> Column:
    shortest = {"model": 18, "hw": 10}.get(key)
    importance = 99 if key == "model" else 90
    if key in _NUMBERS:
        heading = (
            key if key == "height" and "width" in labels else _HEADINGS.get(key, key)
        )  # height and width: no square
        return Column(key=key, heading=heading, render=_or_dash, importance=importance)
    render = (lambda model: models.get(model, model)) if key == "model" else str
    return text_column(key, _HEADINGS.get(key, key), importance=importance, shortest=shortest, render=render)


def _or_dash(value: Any) -> str:
    return NONE if value is None else str(value)


# -- plain lists ---------------------------------------------------------------------------------------------------


def _list(sweep: Any, rows: Sequence[Mapping[str, Any]], what: Named, top: int | None) -> Table:
    """One line a point: what differs, and the quantities that were asked for."""
    labels = [c.key for c in _lines_by(rows)] or ["model"]
    if "width" in labels and all(row["height"] == row["width"] for row in rows):
        labels.remove("width")
    asked = [named(name).column for name in sweep.objectives]
    kept = rows[: top or None]
    by_key = {column.key: column for column in COLUMNS}
    quantities = dict.fromkeys([*asked, what.column, *(by_key[key] for key in _LISTED)])
    names = model_labels(rows)
    columns = [_label_column(key, names, labels) for key in labels]
    columns += [_quantity(column, kept, 80 if column in asked else 60 - i) for i, column in enumerate(quantities)]
    columns.append(text_column("bound", "bound", importance=55))
    columns.append(text_column("fits", "fits", render=lambda fits: "yes" if fits else "no", importance=58))
    return Table(columns=tuple(columns), rows=tuple(kept))


def quantity_word(column: SweepColumn) -> str:
    """A column's name without its unit: ``peak memory`` of ``peak_memory_bytes``."""
    for ending in ("_per_s", "_bytes", "_s", "_j", "_w"):
        if column.unit and column.key.endswith(ending):
            return column.key.removesuffix(ending).replace("_", " ")
    return column.key.replace("_", " ")


def _quantity(column: SweepColumn, rows: Sequence[Mapping[str, Any]], importance: int) -> Column:
    heading = quantity_word(column).replace("peak memory", "memory")
    values = [row[column.key] for row in rows]
    if column.unit == "1/s":
        return number_column(column.key, heading, "1/s", importance=importance)
    return quantity_column(column.key, heading, column.unit, values, importance=importance, decimals=2, least=1.0)


# -- data ----------------------------------------------------------------------------------------------------------


def rows_table(sweep: Any) -> Table:
    """Every row and column, exact."""
    return Table(
        columns=tuple(Column(key=column.key, heading=column.key, render=_or_dash) for column in COLUMNS),
        rows=sweep.rows,
    )


def swept_json(sweep: Any) -> dict[str, Any]:
    """The rows, with the axes that they span and what each column is."""
    return {
        "schema_version": SCHEMA_VERSION,
        "axes": {name: list(values) for name, values in sweep.axes.items()},
        "chosen": list(sweep.said),
        "columns": [{"key": c.key, "unit": c.unit, "meaning": c.meaning} for c in COLUMNS],
        "rows": list(sweep.rows),
    }
