"""A measurement as a page: predicted beside measured, node by node, and why.

predicted | measured | ratio | bound | reason
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmodel.nodes import operator_word
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Block, Column, Document, KeyValues, Notes, Paragraph, Table
from costmodel.units import format_bytes, format_percent, format_quantity, format_seconds

if TYPE_CHECKING:
    from costmodel.analysis import Analysis
    from costmodel.graph import OpGraph
    from costmodel.hardware import HardwareProfile
    from costmodel.measure.measurement import Measurement, NodeMeasurement

__all__ = ["Work", "measured_csv", "measured_document", "work_of_graph", "works_of"]

#: What the name of the longest kernel says of how an operator ran; the first that fits.
_HOW = (
    (r"_slow_conv|thnn_conv|im2col", "im2col and GEMM"),
    (r"mkldnn|onednn", "oneDNN"),
    (r"winograd", "Winograd"),
    (r"depthwise", "direct depthwise"),
    (r"flash", "flash attention"),
    (r"implicit|conv.*fprop|fprop.*conv|convolve", "implicit GEMM"),
    (r"cpp_fused|triton", "generated kernel"),
    (r"gemm|addmm|aten::(bmm|mm|baddbmm)|cutlass", "GEMM"),
)

#: Interquartile range over the median above which a page warns: twice that of a shared machine that is left alone.
_DISTURBED = 0.2

#: Page faults a call above which a page speaks of them: they then take some 0.2 ms.
_FAULTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a node asks for (FLOP, B) and, where a machine was named, what was predicted for it."""

    flops: int
    matrix_flops: int
    nbytes: int
    predicted_s: float | None = None
    bound: str = ""


def works_of(analysis: Analysis) -> list[Work]:
    """The work of every node of an analysis, with its prediction."""
    return [
        Work(
            flops=row.flops,
            matrix_flops=row.matrix_flops,
            nbytes=row.bytes_read + row.bytes_written,
            predicted_s=row.latency_s,
            bound=row.bound,
        )
        for row in analysis.rows()
    ]


def work_of_graph(graph: OpGraph) -> list[Work]:
    """The work of every node of a bound graph, where no machine is named."""
    from costmodel.costing import cost_graph

    costs = cost_graph(graph)
    found = (costs.of_node(index) for index in range(len(graph.nodes)))
    return [
        Work(flops=c.flops, matrix_flops=c.matrix_flops, nbytes=c.bytes_read + c.bytes_written)  # type: ignore[arg-type]
        for c in found
    ]


def measured_document(
    measurement: Measurement,
    works: Sequence[Work],
    *,
    hardware: HardwareProfile | None = None,
    predicted_s: float | None = None,
    predicted_peak_bytes: int | None = None,
    by: str = "op",
    top: int | None = None,
) -> Document:
    """The page of one measurement. ``works`` are the nodes' in program order; ``predicted_s`` is the whole step's, and
    ``predicted_peak_bytes`` its memory.

    ``by`` is ``op``, ``module``, ``type`` or ``phase``; ``top`` keeps the longest rows (None or 0: all, in order).
    """
    rows = _rows(measurement, works, hardware, by)
    shown = sorted(rows, key=lambda row: -row["measured_s"])[:top] if top else rows
    blocks: list[Block] = [
        Paragraph(_conditions(measurement)),
        KeyValues((*_facts(measurement, predicted_s), *_memory(measurement, predicted_peak_bytes))),
        Table(
            columns=_columns(rows, by, predicted_s is not None),
            rows=tuple(shown),
            footer=tuple(_footer(rows, shown, measurement)),
            title=_title(by, len(shown), len(rows)),
        ),
    ]
    notes = (*_remarks(measurement), *measurement.notes)
    blocks += [Notes(notes)] * bool(notes)
    machine = hardware.title if hardware else f"{measurement.device} (no profile)"
    return Document(f"{measurement.model} measured on {machine}", tuple(blocks))


def measured_csv(measurement: Measurement) -> Document:
    """The whole model as one row in the format that ``costmodel validate`` reads."""
    row = measurement.csv_row()
    columns = tuple(Column(key=key, heading=key, render=str) for key in row)
    return Document(measurement.model, (Table(columns=columns, rows=(row,)),))


def _conditions(measurement: Measurement) -> str:
    run = measurement.execution
    parts = [f"batch {run.batch}", *(f"{name} {size}" for name, size in measurement.sizes.items() if name != "batch")]
    if measurement.image_size is not None:
        size = measurement.image_size
        parts = [f"batch {run.batch}", f"{size}x{size}"]
    parts += [word for word in run.words.values() if word != "inference"]
    if measurement.threads:
        parts.append(f"{measurement.threads} thread" + "s" * (measurement.threads > 1))
    parts.append(f"{measurement.cache} cache")
    return ", ".join(parts + [f"torch {measurement.torch}"] * bool(measurement.torch))


def _facts(measurement: Measurement, predicted_s: float | None) -> tuple[tuple[str, str], ...]:
    """The sums: end to end, on nodes, without a node, and what a profiled step takes besides its operators."""
    m, facts = measurement, []
    spread = "" if m.latency_spread is None else f", half of them within {format_percent(m.latency_spread)}"
    facts.append(("measured", f"{format_seconds(m.latency_s)}, the median of {m.repeats}{spread}"))
    if predicted_s:
        ratio = f"{predicted_s / m.latency_s:.2f} times the measured"
        facts.append(("predicted", f"{format_seconds(predicted_s)}, {ratio}"))
    where = "GPU kernels" if m.on_device else "operators"
    share = format_percent(m.attributed_share)
    facts.append((f"{where} on nodes", f"{format_seconds(m.attributed_us * 1e-6)}, {share} of all {where}"))
    if m.step_us is not None:
        outside = max(m.step_us - m.attributed_us - m.unattributed_us, 0.0)
        what = "the device waits" if m.on_device else "Python and the profiler"
        facts.append(
            ("a profiled step", f"{format_seconds(m.step_us * 1e-6)}: {format_seconds(outside * 1e-6)} of it {what}")
        )
    return tuple(facts)


def _memory(measurement: Measurement, predicted: int | None) -> tuple[tuple[str, str], ...]:
    """The most memory that torch's allocator had handed out, and what was predicted of it."""
    peak = measurement.peak_memory_bytes
    if not peak:
        return ()
    beside = f"; predicted {format_bytes(predicted)}, {predicted / peak:.2f} times that" if predicted else ""
    return (("peak memory", f"{format_bytes(peak)}{beside}"),)


def _remarks(measurement: Measurement) -> list[str]:
    """What a reader should know before believing the numbers."""
    remarks = []
    if measurement.latency_spread is not None and measurement.latency_spread > _DISTURBED:
        remarks.append("the calls differ much from one another: something else kept this machine busy, measure again")
    if (measurement.page_faults or 0) > _FAULTS:
        remarks.append(
            f"{measurement.page_faults:,.0f} page faults a call: memory that came from the system anew, at about 2 µs "
            "each; blocks above 32 MiB always do"
        )
    return remarks + _without_node(measurement)


def _without_node(measurement: Measurement) -> list[str]:
    if not measurement.unattributed:
        return []
    listed = [f"{name} {format_seconds(us * 1e-6)}" for name, us in measurement.unattributed[:5] if us]
    more = len(measurement.unattributed) - len(listed)
    return ["without a node: " + ", ".join(listed) + (f" and {more} more" if more > 0 and listed else "")] * bool(
        listed
    )


def _rows(
    measurement: Measurement, works: Sequence[Work], hardware: HardwareProfile | None, by: str
) -> list[dict[str, Any]]:
    rows = [
        _row(node, work, hardware, measurement.on_device) for node, work in zip(measurement.nodes, works, strict=True)
    ]
    if by == "op":
        return rows
    key = by if by in ("module", "phase") else "op"
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key] or "(model)", []).append(row)
    return [_added(name, members) for name, members in groups.items()]


def _row(node: NodeMeasurement, work: Work, hardware: HardwareProfile | None, on_device: bool) -> dict[str, Any]:
    measured_s = node.measured_us * 1e-6
    row: dict[str, Any] = {
        "name": node.name,
        "op": operator_word(node.op),
        "module": node.module,
        "phase": node.phase,
        "measured_s": measured_s,
        "predicted_s": work.predicted_s,
        "bound": work.bound,
        "flops": work.flops,
        "bytes": work.nbytes,
        "kernels": "; ".join(name for name, _ in node.kernels),
        "reason": _reason(node, work, hardware, on_device),
    }
    return row | {"ratio": _ratio(work.predicted_s, measured_s)}


def _ratio(predicted_s: float | None, measured_s: float) -> float | None:
    return predicted_s / measured_s if predicted_s and measured_s else None


def _added(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row for several; the bound is that of the longest."""
    longest = max(rows, key=lambda row: row["measured_s"])
    predicted = [row["predicted_s"] for row in rows if row["predicted_s"] is not None]
    total = {"measured_s": sum(row["measured_s"] for row in rows), "predicted_s": sum(predicted) if predicted else None}
    added = {**longest, **total, "name": name, "count": len(rows)}
    return added | {
        "flops": sum(row["flops"] for row in rows),
        "bytes": sum(row["bytes"] for row in rows),
        "ratio": _ratio(total["predicted_s"], total["measured_s"] or 0.0),
        "reason": "" if len(rows) == 1 else f"{len(rows)} nodes",
    }


def _reason(node: NodeMeasurement, work: Work, hardware: HardwareProfile | None, on_device: bool) -> str:
    """How the node ran, the rate that it came to, and the share of the machine's roof."""
    if node.runs_in:
        return f"in the kernel of {node.runs_in}"
    if not node.measured_us:
        return "nothing ran" if not node.kernels else ""
    if not work.flops and not work.nbytes:
        return "a view: the host's time" if not on_device else ""
    rate, roof = _rate(node, work, hardware)
    how = _how(node)
    several = f"{len(node.kernels)} kernels" if on_device and len(node.kernels) > 1 else ""
    return ", ".join(part for part in (how, several, rate + roof) if part)


def _how(node: NodeMeasurement) -> str:
    longest = max(node.kernels, key=lambda kernel: kernel[1], default=("", 0.0))[0]
    return next((words for pattern, words in _HOW if re.search(pattern, longest, re.IGNORECASE)), "")


def _rate(node: NodeMeasurement, work: Work, hardware: HardwareProfile | None) -> tuple[str, str]:
    """(the rate in what bounds the node, its share of the machine's roof in brackets)."""
    seconds = node.measured_us * 1e-6
    if work.matrix_flops:
        rate = work.flops / seconds
        peak = hardware and hardware.find_peak("vector", "fp32")
        is_cpu = hardware is not None and hardware.kind == "cpu"
        return format_quantity(
            rate, "FLOP/s"
        ), f" ({format_percent(rate / peak.flop_per_s)})" if peak and is_cpu else ""
    rate = work.nbytes / seconds
    return format_quantity(rate, "B/s"), f" ({format_percent(rate / hardware.dram_bytes_per_s)})" if hardware else ""


def _columns(rows: Sequence[dict[str, Any]], by: str, predicted: bool) -> tuple[Column, ...]:
    times = [row[key] for row in rows for key in ("measured_s", "predicted_s") if row.get(key) is not None]
    heading = {"op": "node", "module": "module", "type": "operator", "phase": "phase"}[by]
    columns = [text_column("name", heading, importance=100, shortest=16)]
    if by == "op":
        columns.append(text_column("op", "operator", importance=30, shortest=8))
    if predicted:
        columns.append(quantity_column("predicted_s", "predicted", "s", times, importance=90))
    columns.append(quantity_column("measured_s", "measured", "s", times, importance=95))
    if predicted:
        columns.append(number_column("ratio", "ratio", decimals=2, importance=85))
        columns.append(text_column("bound", "bound", importance=60))
    columns.append(share_column("share", "share", importance=40))
    columns.append(text_column("reason", "reason", importance=70, shortest=32, empty=""))
    columns.append(text_column("kernels", "kernels", on_page=False))
    return tuple(columns)


def _footer(
    rows: Sequence[dict[str, Any]], shown: Sequence[dict[str, Any]], measurement: Measurement
) -> list[dict[str, Any]]:
    whole = sum(row["measured_s"] for row in rows) or 1.0
    for row in rows:
        row["share"] = row["measured_s"] / whole
    footer = []
    if len(shown) < len(rows):
        kept = {id(row) for row in shown}
        footer.append(_total(f"the other {len(rows) - len(shown)}", [r for r in rows if id(r) not in kept]))
    return [*footer, _total("all nodes", rows)]


def _total(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    added = _added(name, rows)
    return {key: added[key] for key in ("name", "measured_s", "predicted_s", "ratio")} | {
        "share": sum(row["share"] for row in rows)
    }


def _title(by: str, shown: int, whole: int) -> str:
    what = {"op": "nodes", "module": "modules", "type": "operators", "phase": "phases"}[by]
    return f"The {shown} {what} that took longest, of {whole}" if shown < whole else f"All {whole} {what}"
