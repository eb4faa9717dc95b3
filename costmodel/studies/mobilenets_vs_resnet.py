"""MobileNets against ResNets: an order of magnitude fewer FLOPs, and what is left of it in time."""

from __future__ import annotations

from typing import Any

from costmodel.analysis import Analysis
from costmodel.explain import Split
from costmodel.report.columns import number_column, text_column
from costmodel.report.document import Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import pairs
from costmodel.studies.bench import Bench, device_seconds, rows_by_kind
from costmodel.studies.registry import Report, study
from costmodel.studies.tables import by_stage, causes_table, findings_notes, kinds_table, networks_table, roofline_of
from costmodel.studies.words import listed, macs, percent, slower, times

__all__ = ["report"]

NETWORKS = {
    "ResNet-50": "resnet50",
    "ResNet-18": "resnet18",
    "MobileNet V1": "mobilenet_v1",
    "MobileNet V2": "mobilenet_v2",
    "MobileNet V3": "mobilenet_v3_large",
    "ShuffleNet V2": "shufflenet_v2_x1_0",
    "GhostNet": "ghostnet",
}
#: (title, machine, batch, dtype, layout)
MACHINES = (
    ("A100, fp16, batch 64", "a100", 64, "amp_fp16", "nhwc"),
    ("A100, fp16, batch 1", "a100", 1, "amp_fp16", "nhwc"),
    ("T4, fp16, batch 64", "t4", 64, "amp_fp16", "nhwc"),
    ("EPYC 7763, batch 1", "epyc-7763", 1, "fp32", "nchw"),
)
#: Further places of the table: where the host does not hold an A100 up.
FURTHER = (
    ("A100, fp16, batch 512", "a100", 512, "amp_fp16", "nhwc", "eager"),
    ("A100, fp16 compiled, batch 64", "a100", 64, "fp16", "nhwc", "compile"),
)
BATCH = 64


def _on(bench: Bench, network: str, place: tuple[Any, ...]) -> Analysis:
    """The network at a place: (title, machine, batch, dtype, layout, and the mode where it is not eager)."""
    _, hw, batch, dtype, layout, *mode = place
    return bench.analysis(NETWORKS[network], hw=hw, batch=batch, dtype=dtype, layout=layout, mode=(*mode, "eager")[0])


@study("mobilenets_vs_resnet")
def report(bench: Bench) -> Report:
    """MACs against time on four machines, and the causes in between."""
    found = {name: _on(bench, name, MACHINES[0]) for name in NETWORKS}
    splits = {name: bench.split(a) for name, a in found.items()}
    some = {name: splits[name] for name in ("ResNet-50", "ResNet-18", "MobileNet V2", "ShuffleNet V2")}
    chapters = (
        _opening(bench, found),
        Document(f"An A100 at batch {BATCH}, autocast fp16, channels_last", (networks_table(found, splits),)),
        Document("From FLOPs to time", (causes_table(some),)),
        Document("Stage by stage", by_stage([found[n] for n in ("ResNet-50", "ResNet-18", "MobileNet V2")])),
        _depthwise(bench, found["MobileNet V2"], splits["MobileNet V2"]),
        _machines(bench),
        Document("Conventions", (Notes(("times are predicted, nothing was run", *found["ResNet-50"].conventions)),)),
    )
    v2 = found["MobileNet V2"]
    return Report(
        chapters,
        {
            "mobilenets_vs_resnet.svg": _figure(bench),
            "mobilenets_vs_resnet_roofline.svg": roofline_of(
                v2, splits["MobileNet V2"], f"MobileNet V2, batch {BATCH}, autocast fp16, channels_last, A100"
            ),
        },
    )


def _opening(bench: Bench, found: dict[str, Analysis]) -> Document:
    resnet, small, v2 = found["ResNet-50"], found["ResNet-18"], found["MobileNet V2"]
    fewer, faster = resnet.totals.macs / v2.totals.macs, resnet.latency / v2.latency
    text = (
        f"MobileNet V2 has {macs(v2.totals.macs / BATCH)} a picture, ResNet-50 {times(fewer)} as many. On an A100 at "
        f"batch {BATCH}, in autocast fp16, the small network is {times(faster)} as fast. ResNet-18, with "
        f"{times(small.totals.macs / v2.totals.macs)} the MACs of MobileNet V2, is "
        f"{slower(small.latency / v2.latency)} than it. The FLOPs that a depthwise convolution saves were the cheap "
        f"ones: it removes multiplications and leaves every tensor that has to be read and written. {_cpu(bench)}"
    )
    figure = Figure(
        "figures/mobilenets_vs_resnet.svg", "MACs and time over ResNet-50's",
        "If time followed MACs, the bars of a network would be as long as its first one.",
    )  # fmt: skip
    return Document("MobileNets against ResNets: fewer FLOPs, less speed than they promise", (Paragraph(text), figure))


def _cpu(bench: Bench) -> str:
    """What is predicted for a CPU, how many cores that is for, and that nobody has measured it."""
    cpu = {name: _on(bench, name, MACHINES[3]) for name in ("ResNet-50", "ResNet-18", "MobileNet V2")}
    small = cpu["MobileNet V2"]
    return (
        f"On one picture and {small.hardware.unit_count} cores of {small.hardware.title} MobileNet V2 is "
        f"predicted {slower(small.latency / cpu['ResNet-50'].latency)} than ResNet-50 and "
        f"{slower(small.latency / cpu['ResNet-18'].latency)} than ResNet-18. That is untested: on two cores, where it "
        "was measured, ResNet-18 takes longer (accuracy_cpu.md, eager)."
    )


def _depthwise(bench: Bench, found: Analysis, split: Split) -> Document:
    kinds, on_device = rows_by_kind(found), device_seconds(found, split)
    depthwise = kinds["depthwise convolution"]
    moved = sum(row.bytes_read + row.bytes_written for row in depthwise)
    intensity = sum(row.flops for row in depthwise) / moved
    ridge = found.hardware.ridge_point("vector", "fp32")
    taken = sum(on_device.get(row.name, 0.0) for row in depthwise)
    plain = [row for kind in ("normalization", "element-wise") for row in kinds[kind]]
    moving = sum(on_device.get(row.name, 0.0) for row in plain)
    text = (
        f"A depthwise 3x3 does 2·9 FLOP for an element that it reads and one that it writes: {intensity:.1f} FLOP/B "
        f"here, where the lanes that it runs on need {ridge:.0f} to be busy. In MobileNet V2 depthwise convolutions "
        f"have {percent(sum(row.flops for row in depthwise) / found.totals.flops)} of the FLOPs and take "
        f"{percent(taken / split.busy_s)} of the time. Normalization and activations take "
        f"{percent(moving / split.busy_s)} for {percent(sum(row.flops for row in plain) / found.totals.flops)}: a "
        "block widens its maps six times before the depthwise convolution, and everything element-wise passes over "
        "the wide ones."
    )
    return Document(
        "Where MobileNet V2's time goes",
        (
            Paragraph(text),
            kinds_table(found, split),
            Figure("figures/mobilenets_vs_resnet_roofline.svg", f"Roofline of MobileNet V2 at batch {BATCH}"),
            findings_notes(bench.findings(found), "What the analyzer says", 5),
        ),
    )


def _ratio(bench: Bench, name: str, place: tuple[str, str, int, str, str]) -> float:
    return _on(bench, name, place).latency / _on(bench, "ResNet-50", place).latency


def _machines(bench: Bench) -> Document:
    places = (*MACHINES, *FURTHER)
    rows = [
        {"name": name, **{place[0]: 1e3 * _on(bench, name, place).latency for place in places}} for name in NETWORKS
    ]
    winners = [f"{place[0]}: {min(NETWORKS, key=lambda n, p=place: _on(bench, n, p).latency)}" for place in places]  # type: ignore[misc]
    table = Table(
        columns=(text_column("name", "network"), *(number_column(p[0], p[0], "ms", decimals=2) for p in places)),
        rows=tuple(rows),
    )
    waits = {n: bench.split(_on(bench, n, MACHINES[0])).seconds("host") / _on(bench, n, MACHINES[0]).latency
             for n in NETWORKS}  # fmt: skip
    held = [f"{name} for {percent(share)}" for name, share in waits.items() if share > 0.1]
    text = (
        f"The fastest of these networks is, on {'; on '.join(winners)}. At batch {BATCH} some networks wait for "
        f"Python on the A100: {listed(held)} of the step, so that their times there say nothing of their kernels."
    )
    return Document("Which network wins where", (Paragraph(text), table))


def _figure(bench: Bench) -> str:
    base = _on(bench, "ResNet-50", MACHINES[0])
    rows = {
        name: (
            _on(bench, name, MACHINES[0]).totals.macs / base.totals.macs,
            *(_ratio(bench, name, p) for p in MACHINES),
        )
        for name in NETWORKS
        if name != "ResNet-50"
    }
    return pairs(
        rows, ("MACs", *(f"time, {place[0]}" for place in MACHINES)), "of ResNet-50's", "MACs and time over ResNet-50's"
    )
