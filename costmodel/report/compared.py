"""A comparison as a page: FLOPs against time, by network and by stage, and why they part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from costmodel.execution import Phase
from costmodel.report.as_json import execution_json
from costmodel.report.columns import number_column, quantity_column, text_column
from costmodel.report.document import Block, Column, Document, KeyValues, Notes, Paragraph, Row, Table
from costmodel.report.matrix import fact_sentences, machine_labels, matrix_table, signed
from costmodel.report.memory import verdict_sentence
from costmodel.report.summary import PREDICTED
from costmodel.report.text import shorten

__all__ = ["compared_document", "compared_json", "contenders_table"]

#: Causes named in a sentence.
_NAMED = 3
#: Columns of causes that a page has room for.
_PAIRS = 4
#: Characters of a model's name above a column.
_HEADING = 14
STAGES = (
    "a stage is all that runs on maps of one size, with 'head' behind the last map; a top-level module where there "
    "are no maps"
)
#: Where the rest is.
SHORT = "--details adds stages, causes in seconds for every model and machine, winners by batch, and conventions"
PARTS = (
    "the causes of a column add up to the difference in time (see the split of `costmodel explain`); FLOPs alone are "
    "at the peak that most of a model's own run at"
)


def compared_document(comparison: Any, *, details: bool = False) -> Document:
    """The page: every model on every machine, and the three causes that part times from FLOPs most.

    ``details`` adds stages, the causes of every model on every machine in seconds, winners by batch, and conventions.
    """
    first = comparison.models[0]
    misfits = tuple(_misfits(comparison))
    blocks: list[Block] = [*[Notes(misfits)] * bool(misfits)]
    blocks += [KeyValues(tuple(_facts(comparison, details))), matrix_table(comparison)]
    blocks.append(Notes(tuple(fact_sentences(comparison)), title="What FLOPs do not say, and the share of it"))
    if details:
        blocks += [_stages_table(comparison, machine) for machine in comparison.machines]
        blocks += _causes_tables(comparison)
        blocks.append(Notes(tuple(_sentences(comparison)), title="Why"))
        conventions = _conventions(comparison)
        blocks.append(Notes((PREDICTED, STAGES, PARTS, *conventions), title="Conventions"))
    else:
        assumed = dict.fromkeys(str(a) for row in comparison.analyses for analysis in row for a in analysis.assumed)
        blocks += [Notes(tuple(assumed), title="Assumed")] * bool(assumed)
        blocks.append(Paragraph(SHORT))
    others = len(comparison.models) - 1
    against = ", ".join(comparison.models[1:]) if others <= _NAMED else f"{others} models"
    return Document(f"{against} against {first}", tuple(blocks))


def _misfits(comparison: Any) -> Iterator[str]:
    """Which models do not fit which machine, or only just."""
    for row in comparison.analyses:
        for analysis in row:
            if said := verdict_sentence(analysis):
                yield f"{analysis.name} on {analysis.hardware.name}: {said}"


def _facts(comparison: Any, details: bool) -> Iterator[tuple[str, str]]:
    execution = comparison.analyses[0][0].execution
    inputs = {"×".join(map(str, row[0].model.inputs[0].shape)) for row in comparison.analyses if row[0].model.inputs}
    words = [word for word in execution.words.values() if word != Phase.INFERENCE.value]
    yield "conditions", f"batch {execution.batch}, {', '.join(words)}; input {' or '.join(sorted(inputs))}"
    machines = [analysis.hardware for analysis in comparison.analyses[0]]
    labels = machine_labels(comparison)
    yield "machines", ", ".join(f"{machine.title} ({labels[machine.name]})" for machine in machines)
    issued = [analysis for analysis in comparison.analyses[0] if analysis.hardware.family.issues_ahead]
    if issued:
        yield "hosts", ", ".join(f"{a.host.name} ({labels[a.hardware.name]})" for a in issued)
    flops = {row[0].name: row[0].totals.flops for row in comparison.analyses}
    yield "fewest FLOPs", min(flops, key=flops.__getitem__)
    winners, short = comparison.fastest, labels
    if len(set(winners.values())) == 1:
        where = f"on all {len(winners)} machines" if len(winners) > 1 else f"on {short[next(iter(winners))]}"
        yield "fastest", f"{next(iter(winners.values()))}, {where}"
    else:
        yield (
            "fastest",
            "the winner changes: " + ", ".join(f"{model} on {short[name]}" for name, model in winners.items()),
        )
    if details:
        yield from _by_batch(comparison, short)


def _by_batch(comparison: Any, short: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Who wins at which batch, where that changes."""
    for name in comparison.machines:
        winners = comparison.winners_by_batch(name)
        if len(winners) > 1:
            said = ", ".join(f"{model} from batch {batch}" for batch, model in winners)
            yield f"fastest on {short[name]}", f"changes with the batch: {said}"


def _seconds_column(rows: list[Any], key: str, heading: str, **options: Any) -> Column:
    return quantity_column(key, heading, "s", [row.get(key) for row in rows], decimals=2, **options)


def _stages_table(comparison: Any, machine: str) -> Table:
    """A line a stage: the first model's FLOPs and time, the others' ratios to them; absolute where it has none."""
    first = comparison.models[0]
    kinds = ("flops", "latency_s", "flops_ratio", "latency_ratio")
    empty = {f"{kind}_{model}": None for model in comparison.models for kind in kinds}
    rows: dict[str, dict[str, Any]] = {stage: {"stage": stage, **empty} for stage in comparison.stages}
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
        name, work = shorten(model, _HEADING), [row[f"flops_{model}"] for row in values]
        flops = quantity_column(f"flops_{model}", name, "FLOP", work, importance=85)
        seconds = _seconds_column(values, f"latency_s_{model}", name, importance=86)
        ratios = [
            number_column(f"{what}_ratio_{model}", name, unit, decimals=2, importance=80)
            for what, unit in (("flops", "FLOPs ×"), ("latency", "time ×"))
        ]
        shown = model == first
        columns += [replace(column, on_page=shown) for column in (flops, seconds)]
        columns += [replace(column, on_page=not shown) for column in ratios]
    return Table(
        columns=tuple(columns),
        rows=tuple(values),
        title=f"Stages on {machine_labels(comparison)[machine]}: ratios to {first}",
    )


def _causes_tables(comparison: Any) -> list[Table]:
    """One table of causes, or one a machine where all columns would be too many for a page."""
    by_machine = [[(model, machine) for model in comparison.models[1:]] for machine in comparison.machines]
    keys = [key for group in by_machine for key in group]
    return [_causes_table(comparison, group) for group in ([keys] if len(keys) <= _PAIRS else by_machine)]


def _causes_table(comparison: Any, keys: list[tuple[str, str]]) -> Table:
    """A line a cause: how many seconds more than the first model each other one spends on it, on each machine."""
    rows: dict[str, dict[str, Any]] = {}
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
    short = machine_labels(comparison)
    columns = [text_column("cause", "cause", on_page=False), text_column("label", "more time for", importance=99)]
    for model, machine in keys:
        key = _key(model, machine)
        column = _difference_column(key, model, [*values, total])
        columns.append(replace(column, unit=f"{column.unit} {short[machine]}"))
    title = f"Seconds more than {comparison.models[0]}, by cause"
    return Table(columns=tuple(columns), rows=tuple(values), footer=(total,), title=title)


def _difference_column(key: str, model: str, rows: list[Any]) -> Column:
    seconds = [row.get(key) for row in rows]
    return quantity_column(key, shorten(model, _HEADING), "s", seconds, least=100.0, importance=90)


def _key(model: str, machine: str) -> str:
    return f"seconds_{model}_{machine}"


def _sentences(comparison: Any) -> Iterator[str]:
    """For each other model and machine: the two ratios, and the causes that part them."""
    first, short = comparison.models[0], machine_labels(comparison)
    for found in comparison.contenders:
        if found.model == first:
            continue
        apart = comparison.apart(found.model, found.machine)
        named = "; ".join(_cause_phrase(found.model, cause) for cause in apart[:_NAMED])
        yield (
            f"{found.model} on {short[found.machine]}: {found.flops_ratio:.2f} times the FLOPs, "
            f"{found.latency_ratio:.2f} times the time ({signed(sum(a.seconds for a in apart))}): {named}"
        )


def _cause_phrase(model: str, apart: Any) -> str:
    """Seconds, the cause, and where it is largest: in ``model`` unless said otherwise."""
    if not apart.nodes:
        return f"{signed(apart.seconds)} {apart.label}"
    gain = "a gain in " if apart.nodes[0][1] < 0 else ""
    whose = "" if apart.of == model else f"{apart.of}'s "
    named = ", ".join(name for name, _ in apart.nodes[:2])
    return f"{signed(apart.seconds)} {apart.label} ({gain}{whose}{named})"


def _conventions(comparison: Any) -> list[str]:
    """Those of all models, each once: what was assumed differs from model to model."""
    return list(dict.fromkeys(said for machines in comparison.analyses for said in machines[0].conventions))


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
        "fastest_from_batch": {
            machine: [{"batch": batch, "model": model} for batch, model in comparison.winners_by_batch(machine)]
            for machine in comparison.machines
        },
        "executions": [
            {"machine": analysis.hardware.name, **execution_json(analysis)} for analysis in comparison.analyses[0]
        ],
        "networks": [{key: getattr(found, key) for key in found.__slots__} for found in comparison.contenders],
        "stages": [{key: getattr(found, key) for key in found.__slots__} for found in comparison.stage_rows],
        "causes": [
            {
                "model": model,
                "machine": machine,
                "cause": apart.cause,
                "label": apart.label,
                "seconds": apart.seconds,
                "of": apart.of,
                "nodes": [{"name": name, "seconds": seconds} for name, seconds in apart.nodes],
            }
            for machine in comparison.machines
            for model in comparison.models[1:]
            for apart in comparison.apart(model, machine)
        ],
        "conventions": [STAGES, PARTS, *_conventions(comparison)],
    }
