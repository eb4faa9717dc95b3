"""Why a prediction, or a measurement, lies above what FLOPs alone say: the split as a page, and the findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from costmodel.nodes import operator_word
from costmodel.report.as_json import assumed_json, execution_json, finding_json
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Block, Column, Document, KeyValues, Notes, Paragraph, Row, Table
from costmodel.report.memory import verdict_sentence
from costmodel.report.summary import conditions, coverage_sentence
from costmodel.units import format_percent, format_quantity, format_seconds

__all__ = ["explained_document", "explained_json", "flops_alone_sentence", "parts_table"]

#: Nodes named beside a cause.
_NAMED = 2

HOW = (
    "the split: each line is a difference of two evaluations of the time model, so that the lines add up to the whole; "
    "what is called a gain is negative"
)
SAVINGS = "what a change saves is the predicted time now less that of the changed design, evaluated the same way"


def explained_document(split: Any, findings: Sequence[Any], *, top: int | None = 10, measured: Any = None) -> Document:
    """The page: what FLOPs alone say, the causes in between, and the ``top`` findings (None or 0: all).

    ``measured`` is a :class:`~costmodel.explain.MeasuredSplit`: then the split goes on to what was measured.
    """
    analysis = split.analysis
    misfit = verdict_sentence(analysis)
    blocks: list[Block] = [Paragraph(conditions(analysis)), *[Notes((misfit,))] * bool(misfit)]
    blocks.append(KeyValues(tuple(_facts(split, measured))))
    blocks.append(_split_table(split, measured))
    if measured is not None:
        blocks.append(_gaps_table(measured, top))
    blocks += _findings(findings, top)
    blocks.append(Paragraph(coverage_sentence(analysis.coverage)))
    blocks.append(Notes((HOW, SAVINGS, *analysis.conventions), title="Conventions"))
    whole = split.latency_s if measured is None else measured.run.latency_s
    return Document(
        f"Why {analysis.model.name} takes {format_seconds(whole)} on {analysis.hardware.title}", tuple(blocks)
    )


def flops_alone_sentence(split: Any) -> str:
    """What FLOPs alone say, and at which peak."""
    peak, flops = split.peak, split.analysis.totals.flops
    units = "matrix engines" if peak.engine == "matrix" else "vector lanes"
    rate = format_quantity(peak.flop_per_s, "FLOP/s")
    return (
        f"{format_seconds(split.flops_alone_s)}: {format_quantity(flops, 'FLOP')} at {rate}, the dense {peak.dtype} "
        f"peak of the {units}"
    )


def _facts(split: Any, measured: Any) -> Iterator[tuple[str, str]]:
    alone, latency = split.flops_alone_s, split.latency_s
    yield "FLOPs alone", flops_alone_sentence(split)
    times = f", {latency / alone:.1f} times that" if alone else ""
    totals = split.analysis.totals
    interval = f"{format_seconds(totals.latency_low_s)} to {format_seconds(totals.latency_high_s)}"
    yield "predicted", f"{format_seconds(latency)} ({interval}){times}"
    if measured is not None:
        run, error = measured.run, latency / measured.run.latency_s - 1
        machine = f" on {run.device}" if run.device else ""
        than = f"{format_percent(abs(error))} {'more' if error > 0 else 'less'}"
        yield "measured", f"{format_seconds(run.latency_s)}{machine} ({run.path}); predicted is {than}"


def _split_table(split: Any, measured: Any) -> Table:
    """From FLOPs alone to the whole: the largest causes first, then the gains, then what is not explained."""
    whole = split.latency_s if measured is None else measured.run.latency_s
    rows: list[Row] = [{"cause": "flops_alone", "label": "FLOPs alone", "seconds": split.flops_alone_s, "nodes": ""}]
    for found in sorted(split.causes, key=lambda share: -share.seconds):
        rows.append(
            {
                "cause": found.cause,
                "label": found.label,
                "seconds": found.seconds,
                "nodes": _largest(split, found),
            }
        )
    rows = [{**row, "share": row["seconds"] / whole if whole else 0.0} for row in rows if _shows(row["seconds"], whole)]
    phases = [phase.value for phase in split.by_phase] if len(split.by_phase) > 1 else []
    rows = [{**row, **_seconds_by_phase(split, row["cause"])} for row in rows]
    footer = list(_sums(split, measured, whole))
    seconds = [row["seconds"] for row in (*rows, *footer)]
    columns = (
        text_column("cause", "cause", on_page=False),
        text_column("label", "from FLOPs to time", importance=99),
        quantity_column("seconds", "time", "s", seconds, least=100.0, importance=98),
        share_column("share", "share", importance=90),
        *(quantity_column(f"{name}_s", name, "s", seconds, least=100.0, importance=80) for name in phases),
        text_column("nodes", "most in", shortest=34 if phases else 20, importance=50, listed=True),
    )
    return Table(columns=columns, rows=tuple(rows), footer=tuple(footer))


def _seconds_by_phase(split: Any, cause: str | None) -> Row:
    """Seconds of a cause (None: of all) in each part of the step."""
    key = "flops" if cause == "flops_alone" else cause
    return {
        f"{phase.value}_s": sum(causes.values()) if key is None else causes.get(key, 0.0)
        for phase, causes in split.by_phase.items()
    }


def _shows(seconds: float, whole: float) -> bool:
    """Whether a line is worth its place: at least a ten-thousandth of the whole."""
    return abs(seconds) >= 1e-4 * whole


def _sums(split: Any, measured: Any, whole: float) -> Iterator[Row]:
    """The lines under the rule: what is predicted, what is not explained, what was measured."""
    lines: list[tuple[str, float, str]] = [("predicted", split.latency_s, "")]
    if measured is not None:
        slow, fast = ([gap for gap in measured.nodes if sign * gap.unexplained_s > 0] for sign in (1, -1))
        lines += [
            ("nodes slower than predicted", measured.slower_s, ", ".join(gap.name for gap in slow[:_NAMED])),
            ("nodes faster than predicted", measured.faster_s, ", ".join(gap.name for gap in fast[:_NAMED])),
            ("kernels without a node", measured.unattributed_s, ", ".join(list(measured.run.unattributed)[:_NAMED])),
            ("outside of kernels, beyond the predicted", measured.idle_s, ""),
            ("measured", measured.run.latency_s, ""),
        ]
    for label, seconds, nodes in lines:
        row: Row = {"label": label, "seconds": seconds, "share": seconds / whole if whole else 0.0, "nodes": nodes}
        yield {**row, **(_seconds_by_phase(split, None) if label == "predicted" else {})}


def _largest(split: Any, found: Any) -> str:
    """The nodes with most of a cause; those with a millionth of it have none but by rounding."""
    nodes = split.analysis.bound.nodes
    named = [(node, s) for node, s in found.nodes[:_NAMED] if abs(s) > 1e-6 * abs(found.seconds)]
    return ", ".join(f"{nodes[node].name} {format_seconds(seconds)}" for node, seconds in named)


def _gaps_table(measured: Any, top: int | None) -> Table:
    """Nodes with the largest differences between prediction and measurement."""
    shown = measured.nodes[: top or None]
    rows = tuple(_gap_record(measured, gap) for gap in shown)
    unit: dict[str, Any] = {"least": 100.0}
    seconds = [row[key] for row in rows for key in ("predicted_s", "measured_s")]
    return Table(
        title=f"{len(shown):,} of {len(measured.nodes):,} nodes, the largest differences first",
        columns=(
            text_column("name", "node", shortest=16, importance=99),
            text_column("op", "operator", shortest=12, importance=60, render=operator_word),
            quantity_column("predicted_s", "predicted", "s", seconds, importance=95, **unit),
            quantity_column("measured_s", "measured", "s", seconds, importance=96, **unit),
            quantity_column("unexplained_s", "not explained", "s", seconds, importance=97, **unit),
            number_column("ratio", "ratio", "×", decimals=2, importance=80),
            text_column("bound", "bound", importance=40),
            text_column("algorithm", "algorithm", importance=30),
        ),
        rows=rows,
    )


def _gap_record(measured: Any, gap: Any) -> Row:
    row = measured.analysis.rows()[gap.node]
    return {
        "name": gap.name,
        "op": gap.op,
        "predicted_s": gap.predicted_s,
        "measured_s": gap.measured_s,
        "unexplained_s": gap.unexplained_s,
        "ratio": gap.measured_s / gap.predicted_s if gap.predicted_s else None,
        "bound": row.bound,
        "algorithm": row.algorithm,
    }


def _findings(findings: Sequence[Any], top: int | None) -> Iterator[Block]:
    if not findings:
        yield Paragraph("No rule has anything to say: FLOPs do not mislead here.")
        return
    shown = findings[: top or None]
    rest = len(findings) - len(shown)
    title = "Findings, most seconds at stake first" + (f" ({rest} more with --top 0)" if rest else "")
    yield Notes(tuple(map(_sentence, shown)), title=title)


def _sentence(finding: Any) -> str:
    """Seconds at stake, the sentence, and what the change would save."""
    said = f"{format_seconds(finding.seconds_at_stake)}, {finding.rule}: {finding.message}."
    return f"{said} {change_sentence(finding)}".rstrip()


def change_sentence(finding: Any) -> str:
    """What to do, and what the evaluation of it says."""
    if not finding.change:
        return ""
    if finding.saving_s is None:
        return f"→ {finding.change}."
    saved = finding.saving_s
    effect = (
        f"{format_seconds(saved)} less" if saved > 0 else f"{format_seconds(-saved)} more" if saved else "no change"
    )
    return f"→ {finding.change}: {effect}."


def parts_table(split: Any) -> Table:
    """Every part of the split: node, cause, seconds. For data formats; the sum is the predicted latency."""
    nodes = split.analysis.bound.nodes
    rows = tuple(
        {
            "name": nodes[node].name,
            "op": nodes[node].op,
            "module": nodes[node].module,
            "phase": nodes[node].phase.value,
            "cause": cause,
            "seconds": seconds,
        }
        for node, causes in sorted(split.by_node.items())
        for cause, seconds in causes.items()
    )
    columns: tuple[Column, ...] = (
        *(text_column(key, key) for key in ("name", "op", "module", "phase", "cause")),
        quantity_column("seconds", "time", "s", [row["seconds"] for row in rows]),
    )
    return Table(columns=columns, rows=rows)


def explained_json(split: Any, findings: Sequence[Any], measured: Any = None) -> dict[str, Any]:
    """The split and the findings as plain dicts and lists; seconds exact."""
    analysis, peak = split.analysis, split.peak
    value: dict[str, Any] = {
        "schema_version": 1,
        "fits": analysis.memory.fits,
        "model": {"name": analysis.model.name, "source": analysis.model.source},
        "hardware": {"name": analysis.hardware.name, "title": analysis.hardware.title},
        "execution": execution_json(analysis),
        "flops": analysis.totals.flops,
        "peak": {"engine": peak.engine, "dtype": peak.dtype, "flop_per_s": peak.flop_per_s},
        "flops_alone_s": split.flops_alone_s,
        "latency_s": split.latency_s,
        "causes": [_cause_json(split, found) for found in split.causes],
        "findings": [finding_json(finding) for finding in findings],
    }
    if measured is not None:
        value["measured"] = _measured_json(measured)
    assumed = [assumed_json(answer) for answer in analysis.assumed]
    return {**value, "assumed": assumed, "conventions": [HOW, SAVINGS, *analysis.conventions]}


def _cause_json(split: Any, found: Any) -> dict[str, Any]:
    nodes = split.analysis.bound.nodes
    named = [{"name": nodes[node].name, "seconds": seconds} for node, seconds in found.nodes]
    return {
        "cause": found.cause,
        "label": found.label,
        "seconds": found.seconds,
        "share": found.share,
        "by_phase": {phase.value: causes.get(found.cause, 0.0) for phase, causes in split.by_phase.items()},
        "nodes": named,
    }


def _measured_json(measured: Any) -> dict[str, Any]:
    return {
        "device": measured.run.device,
        "latency_s": measured.run.latency_s,
        "slower_s": measured.slower_s,
        "faster_s": measured.faster_s,
        "unattributed_s": measured.unattributed_s,
        "idle_s": measured.idle_s,
        "unexplained_s": measured.unexplained_s,
        "nodes": [
            {key: getattr(gap, key) for key in ("name", "op", "predicted_s", "measured_s", "unexplained_s")}
            for gap in measured.nodes
        ],
    }
