"""From an analysis to what an engineer reads: the totals, where the time goes, and what is not known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from costmodel.nodes import operator_word
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Block, Code, Column, Document, KeyValues, Notes, Paragraph, Table
from costmodel.report.kernel_table import kernel_remarks
from costmodel.report.memory import memory_blocks, memory_facts
from costmodel.report.rows import rows_table, sum_remarks, word
from costmodel.units import format_bytes, format_count, format_percent, format_quantity, format_seconds

__all__ = ["analysis_document", "conditions", "coverage_sentence", "machines_document", "per_sample", "summary_facts"]

PREDICTED = (
    "times are predicted, nothing was run: a kernel takes what its arithmetic and its memory traffic need on this "
    "machine, and waits for the host that issues it"
)

#: The bounds that take time, in the order of pages and data.
_BOUNDS = ("compute", "memory", "launch")

#: Findings on a page that is about something else.
_MOST_FINDINGS = 5


def analysis_document(
    analysis: Any, *, by: str = "op", top: int | None = None, columns: Sequence[str] | None = None
) -> Document:
    """The page about one model on one machine.

    ``by`` groups the table's rows (``op``, ``module`` or ``type``), ``top`` keeps the longest by time
    (None or 0: all), ``columns`` names the quantities that the page shows.
    Raises InputError for a grouping or a column that does not exist.
    """
    table = rows_table(analysis, by=by, top=top, columns=columns)
    facts = KeyValues(summary_facts(analysis))
    blocks: list[Block] = [Paragraph(conditions(analysis)), *memory_blocks(analysis), facts]
    blocks += _findings(analysis)
    blocks += _closed_forms(analysis)
    blocks.append(table)
    remarks = kernel_remarks(analysis) if by == "kernel" else sum_remarks(analysis.rows(by=by), analysis.totals)
    blocks += [Notes(tuple(remarks))] * bool(remarks)
    blocks.append(Paragraph(coverage_sentence(analysis.coverage)))
    blocks.append(Notes((PREDICTED, *analysis.conventions), title="Conventions"))
    return Document(f"{analysis.model.name} on {analysis.hardware.title}", tuple(blocks))


def summary_facts(analysis: Any) -> tuple[tuple[str, str], ...]:
    """The totals, and where the time goes, as labels and values."""
    operators = list(analysis.rows(by="op"))
    return (
        _latency(analysis),
        *_phases(analysis),
        *_energy(analysis),
        *_where_time_goes(analysis, operators),
        *_totals(analysis),
    )


def machines_document(analyses: Sequence[Any]) -> Document:
    """One model on several machines or in several modes, fastest first."""
    rows = sorted(map(_machine_record, analyses), key=lambda row: row["latency_s"])
    fastest = rows[0]["latency_s"] if rows else 0.0
    rows = [{**row, "times_fastest": row["latency_s"] / fastest if fastest else 1.0} for row in rows]
    first = analyses[0]
    machines, modes = ({row[key] for row in rows} for key in ("hardware", "mode"))
    where = f"{len(machines)} machines" if len(machines) > 1 else first.hardware.title
    return Document(
        f"{first.model.name} on {where}" + (f" in {len(modes)} modes" if len(modes) > 1 else ""),
        (
            Paragraph(conditions(*analyses)),
            _machines_table(rows),
            Notes((PREDICTED, *first.conventions), title="Conventions"),
        ),
    )


def _machine_record(analysis: Any) -> dict[str, Any]:
    totals = analysis.totals
    return {
        "hardware": analysis.hardware.name,
        "mode": analysis.execution.engine,
        "latency_s": totals.latency_s,
        "latency_low_s": totals.latency_low_s,
        "latency_high_s": totals.latency_high_s,
        "interval_s": (totals.latency_low_s, totals.latency_high_s),
        "energy_j": None if totals.power_w is None else totals.energy_j,
        "power_w": totals.power_w,
        "joule_per_sample": None if totals.power_w is None else totals.energy_j / analysis.execution.batch,
        "samples_per_s": _per_second(analysis.execution.batch, totals.latency_s),
        "flop_per_s": _per_second(totals.flops, totals.latency_s),
        "bytes_per_s": _per_second(totals.bytes_read + totals.bytes_written, totals.latency_s),
        **{f"{bound}_share": share for bound, share in _bounds(analysis).items()},
        "peak_memory_bytes": totals.peak_memory_bytes,
        "process_memory_bytes": totals.process_memory_bytes,
        "fits": totals.fits,
        "fit": analysis.memory.verdict.word,
        "kernels": totals.kernels,
    }


def _machines_table(rows: list[dict[str, Any]]) -> Table:
    latencies = [row["latency_s"] for row in rows]
    latency = quantity_column("latency_s", "latency", "s", latencies, decimals=2, importance=98)

    def values(key: str) -> list[float | None]:
        return [row[key] for row in rows]

    return Table(
        title="Fastest first",
        columns=(
            text_column("hardware", "machine", shortest=14, importance=99),
            replace(
                text_column("mode", "mode", shortest=15, importance=99), on_page=len({row["mode"] for row in rows}) > 1
            ),
            latency,
            Column(
                key="interval_s",
                heading="interval",
                unit=latency.unit,
                render=lambda pair: f"{latency.render(pair[0])} to {latency.render(pair[1])}",
                importance=60,
                in_data=False,
            ),
            replace(latency, key="latency_low_s", on_page=False),
            replace(latency, key="latency_high_s", on_page=False),
            number_column("times_fastest", "to best", "×", decimals=2, importance=50, in_data=False),
            number_column("samples_per_s", "samples", "1/s", importance=90),
            number_column("power_w", "power", "W", decimals=0, importance=88),
            quantity_column("joule_per_sample", "energy a sample", "J", values("joule_per_sample"), importance=87),
            replace(quantity_column("energy_j", "energy", "J", values("energy_j")), on_page=False),
            quantity_column("flop_per_s", "achieved", "FLOP/s", values("flop_per_s"), importance=40),
            quantity_column("bytes_per_s", "traffic", "B/s", values("bytes_per_s"), importance=35),
            *(share_column(f"{bound}_share", bound, importance=70) for bound in _BOUNDS),
            quantity_column("peak_memory_bytes", "peak mem.", "B", values("peak_memory_bytes"), importance=20),
            replace(
                quantity_column("process_memory_bytes", "process", "B", values("process_memory_bytes")), on_page=False
            ),
            text_column("fit", "fit", shortest=max(len(row["fit"]) for row in rows), importance=96),  # never cut short
            replace(text_column("fits", "fits"), on_page=False),
            quantity_column("kernels", "kernels", "", values("kernels"), importance=10),
        ),
        rows=tuple(rows),
    )


def conditions(analysis: Any, *others: Any) -> str:
    """What was asked, in one line: source, inputs, execution; of several analyses, what they share, and each's host."""
    execution = analysis.execution
    words = (word for key, word in execution.words.items() if all(o.execution.words.get(key) == word for o in others))
    shapes = Counter(f"{'×'.join(map(str, spec.shape))} {spec.dtype}" for spec in analysis.model.inputs)
    inputs = ", ".join(shape if count == 1 else f"{count} of {shape}" for shape, count in shapes.items())
    capped = () if execution.power_limit_w is None else (f"power limit {execution.power_limit_w:g} W",)
    how = (f"batch {execution.batch}", *words, *capped, *_hosts([analysis, *others]))
    parts = [analysis.model.source, f"input {inputs}" if inputs else "no inputs", ", ".join(how)]
    return "; ".join([*filter(None, parts), *analysis.dtype_notes, *analysis.model.notes])


def _hosts(analyses: Sequence[Any]) -> Iterator[str]:
    """Which host issues the step, where that takes time, and between which the interval reaches; by machine where they
    differ."""
    hosts = {analysis.hardware.name: _host(analysis.host_span) for analysis in analyses}
    if len(set(hosts.values())) == 1:
        yield from (f"host {host}" for host in set(hosts.values()) if host)
    else:
        yield from (f"host of {machine} {host}" for machine, host in hosts.items() if host)


def _host(span: Any) -> str:
    if not span.assumed.slowdown:
        return ""
    between = "" if span.is_named else f" (assumed; met with {span.quickest.name} to {span.slowest.name})"
    return f"{span.assumed.name}{between}"


def _latency(analysis: Any) -> tuple[str, str]:
    totals, rate = analysis.totals, _per_second(analysis.execution.batch, analysis.totals.latency_s)
    low, high = format_seconds(totals.latency_low_s), format_seconds(totals.latency_high_s)
    speed = f", {_number(rate)} samples/s" if rate else ""
    return "latency", f"{format_seconds(totals.latency_s)} ({low} to {high}){speed}, {totals.kernels:,} kernels"


def _phases(analysis: Any) -> Iterator[tuple[str, str]]:
    """The parts of a step that has several: seconds, and what the backward pass is over the forward pass."""
    rows = {row.name: row for row in analysis.rows(by="phase")}
    if len(rows) < 2:
        return
    for name, row in rows.items():
        said = f"{format_seconds(row.latency_s)} ({format_percent(row.share)}), {row.kernels:,} kernels, "
        said += format_quantity(row.flops, "FLOP")
        if name == "backward" and (ahead := rows.get("forward")) and ahead.latency_s and ahead.flops:
            longer, more = row.latency_s / ahead.latency_s, row.flops / ahead.flops
            said += f"; {_times(longer)} times the forward pass, with {_times(more)} times its FLOPs"
        yield name, said


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"


def _joules(value: float) -> str:
    """Millijoules below one joule: what a sample takes is often less."""
    return format_quantity(value, "J") if value >= 1.0 else f"{1e3 * value:.3g} mJ"


def _energy(analysis: Any) -> Iterator[tuple[str, str]]:
    """What the step draws beside what the machine may, and the clock where that holds it down."""
    totals, limit, batch = analysis.totals, analysis.hardware.power_limit_w, analysis.execution.batch
    if totals.power_w is None:
        return
    low, high = (format_quantity(end, "J") for end in (totals.energy_low_j, totals.energy_high_j))
    a_sample = f", {_joules(totals.energy_j / batch)} a sample" if batch > 1 else ""
    of = f" of {limit:.0f} W" if limit else ""
    drawn = f"{totals.power_w:.0f} W{of}{held_clock(analysis)}"
    if limit and totals.power_w > 1.02 * limit:
        drawn += f": no clock keeps this step within {limit:.0f} W"
    yield "energy", f"{format_quantity(totals.energy_j, 'J')} ({low} to {high}){a_sample}; {drawn}"


def held_clock(analysis: Any) -> str:
    """The mean clock of the kernels that the power limit slows, weighed by their time; empty where it slows none."""
    slowed = [slot for slot in analysis.timeline if slot.held_hz is not None]
    busy = math.fsum(slot.busy_s for slot in slowed)
    if not busy:
        return ""
    mean = math.fsum(slot.held_hz * slot.busy_s for slot in slowed) / busy
    return f", which holds the clock at {format_quantity(mean, 'Hz')}"


def _totals(analysis: Any) -> Iterator[tuple[str, str]]:
    totals = analysis.totals
    yield "work", _work(totals)
    moved = totals.bytes_read + totals.bytes_written
    intensity = f", {totals.flops / moved:.1f} FLOP/B" if moved else ""
    traffic = f"{format_bytes(totals.bytes_read)} read, {format_bytes(totals.bytes_written)} written{intensity}"
    carried = getattr(totals, "traffic_bytes", 0) or moved
    copies = f"; kernels move {format_bytes(carried)}" if carried != moved else ""
    yield "traffic", traffic + copies + _at(carried, totals, "B/s")
    yield "parameters", f"{format_count(totals.params)} in {format_bytes(totals.param_bytes)}"
    yield from memory_facts(analysis)
    yield "activations", f"{format_count(totals.activations)} elements out of convolutions and matrix products"
    yield from _a_sample(analysis)


def _a_sample(analysis: Any) -> Iterator[tuple[str, str]]:
    """What papers state: the figures of one picture or sequence, where a step has several."""
    batch, found = analysis.execution.batch, per_sample(analysis)
    if batch > 1:
        macs, flops = format_quantity(found["macs"], "MAC"), format_quantity(found["flops"], "FLOP")
        elements, seconds = format_count(found["activations"]), format_seconds(found["latency_s"])
        yield "a sample", f"{macs}, {flops}, {elements} activations; {seconds} at batch {batch}"


def per_sample(analysis: Any) -> dict[str, Any]:
    """Totals over the batch, by key; what a step does once (an optimizer's update, say) is shared out."""
    totals, batch = analysis.totals, analysis.execution.batch
    found = {key: getattr(totals, key) / batch for key in ("flops", "macs", "activations", "latency_s")}
    return {**found, "energy_j": None if totals.power_w is None else totals.energy_j / batch}


def _work(totals: Any) -> str:
    flops, macs = format_quantity(totals.flops, "FLOP"), format_quantity(totals.macs, "MAC")
    besides = format_quantity(totals.vector_flops, "FLOP")
    return f"{flops}: {macs}, and {besides} outside of MACs" + _at(totals.flops, totals, "FLOP/s")


def _at(amount: float, totals: Any, unit: str) -> str:
    """The rate that this much work in the predicted time comes to."""
    rate = _per_second(amount, totals.latency_s)
    return f"; at {format_quantity(rate, unit)}" if rate else ""


def _where_time_goes(analysis: Any, operators: list[Any]) -> Iterator[tuple[str, str]]:
    """For each bound its time, its operators, their share of the FLOPs, and the worst type among them."""
    latency, flops = analysis.totals.latency_s, analysis.totals.flops
    for bound, share in sorted(_bounds(analysis).items(), key=lambda pair: -pair[1]):
        rows = [row for row in operators if word(row.bound) == bound]
        if share < 0.005 or not rows:
            continue
        noun = "operator" if len(rows) == 1 else "operators"
        done = format_percent(sum(row.flops for row in rows) / flops) if flops else "none"
        yield (
            f"{bound}-bound",
            f"{format_seconds(share * latency)} ({format_percent(share)}) in {len(rows):,} {noun} "
            f"with {done} of the FLOPs{_worst(rows)}",
        )
    yield from _concentration(operators, latency)


def _worst(rows: list[Any]) -> str:
    """The type of operator that takes most of these rows' time, where there are several."""
    by_type: Counter[str] = Counter()
    for row in rows:
        by_type[operator_word(row.op)] += row.latency_s
    if len(by_type) < 2:
        return f", all {next(iter(by_type))}"
    op, seconds = by_type.most_common(1)[0]
    return f"; {format_seconds(seconds)} of it in {op}"


def _concentration(operators: list[Any], latency: float) -> Iterator[tuple[str, str]]:
    """How few operators take half of the time."""
    costly = sorted((row.latency_s for row in operators if row.latency_s > 0), reverse=True)
    reached = list(accumulate(costly))
    number = next((i for i, seconds in enumerate(reached, start=1) if seconds >= latency / 2), None)
    if number is not None and len(costly) > 1:
        yield "half the time", f"in {number:,} of {len(costly):,} operators"


def _bounds(analysis: Any) -> dict[str, float]:
    """Share of the time by bound, as plain words; what is free takes none."""
    shares = {word(bound): share for bound, share in analysis.bounds.items()}
    return {bound: shares.get(bound, 0.0) for bound in _BOUNDS}


def _closed_forms(analysis: Any) -> Iterator[Block]:
    """FLOPs in closed form, and the symbols that stay numbers with the reason."""
    if "flops" in analysis.closed_forms:
        yield Code(analysis.closed_forms["flops"], label="FLOPs =")
    if analysis.symbol_notes:
        yield Notes(tuple(analysis.symbol_notes))


def _findings(analysis: Any) -> Iterator[Block]:
    if analysis.findings:
        yield Notes(
            tuple(f"{format_seconds(f.seconds_at_stake)}: {f.message}" for f in analysis.findings[:_MOST_FINDINGS]),
            title="Where FLOPs mislead",
        )


def coverage_sentence(coverage: Any) -> str:
    """How much is known, as shares of operators, bytes and time, and the operators that are not, by name."""
    unknown = sum(entry.count for entry in coverage.uncosted)
    kinds = f"{coverage.costed:,} with a formula, {coverage.free:,} free (views)"
    if not unknown:
        return f"Coverage: all of {coverage.ops:,} operators, of the bytes and of the time: {kinds}."
    parts = (
        f"{format_percent((coverage.costed + coverage.free) / coverage.ops)} of {coverage.ops:,} operators",
        f"{format_percent(1 - math.fsum(e.bytes_share for e in coverage.uncosted))} of the bytes",
        f"{format_percent(1 - math.fsum(e.time_share for e in coverage.uncosted))} of the time",
    )
    names = "; ".join(
        f"{e.op} ×{e.count} ({format_percent(e.bytes_share)} of the bytes, {format_percent(e.time_share)} of the time)"
        for e in coverage.uncosted
    )
    return (
        f"Coverage: {', '.join(parts)}: {kinds}, {unknown:,} without: {names}. "
        "The bytes of those are counted, their FLOPs are not."
    )


def _per_second(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds > 0 and math.isfinite(seconds) else None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
