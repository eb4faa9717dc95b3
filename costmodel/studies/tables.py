"""Tables that several studies show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from costmodel.analysis import Analysis
from costmodel.comparison import Comparison
from costmodel.explain import Split
from costmodel.explain.rule import Finding
from costmodel.kernels import Kernel
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.compared import compared_document
from costmodel.report.document import Block, Notes, Paragraph, Table
from costmodel.report.figures import Dot, roofline
from costmodel.report.model_figures import roofs_of
from costmodel.studies.bench import KINDS, busy, device_seconds, kind_of, rows_by_kind
from costmodel.studies.words import listed, seconds
from costmodel.units import format_quantity

__all__ = [
    "bottleneck",
    "by_stage",
    "causes_table",
    "findings_notes",
    "kinds_table",
    "networks_table",
    "peaks_note",
    "roofline_of",
    "stages_table",
]


def kinds_table(analysis: Analysis, found: Split, title: str = "") -> Table:
    """Kinds of operators: their share of the FLOPs beside their share of the device's time."""
    on_device = device_seconds(analysis, found)
    whole, flops = found.busy_s, analysis.totals.flops
    rows: list[dict[str, Any]] = []
    for kind, members in rows_by_kind(analysis).items():
        taken = sum(on_device.get(row.name, 0.0) for row in members)
        done, moved = sum(row.flops for row in members), sum(row.bytes_read + row.bytes_written for row in members)
        rows.append(
            {"kind": kind, "count": len(members), "flop_share": done / flops, "time_share": taken / whole,
             "seconds": taken, "intensity": done / moved if moved else None}
        )  # fmt: skip
    return Table(
        title=title,
        columns=(
            text_column("kind", "kind of operator"),
            number_column("count", "operators", decimals=0),
            share_column("flop_share", "of the FLOPs"),
            share_column("time_share", "of the time on the device"),
            quantity_column("seconds", "time", "s", [row["seconds"] for row in rows], least=100.0),
            number_column("intensity", "FLOP/B", decimals=1),
        ),
        rows=tuple(rows),
    )


def bottleneck(found: Split) -> str:
    """What most of the time beyond the FLOPs goes to: the host, memory, or arithmetic (which the FLOPs count to)."""
    host = found.seconds("host", "framework", "fixed")
    memory = found.seconds(
        "contraction_memory", "elementwise", "normalization", "unfused", "pooling", "movement", "layout", "casts",
        "depthwise", "im2col", "page_faults", "cache_hits",
    )  # fmt: skip
    parts = {"the host": host, "memory": memory, "arithmetic": found.latency_s - host - memory}
    return max(parts, key=lambda name: parts[name])


def stages_table(analysis: Analysis, title: str = "") -> Table:
    """Sizes of maps in order: MACs, parameters, activation memory, and what the step adds there."""
    rows: list[dict[str, Any]] = [
        {"stage": row.name, "macs": row.macs, "params": row.params, "activation_bytes": row.activation_bytes,
         "latency_s": row.latency_s, "mac_share": row.macs / analysis.totals.macs, "time_share": row.share}
        for row in analysis.rows(by="stage")
    ]  # fmt: skip
    return Table(
        title=title,
        columns=(
            text_column("stage", "maps"),
            quantity_column("macs", "MACs", "MAC", [row["macs"] for row in rows], least=100.0),
            quantity_column("params", "parameters", "", [row["params"] for row in rows]),
            quantity_column("activation_bytes", "activation memory", "B", [row["activation_bytes"] for row in rows]),
            share_column("mac_share", "of the MACs"),
            share_column("time_share", "of the time"),
            quantity_column("latency_s", "time", "s", [row["latency_s"] for row in rows], least=100.0),
        ),
        rows=tuple(rows),
    )


def peaks_note(splits: Mapping[str, Split]) -> tuple[Block, ...]:
    """What "FLOPs alone" are taken at, where that is not the same peak in all columns: those do not compare."""
    peaks = {name: f"{found.peak.dtype} on {found.peak.engine} units" for name, found in splits.items()}
    if len(set(peaks.values())) < 2:
        return ()
    words = "; ".join(
        f"{listed([name for name in peaks if peaks[name] == peak])} at {peak} "
        f"({format_quantity(next(splits[n].peak.flop_per_s for n in peaks if peaks[n] == peak), 'FLOP/s')})"
        for peak in dict.fromkeys(peaks.values())
    )
    text = (
        f"FLOPs alone are taken at the peak of the units that do most of a network's MACs: {words}. That row and "
        '"other arithmetic units" compare within a column only; their sum compares across columns.'
    )
    return (Paragraph(text),)


def causes_table(splits: Mapping[str, Split], title: str = "", *, least_share: float = 0.01) -> Table:
    """For each of several runs, in order, the seconds of every cause that reaches ``least_share`` of some run."""
    labels = {"flops": "FLOPs alone"}
    seconds_of: dict[str, dict[str, float]] = {"flops": {name: s.flops_alone_s for name, s in splits.items()}}
    for name, found in splits.items():
        for share in found.causes:
            labels[share.cause] = share.label
            seconds_of.setdefault(share.cause, {})[name] = share.seconds
    latency = {name: found.latency_s for name, found in splits.items()}
    shown = [c for c, by in seconds_of.items() if any(abs(s) >= least_share * latency[n] for n, s in by.items())]
    rest = {
        name: latency[name] - sum(seconds_of[cause].get(name, 0.0) for cause in shown) for name in splits
    }  # what is too small to be named
    rows: list[dict[str, Any]] = [{"cause": labels[c], **{n: seconds_of[c].get(n, 0.0) for n in splits}} for c in shown]
    if any(abs(rest[name]) >= 1e-4 * latency[name] for name in splits):
        rows.append({"cause": "the rest", **{n: s if abs(s) >= 1e-4 * latency[n] else 0.0 for n, s in rest.items()}})
    return Table(
        title=title,
        columns=(
            text_column("cause", "cause"),
            *(
                quantity_column(name, name, "s", [row[name] for row in rows], least=100.0)
                for name in splits
            ),
        ),
        rows=tuple(rows),
        footer=({"cause": "predicted time", **latency},),
    )  # fmt: skip


def networks_table(analyses: Mapping[str, Analysis], splits: Mapping[str, Split], title: str = "") -> Table:
    """Networks beside the first of them: MACs, time, and how far the one follows the other."""
    first = next(iter(analyses))
    rows: list[dict[str, Any]] = []
    for name, analysis in analyses.items():
        batch, base = analysis.execution.batch, analyses[first]
        rows.append(
            {"name": name, "macs": analysis.totals.macs / batch, "params": analysis.totals.params,
             "latency_s": analysis.latency, "rate": batch / analysis.latency,
             "macs_ratio": analysis.totals.macs / base.totals.macs, "time_ratio": analysis.latency / base.latency,
             "flops_share": splits[name].flops_alone_s / analysis.latency}
        )  # fmt: skip
    return Table(
        title=title,
        columns=(
            text_column("name", "network"),
            quantity_column("macs", "a picture", "MAC", [row["macs"] for row in rows], least=100.0),
            quantity_column("params", "parameters", "", [row["params"] for row in rows]),
            quantity_column("latency_s", "step", "s", [row["latency_s"] for row in rows], decimals=2),
            number_column("rate", "pictures/s", decimals=0),
            number_column("macs_ratio", f"MACs / {first}", "×", decimals=2),
            number_column("time_ratio", f"time / {first}", "×", decimals=2),
            share_column("flops_share", "FLOPs alone"),
        ),
        rows=tuple(rows),
    )


def by_stage(analyses: Sequence[Analysis]) -> tuple[Block, ...]:
    """What ``costmodel compare`` says of the stages of networks, the first the reference, and why they part."""
    page = compared_document(Comparison([[analysis] for analysis in analyses]), details=True)
    stages = [block for block in page.blocks if isinstance(block, Table) and block.title.startswith("Stages")]
    why = [block for block in page.blocks if isinstance(block, Notes) and block.title == "Why"]
    return (*stages, *why)


def findings_notes(found: Sequence[Finding], title: str, most: int = 6) -> Notes:
    """Findings by the seconds at stake, with what to change and what that was found to save."""
    return Notes(tuple(_sentence(finding) for finding in found[:most]), title=title)


def _sentence(finding: Finding) -> str:
    saving = finding.saving_s
    saved = "" if saving is None else f": {seconds(abs(saving))} {'less' if saving >= 0 else 'more'}"
    change = f" To change it: {finding.change}{saved}." if finding.change else ""
    return f"{finding.message}.{change}"


def roofline_of(analysis: Analysis, found: Split, title: str) -> str:
    """Every kernel of a step under the machine's roofs, as SVG; kernels without arithmetic are left out."""
    dots = list(_dots(analysis, found))
    return roofline(dots, roofs_of(analysis, found), analysis.hardware.dram_bytes_per_s, title, KINDS)


def _dots(analysis: Analysis, found: Split) -> Iterator[Dot]:
    """One dot for all launches of a kernel by operators of a kind."""
    kinds, groups = kind_of(analysis), dict[tuple[str, Kernel], list[float]]()
    for launch in busy(analysis, found):
        groups.setdefault((kinds[launch.row.name], launch.kernel), []).append(launch.seconds)
    for (kind, kernel), taken in groups.items():
        flops, whole = kernel.matrix_flops + kernel.vector_flops, sum(taken)
        if flops and kernel.bytes and whole:
            yield Dot(flops / kernel.bytes, flops * len(taken) / whole, whole, kind)
