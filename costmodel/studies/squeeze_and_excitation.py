"""Squeeze-and-excitation: next to no FLOPs, a tenth more weights, and what it costs in time."""

from __future__ import annotations

from typing import Any

from costmodel.claims import maps, squeeze_excitation
from costmodel.report.columns import number_column, quantity_column, text_column
from costmodel.report.document import Code, Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import bars
from costmodel.studies.bench import Bench, device_seconds
from costmodel.studies.registry import Report, study
from costmodel.studies.section_a import RESNET50_STAGES, text
from costmodel.studies.tables import causes_table, networks_table
from costmodel.studies.words import percent, seconds, slower
from costmodel.symbols import symbol

__all__ = ["report"]

PAPER = "Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, arXiv:1709.01507"
REDUCTION, BATCH = 16, 64


@study("squeeze_and_excitation")
def report(bench: Bench) -> Report:
    """Weights in closed form, stage by stage, and the time of the gates."""
    found = {
        title: bench.analysis(name, batch=BATCH, dtype="amp_fp16", layout="nhwc")
        for title, name in (("ResNet-50", "resnet50"), ("SE-ResNet-50", "se_resnet50"))
    }
    splits = {title: bench.split(analysis) for title, analysis in found.items()}
    chapters = (
        _opening(bench),
        _weights(bench),
        Document(
            f"Batch {BATCH} on an A100, autocast fp16, channels_last",
            (networks_table(found, splits), causes_table(splits, "From FLOPs to time")),
        ),
        _gates(bench),
        Document(
            "Conventions", (Notes((PAPER, "times are predicted, nothing was run", *found["ResNet-50"].conventions)),)
        ),
    )
    return Report(chapters, {"squeeze_and_excitation.svg": _figure(bench)})


def _both(bench: Bench, batch: int) -> tuple[float, float]:
    """Predicted seconds of ResNet-50 and of SE-ResNet-50."""
    plain, gated = (
        bench.analysis(n, batch=batch, dtype="amp_fp16", layout="nhwc") for n in ("resnet50", "se_resnet50")
    )
    return plain.latency, gated.latency


def _opening(bench: Bench) -> Document:
    plain, gated = bench.analysis("resnet50").totals, bench.analysis("se_resnet50").totals
    one, many = _both(bench, 1), _both(bench, BATCH)
    gates = [row for row in bench.analysis("se_resnet50").rows() if ".se" in row.name]
    blocks = sum(n for n, _ in RESNET50_STAGES)
    words = (
        f"Squeeze-and-excitation adds {100 * (gated.macs / plain.macs - 1):.2f} % to the MACs of ResNet-50 and "
        f"{percent(gated.params / plain.params - 1)} to its weights. By FLOPs it is free. On an A100 SE-ResNet-50 is "
        f"{slower(one[1] / one[0])} at batch 1, where each of its {blocks} gates is {len(gates) // blocks} more "
        f"operators for the host to issue, and {slower(many[1] / many[0])} at batch {BATCH}, where each gate reads "
        "the widest tensor of its block twice more and writes it once, to average it and to scale it. Not one of "
        "those bytes has a MAC to its name."
    )
    figure = Figure("figures/squeeze_and_excitation.svg", "Time of SE-ResNet-50 over that of ResNet-50, by batch")
    return Document("Squeeze-and-excitation: free in FLOPs, not in time", (Paragraph(words), figure))


def _weights(bench: Bench) -> Document:
    gate = squeeze_excitation(symbol("r"))(maps("C", "H", "W"))
    rows: list[dict[str, Any]] = []
    for number, (blocks, channels) in enumerate(RESNET50_STAGES, start=2):
        one = squeeze_excitation(REDUCTION, bias=True)(maps(channels, 7, 7))
        bare = squeeze_excitation(REDUCTION)(maps(channels, 7, 7))
        rows.append({"stage": f"conv{number}_x", "blocks": blocks, "channels": channels,
                     "weights": blocks * int(bare.params),
                     "biased": blocks * int(one.params)})  # fmt: skip
    total: dict[str, Any] = {
        "stage": "sum",
        "weights": sum(r["weights"] for r in rows),
        "biased": sum(r["biased"] for r in rows),
    }
    plain, gated = bench.analysis("resnet50").totals.params, bench.analysis("se_resnet50").totals.params
    without_last = total["weights"] - rows[-1]["weights"]
    words = (
        f"A gate on C channels has {text(gate.params)} weights, and {text(gate['macs'])} MACs whatever the size of "
        f"the map. Over the blocks of ResNet-50 with r = {REDUCTION} that is {total['weights']:,} "
        f"({100 * total['weights'] / plain:.2f} % of {plain:,}), {total['biased']:,} with biases: exactly the "
        f"{gated - plain:,} by which the traced SE-ResNet-50 is larger. "
        f"{percent(rows[-1]['weights'] / total['weights'])} of them stand in the last stage; without it they are "
        f"{without_last:,} ({100 * without_last / plain:.1f} %), which the paper found to cost little accuracy."
    )
    table = Table(
        columns=(
            text_column("stage", "stage"), number_column("blocks", "blocks", decimals=0),
            number_column("channels", "C", decimals=0),
            number_column("weights", "weights", decimals=0), number_column("biased", "with biases", decimals=0),
        ),
        rows=tuple(rows), footer=(total,),
    )  # fmt: skip
    return Document(
        "The weights, in closed form", (Paragraph(words), Code("costmodel formula squeeze_excitation"), table)
    )


def _gates(bench: Bench) -> Document:
    found = bench.analysis("se_resnet50", batch=BATCH, dtype="amp_fp16", layout="nhwc")
    split = bench.split(found)
    on_device = device_seconds(found, split)
    ops: dict[str, list[float]] = {}
    for row in found.rows():
        if ".se" in row.name:
            entry = ops.setdefault(row.op.removeprefix("aten."), [0, 0, 0.0, 0])
            entry[0] += 1
            entry[1] += row.flops
            entry[2] += on_device.get(row.name, 0.0)
            entry[3] += row.bytes_read + row.bytes_written
    rows: list[dict[str, Any]] = [
        {"op": op, "n": n, "flops": f, "s": s, "bytes": b} for op, (n, f, s, b) in ops.items()
    ]
    whole = sum(row["s"] for row in rows)
    big = [row for row in rows if row["op"] in ("mean", "mul", "adaptive_avg_pool2d")]
    small = sum(row["s"] for row in rows if row["op"] in ("conv2d", "linear"))
    words = (
        f"The gates take {seconds(whole)} of the {seconds(split.busy_s)} that the device works, "
        f"{percent(whole / split.busy_s)}, for {percent(sum(r['flops'] for r in rows) / found.totals.flops)} of the "
        f"FLOPs. Of that, {percent(sum(r['s'] for r in big) / whole)} is the average and the scaling of whole maps; "
        f"the two small matrix products, which hold all the weights, are {percent(small / whole)}: kernels that "
        "start and end."
    )
    table = Table(
        columns=(
            text_column("op", "operator of a gate"), number_column("n", "calls", decimals=0),
            quantity_column("flops", "FLOPs", "FLOP", [r["flops"] for r in rows]),
            quantity_column("bytes", "bytes", "B", [r["bytes"] for r in rows]),
            quantity_column("s", "time", "s", [r["s"] for r in rows], least=100.0),
        ),
        rows=tuple(rows),
    )  # fmt: skip
    return Document("Where the gates' time goes", (Paragraph(words), table))


def _figure(bench: Bench) -> str:
    rows = {}
    for batch in (1, 8, BATCH):
        plain, gated = _both(bench, batch)
        rows[f"batch {batch}"] = {
            "ResNet-50": 1.0,
            "squeeze-and-excitation": gated / plain - 1,
        }
    return bars(rows, "× ResNet-50's time", "SE-ResNet-50 on an A100, autocast fp16, channels_last", decimals=2)
