"""ResNet-50 on an A100: the flagship report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.analysis import Analysis
from costmodel.engines import engine_names
from costmodel.execution import Phase
from costmodel.explain.case import Case
from costmodel.explain.rules_run import batch_that_fills
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Block, Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import bars, lines
from costmodel.studies.bench import Bench, cause_seconds, device_seconds, rows_by_kind
from costmodel.studies.registry import Report, study
from costmodel.studies.tables import bottleneck, findings_notes, kinds_table, roofline_of, stages_table
from costmodel.studies.words import macs, percent, seconds, slower, times

__all__ = ["report"]

NETWORK, MACHINE = "resnet50", "a100"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: How it can be run: name -> conditions.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "fp32 (TF32 convolutions)": {"dtype": "fp32", "layout": "nchw"},
    "autocast fp16, channels_last": {"dtype": "amp_fp16", "layout": "nhwc"},
    "fp16, channels_last, compiled": {"dtype": "fp16", "layout": "nhwc", "mode": "compile"},
}
DEFAULT, BEST = "fp32 (TF32 convolutions)", "fp16, channels_last, compiled"
SOME, MANY = 64, 256


@study("resnet50_a100")
def report(bench: Bench) -> Report:
    """What FLOPs say, what the machine takes, and why, from one picture to 256."""
    one = bench.analysis(NETWORK, hw=MACHINE)
    return Report(
        (
            _opening(bench, one),
            _settings(bench),
            _one_picture(bench, one),
            _hosts(bench, one),
            _many_pictures(bench),
            _stages(bench),
        ),
        {
            "resnet50_a100_roofline.svg": _roofline(bench),
            "resnet50_a100_causes.svg": _causes(bench),
            "resnet50_a100_batches.svg": _batches(bench),
        },
    )


def _at(bench: Bench, setting: str, batch: int) -> Analysis:
    return bench.analysis(NETWORK, hw=MACHINE, batch=batch, **SETTINGS[setting])


def _opening(bench: Bench, one: Analysis) -> Document:
    found, best = bench.split(one), _at(bench, BEST, MANY)
    alone, many = found.flops_alone_s, bench.split(best)
    waits = found.seconds("host")
    text = (
        f"ResNet-50 is {macs(one.totals.macs)} a picture. At the {found.peak.dtype.upper()} peak of an A100 that is "
        f"{seconds(alone)} of work; a step of PyTorch with one picture takes {seconds(one.latency)}, "
        f"{times(one.latency / alone)} as long, and for {percent(waits / one.latency)} of that the GPU waits for "
        f"Python. Run in {BEST} at batch {MANY}, a picture takes {seconds(best.latency / MANY)}, "
        f"{slower(best.latency / MANY / one.latency)}, and FLOPs account for "
        f"{percent(many.flops_alone_s / best.latency)} of it. What the other "
        f"{percent(1 - many.flops_alone_s / best.latency)} are, layer by layer, is what follows."
    )
    how = (
        "Nothing here was run: every time is predicted from the model's operators and a description of the machine "
        "(hw_profiles/a100-sxm-80gb.toml). Written by costmodel report resnet50_a100; the accuracy of such "
        "predictions is in accuracy.md."
    )
    return Document(
        "ResNet-50 on an A100: where the time goes",
        (
            Paragraph(text),
            Figure(
                "figures/resnet50_a100_causes.svg",
                "Time of a picture by cause, from fp32 at batch 1 to compiled fp16 at batch 256",
                "Bars to the left of zero are gains: operands that come from a cache instead of memory.",
            ),
            Paragraph(how),
        ),
    )


def _settings(bench: Bench) -> Document:
    rows: list[dict[str, Any]] = []
    for setting in SETTINGS:
        for batch in (1, SOME, MANY):
            analysis = _at(bench, setting, batch)
            found = bench.split(analysis)
            cause = max(found.causes, key=lambda share: share.seconds)
            rows.append(
                {"setting": setting, "batch": batch, "step": analysis.latency, "rate": batch / analysis.latency,
                 "peak": analysis.totals.flops / analysis.latency / found.peak.flop_per_s,
                 "bound": f"{cause.label} ({percent(cause.share)})", "memory": analysis.totals.peak_memory_bytes}
            )  # fmt: skip
    table = Table(
        columns=(
            text_column("setting", "run"),
            number_column("batch", "batch", decimals=0),
            quantity_column("step", "step", "s", [row["step"] for row in rows], decimals=2),
            number_column("rate", "pictures/s", decimals=0),
            share_column("peak", "of the peak"),
            text_column("bound", "largest cause"),
            quantity_column("memory", "peak memory", "B", [row["memory"] for row in rows]),
        ),
        rows=tuple(rows),
    )
    figure = Figure(
        "figures/resnet50_a100_batches.svg",
        "Pictures per second over the batch size, three ways to run",
        f"{_knee(bench)} Beyond it only a faster kernel helps.",
    )
    return Document("Three ways to run it, three batch sizes", (table, figure))


def _knee(bench: Bench) -> str:
    """Where each line bends: the first batch at which the host no longer holds the device up, as the finding has it."""
    bends = []
    for setting in SETTINGS:
        free = batch_that_fills(Case(_at(bench, setting, 1)))
        bends.append(f"batch {free} in {setting}" if free else f"no batch shown in {setting}")
    return "The host stops being the bottleneck at " + "; ".join(bends) + "."


def _one_picture(bench: Bench, one: Analysis) -> Document:
    found, limit = bench.split(one), bottleneck(bench.split(one))
    text = (
        f"Eager PyTorch issues {one.totals.kernels} kernels for one picture, "
        f"{seconds(found.latency_s / one.totals.kernels)} apart on average, and the GPU is through with each in "
        f"{seconds(found.busy_s / one.totals.kernels)}."
    )
    if limit == "the host":
        text += " A network of half the FLOPs would take as long: the host would still issue as many kernels."
    notes = findings_notes(bench.findings(one, "nhwc"), "What the analyzer says about one picture", 5)
    return Document(f"One picture: {limit} is the bottleneck", (Paragraph(text), notes))


def _hosts(bench: Bench, one: Analysis) -> Document:
    """One picture, issued in each mode by a quick host, the machine's usual one and a slow one."""
    names = [*dict.fromkeys((one.host_span.quickest.name, one.host.name, one.host_span.slowest.name))]
    rows: list[dict[str, Any]] = []
    for mode in engine_names(Phase.INFERENCE):
        steps = {name: bench.analysis(NETWORK, hw=MACHINE, mode=mode).at(host=name) for name in names}
        usual = steps[one.host.name]
        free = bench.analysis(NETWORK, hw=MACHINE, mode=mode).at(host="instant").latency
        rows.append({"mode": mode, "kernels": usual.totals.kernels, "free": free,
                     **{name: step.latency for name, step in steps.items()}})  # fmt: skip
    every = [row[name] for row in rows for name in (*names, "free")]
    table = Table(
        columns=(
            text_column("mode", "mode"),
            number_column("kernels", "kernels", decimals=0),
            *(quantity_column(name, name, "s", every, decimals=0) for name in names),
            quantity_column("free", "a host without time", "s", every, decimals=0),
        ),
        rows=tuple(rows),
    )
    eager, captured = (next(row for row in rows if row["mode"] == mode) for mode in ("eager", "reduce-overhead"))
    quick, slow = names[0], names[-1]
    text = (
        f"How long one picture takes is a question for the computer beside the GPU. In eager mode a host that is "
        f"{times(one.host_span.slowest.slowdown / one.host_span.quickest.slowdown)} as slow in PyTorch's code makes "
        f"the step take {times(eager[slow] / eager[quick])} as long, {seconds(eager[quick])} or "
        f"{seconds(eager[slow])}. Compiled, the host still calls a library for each convolution; captured as well "
        f"(reduce-overhead) it calls once, and the two hosts are {seconds(captured[slow] - captured[quick])} apart. "
        f"Where no host is named, the interval holds all that the machine is met with: "
        f"{seconds(one.totals.latency_low_s)} to {seconds(one.totals.latency_high_s)} in eager mode; --host narrows it."
    )
    return Document("What the host does to one picture", (Paragraph(text), table))


def _many_pictures(bench: Bench) -> Document:
    some = _at(bench, "autocast fp16, channels_last", SOME)
    found = bench.split(some)
    on_device, kinds = device_seconds(some, found), rows_by_kind(some)
    cheap = [row for kind in ("normalization", "element-wise") for row in kinds[kind]]
    taken = sum(on_device.get(row.name, 0.0) for row in cheap)
    waits = found.seconds("host") / found.latency_s
    text = (
        f"At batch {SOME} in autocast the GPU waits for the host for {percent(waits)} of the time, and another "
        "surprise shows: batch normalization, ReLU and the additions of the shortcuts have "
        f"{percent(sum(row.flops for row in cheap) / some.totals.flops)} of the FLOPs and take "
        f"{percent(taken / found.busy_s)} of the time. Each reads a tensor from memory, does next to nothing with "
        "it, and writes it back: far left of the ridge point in the figure, where the slanted roof is the bandwidth."
    )
    blocks: list[Block] = [
        Paragraph(text),
        kinds_table(some, found),
        Figure(
            "figures/resnet50_a100_roofline.svg",
            f"Roofline of every kernel at batch {SOME} in autocast fp16",
            "The area of a dot is its share of the time. Dots above the slanted roof take operands from the L2 cache.",
        ),
        findings_notes(bench.findings(some), "What the analyzer says, and what each change would save"),
    ]
    return Document(f"{SOME} pictures: {bottleneck(found)} is the bottleneck", tuple(blocks))


def _stages(bench: Bench) -> Document:
    some = _at(bench, "autocast fp16, channels_last", SOME)
    stages = [row for row in some.rows(by="stage") if row.macs and row.name != "1x1"]
    first, last = stages[1], stages[-1]
    text = (
        "A block of ResNet has about the same number of MACs in every stage: where maps halve, channels double. "
        f"Time does not follow: maps of {first.name} take {percent(first.share)} of it for "
        f"{percent(first.macs / some.totals.macs)} of the MACs, maps of {last.name} {percent(last.share)} for "
        f"{percent(last.macs / some.totals.macs)}, because early maps are large and their element-wise operators "
        "move all of it."
    )
    notes = Notes(some.conventions, title="Conventions")
    return Document("By stage", (Paragraph(text), stages_table(some), notes))


def _roofline(bench: Bench) -> str:
    some = _at(bench, "autocast fp16, channels_last", SOME)
    return roofline_of(some, bench.split(some), f"ResNet-50, batch {SOME}, autocast fp16, channels_last, A100")


def _causes(bench: Bench) -> str:
    runs = [(DEFAULT, 1), (DEFAULT, SOME), ("autocast fp16, channels_last", SOME), (BEST, MANY)]
    rows = {}
    for setting, batch in runs:
        causes = cause_seconds(bench.split(_at(bench, setting, batch)))
        rows[f"{setting}\nbatch {batch}"] = _merged({label: 1e6 * s / batch for label, s in causes.items()})
    return bars(rows, "µs", "Where the time of one picture goes", decimals=0, as_shares=True)


def _merged(causes: dict[str, float]) -> dict[str, float]:
    """Few enough parts for one legend: arithmetic, memory, host."""
    groups = {
        "FLOPs alone": ("FLOPs alone",),
        "arithmetic below peak": ("slower arithmetic units", "below peak at best", "tiles and waves",
                                  "channels that fill no tile", "Winograd or FFT"),
        "element-wise and normalization": ("memory-bound element-wise", "memory-bound normalization", "unfused chains"),
        "copies and casts": ("layout copies", "dtype casts", "copies, concatenations, gathers"),
        "cache hits (gain)": ("cache hits",),
        "kernel starts": ("fixed kernel time",),
        "waiting for the host": ("waiting for the host", "framework overhead"),
    }  # fmt: skip
    found = {group: sum(causes.get(label, 0.0) for label in labels) for group, labels in groups.items()}
    named = {label for labels in groups.values() for label in labels}
    return {**found, "other memory traffic": sum(v for label, v in causes.items() if label not in named)}


def _batches(bench: Bench) -> str:
    series = {s: [(float(b), b / _at(bench, s, b).latency) for b in BATCHES] for s in SETTINGS}
    return lines(series, "batch size", "pictures per second", "ResNet-50 on an A100")
