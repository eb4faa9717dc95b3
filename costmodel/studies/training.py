"""A training step of five networks: what it is made of, why backward is not twice forward, what memory allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from costmodel.analysis import Analysis
from costmodel.execution import NodePhase
from costmodel.explain.causes import CAUSES
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import bars, lines
from costmodel.studies.bench import Bench
from costmodel.studies.registry import Report, study
from costmodel.studies.tables import findings_notes
from costmodel.studies.training_memory import checkpoints, memory, memory_figure, optimizers
from costmodel.studies.training_steps import MACHINES, NETWORKS, parts, ratios, trained
from costmodel.studies.words import percent, seconds, times
from costmodel.units import format_bytes

__all__ = ["report"]


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OPTIMIZERS = ("sgd", "momentum", "adamw")
_GIB = 2**30


class Published(NamedTuple):
    """A training step that others have timed: milliseconds at a batch, and the conditions."""

    name: str
    request: str
    hw: str
    batch: int
    dtype: str
    layout: str
    torch: str
    optimizer: str
    milliseconds: float
    source: int


#: Where published steps are from.
SOURCES = (
    "timm's benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv: PyTorch 1.12, timm's SGD with Nesterov momentum, no "
    "GradScaler, a synchronization after every step",
    "NVIDIA's DeepLearningExamples, ResNet50v1.5 for PyTorch: NGC 21.03, DALI's loader, throughput turned into time",
)
PUBLISHED = (
    Published("ResNet-50", "timm:resnet50", "rtx3090", 512, "amp_fp16", "nhwc", "1.12", "nesterov", 420.36, 0),
    Published(
        "MobileNet V2", "timm:mobilenetv2_100", "rtx3090", 512, "amp_fp16", "nhwc", "1.12", "nesterov", 221.35, 0
    ),
    Published("ConvNeXt-T", "timm:convnext_tiny", "rtx3090", 256, "amp_fp16", "nhwc", "1.12", "nesterov", 312.48, 0),
    Published(
        "ViT-B/16", "timm:vit_base_patch16_224", "rtx3090", 192, "amp_fp16", "nhwc", "1.12", "nesterov", 488.56, 0
    ),
    Published("ResNet-50", "torchvision:resnet50", "a100", 256, "amp_fp16", "nhwc", "1.9", "momentum", 103.64, 1),
    Published("ResNet-50", "torchvision:resnet50", "a100", 256, "tf32", "nchw", "1.9", "momentum", 272.92, 1),
)


@study("training")
def report(bench: Bench) -> Report:
    """Steps by part, the ratio of backward to forward, small batches, memory, checkpoints, optimizers, measurements."""
    found = {name: trained(bench, name) for name in NETWORKS}
    chapters = (
        _opening(found),
        _parts(bench),
        _ratio(bench, found),
        _small_batches(bench),
        memory(bench),
        checkpoints(bench),
        optimizers(bench),
        _measured(bench),
        Document("Conventions", (Notes(("times are predicted, nothing was run", *found["ResNet-50"].conventions)),)),
    )
    figures = {
        "training_parts.svg": _parts_figure(found),
        "training_memory.svg": memory_figure(bench),
        "training_batches.svg": _batches_figure(bench),
    }
    return Report(chapters, figures)


# -- what a step is made of ----------------------------------------------------------------------


def _opening(found: Mapping[str, Analysis]) -> Document:
    both = {name: ratios(analysis) for name, analysis in found.items()}
    low, high = (pick(both, key=lambda name: both[name][1]) for pick in (min, max))
    kept = {name: analysis.memory.moment.by_kind.get("saved for backward", 0.0) for name, analysis in found.items()}
    fewer = found["ResNet-50"].totals.flops / found["MobileNet V2"].totals.flops
    text = (
        f"A training step is said to cost three forward passes. Of FLOPs that is true: the backward passes of five "
        f"networks have {min(r[0] for r in both.values()):.2f} to {max(r[0] for r in both.values()):.2f} times "
        f"those of their forward passes. Of time it is not: on an A100 the backward pass takes from "
        f"{both[low][1]:.2f} ({low}) to {both[high][1]:.2f} times ({high}) as long. And what sets the batch is "
        f"neither: MobileNet V2 does {times(fewer)} fewer FLOPs than ResNet-50 and keeps "
        f"{format_bytes(kept['MobileNet V2'])} for its backward pass at batch {NETWORKS['MobileNet V2'].batch}, where "
        f"ResNet-50 keeps {format_bytes(kept['ResNet-50'])}."
    )
    how = (
        "Steps are forward pass, loss, backward pass and optimizer in train mode, autocast in fp16 with a GradScaler, "
        "convolutional networks in channels_last; SGD with momentum for ResNet-50 and MobileNet V2, AdamW for the "
        "others, both as torch.optim runs them by default. Autograd itself, on the meta device, says what runs "
        "backward and what is kept. Nothing was run: accuracy.md says how far such predictions are off."
    )
    figure = Figure(
        "figures/training_parts.svg", "Time of a training step on an A100 by its parts",
        "Each bar is a step; its length is the time of a sample.",
    )  # fmt: skip
    return Document("A training step: what it is made of", (Paragraph(text), figure, Paragraph(how)))


def _parts_figure(found: Mapping[str, Analysis]) -> str:
    rows = {
        f"{name}, batch {NETWORKS[name].batch}": {
            phase: 1e6 * row.latency_s / NETWORKS[name].batch for phase, row in parts(analysis).items()
        }
        for name, analysis in found.items()
    }
    return bars(rows, "µs a sample", "A training step on an A100, autocast fp16", decimals=0)


def _parts(bench: Bench) -> Document:
    tables = []
    for title, machine in MACHINES.items():
        rows = [_parts_row(name, trained(bench, name, machine)) for name in NETWORKS]
        times_s = [row[key] for row in rows for key in ("forward_s", "backward_s", "optimizer_s")]
        tables.append(
            Table(
                title=f"{title}, autocast fp16",
                columns=(
                    text_column("name", "network"),
                    number_column("batch", "batch", decimals=0),
                    number_column("flops", "FLOPs a sample", "GFLOP", decimals=1),
                    *(quantity_column(f"{p.value}_s", p.value, "s", times_s, decimals=2) for p in _PARTS),
                    number_column("rate", "samples", "1/s", decimals=0),
                    share_column("peak_share", "of the peak"),
                    share_column("host_share", "waiting for the host"),
                ),
                rows=tuple(rows),
            )
        )
    text = (
        "Shares of the peak are FLOPs over the time of the step at the dense fp16 peak of the tensor cores (on the "
        "RTX 3090 with fp32 accumulation, half of what its datasheet puts first)."
    )
    return Document("Time of a step, part by part", (Paragraph(text), *tables))


_PARTS = (NodePhase.FORWARD, NodePhase.BACKWARD, NodePhase.OPTIMIZER)


def _parts_row(name: str, analysis: Analysis) -> dict[str, Any]:
    rows, batch = parts(analysis), NETWORKS[name].batch
    peak = analysis.hardware.peak("matrix", "fp16").flop_per_s
    waits = sum(max(slot.waited_s, 0.0) for slot in analysis.timeline)
    return {
        "name": name,
        "batch": batch,
        "flops": analysis.totals.flops / batch / 1e9,
        **{f"{phase.value}_s": rows[phase.value].latency_s for phase in _PARTS},
        "rate": batch / analysis.latency,
        "peak_share": analysis.totals.flops / analysis.latency / peak,
        "host_share": waits / analysis.latency,
    }


# -- why backward is not twice forward ------------------------------------------------------------


def _ratio(bench: Bench, found: Mapping[str, Analysis]) -> Document:
    rows = []
    for name, analysis in found.items():
        flops, time = ratios(analysis)
        on_other = ratios(trained(bench, name, "rtx3090"))[1]
        rows.append({"name": name, "flops": flops, "a100": time, "rtx3090": on_other, "why": _why(bench, analysis)})
    table = Table(
        columns=(
            text_column("name", "network"),
            number_column("flops", "FLOPs", "×", decimals=2),
            number_column("a100", "time, A100", "×", decimals=2),
            number_column("rtx3090", "time, RTX 3090", "×", decimals=2),
            text_column("why", "what parts time from FLOPs on the A100"),
        ),
        rows=tuple(rows),
        title="Backward over forward",
    )
    resnet, vit = found["ResNet-50"], found["ViT-B/16"]
    text = (
        "Every product of the forward pass has two in the backward pass, one for the gradient of its input and one "
        f"for that of its weight, so that FLOPs double; they stay below 2 ({ratios(resnet)[0]:.2f} for ResNet-50) "
        "because pictures need no gradient, and what is no product has no second one. Time goes its own way. Layers "
        "that only move bytes do not double: a normalization reads its input twice forward, and input and gradient "
        "twice backward; a ReLU reads one tensor and writes one, backward it reads two; an addition of a residual "
        "costs nothing backward, where the gradient is handed on as it is, and where paths meet again an addition of "
        "gradients takes its place. Weight gradients are products over all pixels of the batch, long sums with small "
        "results, which libraries split and add up."
    )
    tables = [_causes_by_phase(bench, name, analysis) for name, analysis in (("ResNet-50", resnet), ("ViT-B/16", vit))]
    notes = findings_notes(bench.findings(resnet), "What the analyzer says of ResNet-50's step", 5)
    return Document("Why backward is not twice forward", (Paragraph(text), table, *tables, notes))


def _by_cause(bench: Bench, analysis: Analysis) -> dict[str, tuple[float, float]]:
    """Seconds of each cause, FLOPs alone too, in the forward and in the backward pass."""
    phases = bench.split(analysis).by_phase
    ahead, behind = phases[NodePhase.FORWARD], phases[NodePhase.BACKWARD]
    causes = dict.fromkeys((*ahead, *behind))
    labels = {cause: "FLOPs alone" if cause == "flops" else CAUSES[cause].label for cause in causes}
    return {labels[cause]: (ahead.get(cause, 0.0), behind.get(cause, 0.0)) for cause in causes}


def _why(bench: Bench, analysis: Analysis) -> str:
    """The two causes that part the ratio of times most from that of FLOPs, with their microseconds."""
    flops, _ = ratios(analysis)
    more_s = {label: behind - flops * ahead for label, (ahead, behind) in _by_cause(bench, analysis).items()}
    more_s.pop("FLOPs alone", None)
    largest = sorted(more_s, key=lambda label: -abs(more_s[label]))[:2]
    return ", ".join(f"{seconds(abs(more_s[c]))} {'more' if more_s[c] > 0 else 'less'} of {c}" for c in largest)


def _causes_by_phase(bench: Bench, name: str, analysis: Analysis) -> Table:
    found = _by_cause(bench, analysis)
    whole = sum(map(sum, found.values()))
    rows: list[dict[str, Any]] = [
        {
            "cause": label,
            "forward_s": ahead,
            "backward_s": behind,
            "ratio": behind / ahead if ahead > 1e-3 * whole else None,
        }
        for label, (ahead, behind) in sorted(found.items(), key=lambda item: -sum(item[1]))
        if abs(ahead) + abs(behind) > 5e-3 * whole
    ]
    both = [row[key] for row in rows for key in ("forward_s", "backward_s")]
    return Table(
        title=f"{name} on the A100, batch {NETWORKS[name].batch}",
        columns=(
            text_column("cause", "from FLOPs to time"),
            quantity_column("forward_s", "forward", "s", both, decimals=0, least=100.0),
            quantity_column("backward_s", "backward", "s", both, decimals=0, least=100.0),
            number_column("ratio", "backward over forward", "×", decimals=2),
        ),
        rows=tuple(rows),
    )


# -- small batches -------------------------------------------------------------------------------


def _small_batches(bench: Bench) -> Document:
    one = {name: trained(bench, name, batch=1) for name in NETWORKS}
    rows: list[dict[str, Any]] = []
    for name, analysis in one.items():
        phases = parts(analysis)
        waits = bench.split(analysis).seconds("host")
        rows.append(
            {"name": name, "latency_s": analysis.latency, "host_share": waits / analysis.latency,
             **{f"{p.value}_s": phases[p.value].latency_s for p in _PARTS}, "kernels": analysis.totals.kernels,
             "optimizer_share": phases["optimizer"].share}
        )  # fmt: skip
    values = [row[key] for row in rows for key in ("latency_s", "forward_s", "backward_s", "optimizer_s")]
    table = Table(
        title="One sample a step on an A100",
        columns=(
            text_column("name", "network"),
            quantity_column("latency_s", "step", "s", values, decimals=2),
            *(quantity_column(f"{p.value}_s", p.value, "s", values, decimals=2) for p in _PARTS),
            number_column("kernels", "kernels", decimals=0),
            share_column("host_share", "waiting for the host"),
            share_column("optimizer_share", "in the optimizer"),
        ),
        rows=tuple(rows),
    )
    bert, many = parts(one["BERT-base"])["optimizer"], trained(bench, "BERT-base")
    text = (
        "Small batches are bound by two things that no FLOP shows. The host: Python calls the forward pass, a thread "
        "of autograd the backward pass, and both take as long for one sample as for a hundred. The optimizer: it reads "
        f"and writes weights, gradients and states once a step, {format_bytes(bert.bytes_read + bert.bytes_written)} "
        f"for BERT-base with AdamW: {percent(bert.share)} of a step with one sequence, "
        f"{percent(parts(many)['optimizer'].share)} of one with {NETWORKS['BERT-base'].batch}."
    )
    figure = Figure(
        "figures/training_batches.svg", "Time of a sample over the batch, by part of the step",
        "Lines fall until the device is full; the optimizer's falls for ever.",
    )  # fmt: skip
    return Document("Small batches: the host and the optimizer", (Paragraph(text), table, figure))


def _batches_figure(bench: Bench) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for name in ("ResNet-50", "BERT-base"):
        for batch in BATCHES:
            analysis = trained(bench, name, batch=batch)
            for phase, row in parts(analysis).items():
                series.setdefault(f"{name}, {phase}", []).append((batch, 1e6 * row.latency_s / batch))
    return lines(series, "batch", "µs a sample", "A training step on an A100, autocast fp16", ticks=BATCHES)


# -- measurements --------------------------------------------------------------------------------


def _measured(bench: Bench) -> Document:
    rows: list[dict[str, Any]] = []
    for row in PUBLISHED:
        scaler: dict[str, Any] = {"grad_scaler": False} if row.source == 0 else {}
        step = bench.analysis(
            row.request, phase="training", hw=row.hw, batch=row.batch, dtype=row.dtype, layout=row.layout,
            torch=row.torch, optimizer=row.optimizer, **scaler,
        )  # fmt: skip
        low, high = step.totals.latency_low_s, step.totals.latency_high_s
        rows.append(
            {"name": row.name, "machine": step.hardware.title, "how": f"batch {row.batch}, {row.dtype}, {row.layout}",
             "measured_s": row.milliseconds / 1e3, "predicted_s": step.latency,
             "error": step.latency / (row.milliseconds / 1e3) - 1,
             "within": "yes" if low <= row.milliseconds / 1e3 <= high else "no", "source": f"[{row.source + 1}]"}
        )  # fmt: skip
    both = [row[key] for row in rows for key in ("measured_s", "predicted_s")]
    errors = sorted(abs(row["error"]) for row in rows)
    text = (
        f"Steps of these networks that others have published: predictions are off by {percent(errors[0])} to "
        f"{percent(errors[-1])}. All rows of training that are known here, 539 of them on the RTX 3090 alone, are "
        "judged in accuracy.md."
    )
    table = Table(
        columns=(
            text_column("name", "network"),
            text_column("machine", "machine"),
            text_column("how", "step"),
            quantity_column("measured_s", "measured", "s", both, decimals=1),
            quantity_column("predicted_s", "predicted", "s", both, decimals=1),
            share_column("error", "error"),
            text_column("within", "within the interval"),
            text_column("source", "source"),
        ),
        rows=tuple(rows),
    )
    notes = Notes(tuple(f"[{number}] {source}" for number, source in enumerate(SOURCES, start=1)))
    return Document("Predicted against measured", (Paragraph(text), table, notes))
