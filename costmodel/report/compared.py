"""A comparison as a page: FLOPs against time, by network and by stage, and why they part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from costmodel.report.columns import number_column, quantity_column, text_column
from costmodel.report.document import Block, Column, Document, KeyValues, Notes, Row, Table
from costmodel.report.summary import PREDICTED
from costmodel.units import format_seconds

__all__ = ["compared_document", "compared_json", "contenders_table"]

#: Causes named in a sentence.
_NAMED = 3
STAGES = (
    "a stage is all that runs on maps of one size, with 'head' behind the last map; a top-level module where there "
    "are no maps"
)
PARTS = (
    "the causes of a column add up to the difference in time (see the split of `costmodel explain`); FLOPs alone are "
    "at the peak that most of a model's own run at"
)


def compared_document(comparison: Any) -> Document:
    """The page: who wins where, the ratios, the stages, and the causes of the differences in seconds."""
    first = comparison.models[0]
    blocks: list[Block] = [KeyValues(tuple(_facts(comparison))), _networks_table(comparison)]
    blocks += [_stages_table(comparison, machine) for machine in comparison.machines]
    blocks.append(_causes_table(comparison))
    blocks.append(Notes(tuple(_sentences(comparison)), title="Why"))
    conventions = comparison.analyses[0][0].conventions
    blocks.append(Notes((PREDICTED, STAGES, PARTS, *conventions), title="Conventions"))
    return Document(f"{', '.join(comparison.models[1:])} against {first}", tuple(blocks))


def _facts(comparison: Any) -> Iterator[tuple[str, str]]:
    execution = comparison.analyses[0][0].execution
    inputs = {"×".join(map(str, row[0].model.inputs[0].shape)) for row in comparison.analyses if row[0].model.inputs}
    yield (
        "conditions",
        f"batch {execution.batch}, {execution.dtype}, {execution.layout}, {execution.mode}; input "
        + (" or ".join(sorted(inputs))),
    )
    flops = {row[0].name: row[0].totals.flops for row in comparison.analyses}
    yield "fewest FLOPs", min(flops, key=flops.__getitem__)
    winners = comparison.fastest
    if len(set(winners.values())) == 1:
        where = f"on all {len(winners)} machines" if len(winners) > 1 else f"on {next(iter(winners))}"
        yield "fastest", f"{next(iter(winners.values()))}, {where}"
    else:
        yield "fastest", "the winner changes: " + ", ".join(f"{model} on {name}" for name, model in winners.items())
    order = {name: _order(comparison, h) for h, name in enumerate(comparison.machines)}
    by_flops = sorted(flops, key=lambda name: flops[name])
    for name, by_time in order.items():
        if by_time != by_flops:
            yield f"order on {name}", f"{' < '.join(by_time)} by time; {' < '.join(by_flops)} by FLOPs"


def _order(comparison: Any, machine: int) -> list[str]:
    """Models by their time on a machine, the fastest first."""
    times = {row[machine].name: row[machine].latency for row in comparison.analyses}
    return sorted(times, key=lambda name: times[name])


def _networks_table(comparison: Any) -> Table:
    """A line a model: FLOPs and, for each machine, time, with their ratios to the first model's."""
    rows: dict[str, dict[str, Any]] = {}
    for found in comparison.contenders:
        row = rows.setdefault(
            found.model,
            {"model": found.model, "params": found.params, "flops": found.flops, "flops_ratio": found.flops_ratio},
        )
        row[f"latency_s_{found.machine}"] = found.latency_s
        row[f"latency_ratio_{found.machine}"] = found.latency_ratio
    values = list(rows.values())
    columns: list[Column] = [
        text_column("model", "model", shortest=14, importance=99),
        quantity_column("params", "params", "", [row["params"] for row in values], importance=20),
        quantity_column("flops", "FLOPs", "FLOP", [row["flops"] for row in values], importance=80),
        number_column("flops_ratio", "FLOPs", "×", decimals=2, importance=97),
    ]
    for machine in comparison.machines:
        columns.append(_seconds_column(values, f"latency_s_{machine}", machine, importance=90))
        columns.append(number_column(f"latency_ratio_{machine}", "time", "×", decimals=2, importance=96))
    return Table(columns=tuple(columns), rows=tuple(values), title=f"Ratios are to {comparison.models[0]}")


def _seconds_column(rows: list[Any], key: str, heading: str, **options: Any) -> Column:
    return quantity_column(key, heading, "s", [row.get(key) for row in rows], decimals=2, **options)


def _stages_table(comparison: Any, machine: str) -> Table:
    """A line a stage: the first model's FLOPs and time, the others' ratios to them; absolute where it has none."""
    first = comparison.models[0]
    rows: dict[str, dict[str, Any]] = {stage: {"stage": stage} for stage in comparison.stages}
    for found in comparison.stage_rows:
        if found.machine == machine:
            of = found.model
            rows[found.stage] |= {
                f"flops_{of}": found.flops,
                f"latency_s_{of}": found.latency_s,
                f"flops_ratio_{of}": found.flops_ratio,
                f"latency_ratio_{of}": found.latency_ratio,
            }
    values = list(rows.values())
    columns: list[Column] = [text_column("stage", "stage", importance=99)]
    for model in comparison.models:
        flops = quantity_column(
            f"flops_{model}", model, "FLOP", [row.get(f"flops_{model}") for row in values], importance=60
        )
        seconds = _seconds_column(values, f"latency_s_{model}", model, importance=61)
        ratios = [
            number_column(f"{what}_ratio_{model}", model, unit, decimals=2, importance=80)
            for what, unit in (("flops", "FLOPs ×"), ("latency", "time ×"))
        ]
        shown = model == first
        columns += [replace(column, on_page=shown) for column in (flops, seconds)]
        columns += [replace(column, on_page=not shown) for column in ratios]
    return Table(columns=tuple(columns), rows=tuple(values), title=f"Stages on {machine}: ratios to {first}")


def _causes_table(comparison: Any) -> Table:
    """A line a cause: how many seconds more than the first model each other one spends on it, on each machine."""
    rows: dict[str, dict[str, Any]] = {}
    keys = [(model, machine) for machine in comparison.machines for model in comparison.models[1:]]
    for model, machine in keys:
        for apart in comparison.apart(model, machine):
            row = rows.setdefault(apart.cause, {"cause": apart.cause, "label": apart.label})
            row[_key(model, machine)] = apart.seconds
    total: Row = {
        "label": "difference in time",
        **{_key(*key): sum(row.get(_key(*key), 0.0) for row in rows.values()) for key in keys},
    }
    largest = max((abs(total[_key(*key)]) for key in keys), default=0.0)
    values = [row for row in rows.values() if any(abs(row.get(_key(*key), 0.0)) >= 1e-4 * largest for key in keys)]
    values.sort(key=lambda row: (row["cause"] != "flops", -max(abs(row.get(_key(*key), 0.0)) for key in keys)))
    columns = [text_column("cause", "cause", on_page=False), text_column("label", "more time for", importance=99)]
    for model, machine in keys:
        key = _key(model, machine)
        column = quantity_column(
            key, model, "s", [row.get(key) for row in (*values, total)], least=100.0, importance=90
        )
        columns.append(replace(column, unit=f"{column.unit} {machine}"))
    title = f"Seconds more than {comparison.models[0]}, by cause"
    return Table(columns=tuple(columns), rows=tuple(values), footer=(total,), title=title)


def _key(model: str, machine: str) -> str:
    return f"seconds_{model}_{machine}"


def _sentences(comparison: Any) -> Iterator[str]:
    """For each other model and machine: the two ratios, and the causes that part them."""
    first = comparison.models[0]
    for found in comparison.contenders:
        if found.model == first:
            continue
        apart = comparison.apart(found.model, found.machine)
        named = "; ".join(_cause_phrase(first, cause) for cause in apart[:_NAMED])
        yield (
            f"{found.model} on {found.machine}: {found.flops_ratio:.2f} times the FLOPs, {found.latency_ratio:.2f} "
            f"times the time ({_signed(sum(a.seconds for a in apart))}): {named}"
        )


def _cause_phrase(first: str, apart: Any) -> str:
    whose = f"{first}'s " if apart.seconds < 0 and apart.nodes else ""
    nodes = f" ({whose}{', '.join(name for name, _ in apart.nodes[:2])})" if apart.nodes else ""
    return f"{_signed(apart.seconds)} {apart.label}{nodes}"


def _signed(seconds: float) -> str:
    return f"{'+' if seconds >= 0 else '−'}{format_seconds(abs(seconds))}"


def contenders_table(comparison: Any) -> Table:
    """A row a model and machine, for data formats."""
    rows = tuple({key: getattr(found, key) for key in found.__slots__} for found in comparison.contenders)
    return Table(columns=tuple(text_column(key, key) for key in rows[0]), rows=rows)


def compared_json(comparison: Any) -> dict[str, Any]:
    """Networks, stages and causes as plain dicts and lists; seconds exact."""
    return {
        "schema_version": 1,
        "models": list(comparison.models),
        "machines": list(comparison.machines),
        "fastest": dict(comparison.fastest),
        "networks": [{key: getattr(found, key) for key in found.__slots__} for found in comparison.contenders],
        "stages": [{key: getattr(found, key) for key in found.__slots__} for found in comparison.stage_rows],
        "causes": [
            {
                "model": model,
                "machine": machine,
                "cause": apart.cause,
                "label": apart.label,
                "seconds": apart.seconds,
                "nodes": [{"name": name, "seconds": seconds} for name, seconds in apart.nodes],
            }
            for machine in comparison.machines
            for model in comparison.models[1:]
            for apart in comparison.apart(model, machine)
        ],
        "conventions": [STAGES, PARTS, *comparison.analyses[0][0].conventions],
    }
