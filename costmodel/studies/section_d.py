"""Section D: where FLOPs mislead, each claim with microseconds from the analyzer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from costmodel.analysis import Analysis
from costmodel.explain.rule import Finding
from costmodel.report.document import Notes
from costmodel.studies import resnet_abcd, shufflenetv2_guidelines
from costmodel.studies.bench import Bench, critical_path_s, device_seconds, kind_of, rows_by_kind
from costmodel.studies.words import listed, more, percent, seconds, slower

__all__ = ["BATCH", "PASSAGES", "PUBLISHED_RATES", "next_pair", "passages", "run", "said_by", "time_share"]

#: Samples a step where a claim names no batch: a GPU is busy, and every machine's memory holds it.
BATCH = 64
RUN: dict[str, Any] = {"dtype": "amp_fp16", "layout": "nhwc"}


def passages(bench: Bench) -> Iterator[Notes]:
    """A short passage a claim, D1 to D10."""
    for number, (title, passage) in PASSAGES.items():
        yield Notes(tuple(passage(bench)), title=f"{number}: {title}")


def run(bench: Bench, name: str, **conditions: Any) -> Analysis:
    return bench.analysis(name, **{"batch": BATCH, **RUN, **conditions})


def said_by(bench: Bench, analysis: Analysis, rule: str) -> Finding | None:
    """What a rule of the analyzer says, or None where it is silent."""
    return next((found for found in bench.findings(analysis) if found.rule == rule), None)


def time_share(bench: Bench, analysis: Analysis, *kinds: str) -> tuple[float, float]:
    """(share of the FLOPs, share of the device's time) of some kinds of operators."""
    split, members = bench.split(analysis), rows_by_kind(analysis)
    on_device = device_seconds(analysis, split)
    rows = [row for kind in kinds for row in members.get(kind, [])]
    return sum(r.flops for r in rows) / analysis.totals.flops, sum(
        on_device.get(r.name, 0.0) for r in rows
    ) / split.busy_s


def _resnet_d(bench: Bench) -> Iterator[str]:
    flops, one = resnet_abcd.ratios(bench, "a100", 1)
    _, many = resnet_abcd.ratios(bench, "a100", 256)
    holds = [f"batch {b} on {hw}" for hw, b in resnet_abcd.PLACES if resnet_abcd.ratios(bench, hw, b)[1] < 1.05]
    yield (
        f"D has {more(flops)} FLOPs than A. On an A100 it is predicted {slower(one)} at batch 1, where the host sets "
        f"the pace and a few operators more are all that counts, and {slower(many)} at batch 256. Less than 5 % "
        f"slower it is at {listed(holds) if holds else 'none of the places tried'}. The published 3 % is of training "
        "throughput; of a GPU that is kept busy it does not hold. See resnet_abcd.md for machines, batch sizes and "
        "kinds of operators."
    )


def _pointwise(bench: Bench) -> Iterator[str]:
    yield (
        "A 1x1 convolution of stride 1 is a matrix product on the input as it lies; a 3x3 on a machine that stores "
        f"the im2col matrix writes and reads nine times its input. {_im2col(bench)}"
    )
    yield (
        "Libraries for GPUs form the matrix on chip, where the gap closes or turns around: of equal FLOPs and maps a "
        "3x3 has a third of a 1x1's channels, and multiplies each element that it loads three times as often (9·C/3 "
        "against C)."
    )
    places = {
        "an A100 in autocast fp16": run(bench, "resnet50"),
        "a V100 in fp32": bench.analysis("resnet50", hw="v100-sxm-16gb", batch=BATCH),
        "a T4 in fp32": bench.analysis("resnet50", hw="t4", batch=BATCH),
    }
    for place, analysis in places.items():
        said = said_by(bench, analysis, "pointwise_against_window")
        if said is not None:
            faster = said.evidence["pointwise_s_per_gflop"] < said.evidence["window_s_per_gflop"]  # type: ignore[operator]
            yield f"ResNet-50 on {place}: the claim {'holds' if faster else 'does not hold'}; {said.message}."
        else:
            yield f"ResNet-50 on {place}: neither kind is notably faster for its FLOPs."


def _im2col(bench: Bench) -> str:
    """What the network that stores the matrix says of itself."""
    said = said_by(bench, bench.analysis("zoo:im2col_conv", batch=BATCH), "explicit_im2col")
    return f"A network that stores the matrix: {said.message}." if said else ""


def _depthwise(bench: Bench) -> Iterator[str]:
    found = run(bench, "mobilenet_v2")
    flops, time = time_share(bench, found, "depthwise convolution")
    rows = rows_by_kind(found)["depthwise convolution"]
    intensity = sum(r.flops for r in rows) / sum(r.bytes_read + r.bytes_written for r in rows)
    ridges = {hw: bench.analysis("mobilenet_v2", hw=hw).hardware.ridge_point("vector", "fp32") for hw in ("a100", "t4")}
    said = listed([f"{ridge:.0f} on {hw}" for hw, ridge in ridges.items()])
    yield (
        f"The depthwise convolutions of MobileNet V2 do {intensity:.1f} FLOP for each byte that they move in fp16; "
        f"the lanes that run them need {said} to be busy. They have {percent(flops)} of the FLOPs and take "
        f"{percent(time)} of the time on an A100 at batch {BATCH}. See mobilenets_vs_resnet.md."
    )


def _elementwise(bench: Bench) -> Iterator[str]:
    parts = []
    for title, name in (("ResNet-50", "resnet50"), ("MobileNet V2", "mobilenet_v2")):
        flops, time = time_share(bench, run(bench, name), "normalization", "element-wise")
        parts.append(f"{percent(time)} of the time of {title} for {percent(flops)} of its FLOPs")
    compiled = run(bench, "resnet50", mode="compile", dtype="fp16")
    eager = run(bench, "resnet50", dtype="fp16")
    yield (
        f"Batch normalization, ReLU, additions and biases take {listed(parts)} (A100, batch {BATCH}, autocast fp16). "
        "They read and write whole tensors, and fusing them is what a compiler does first: ResNet-50 in fp16 is "
        f"{eager.latency / compiled.latency:.2f} times as fast compiled."
    )


def _guidelines(bench: Bench) -> Iterator[str]:
    parts = [
        f"{case.what} ({case.guideline}) {shufflenetv2_guidelines.measured_text(case.measured)} measured, "
        f"{shufflenetv2_guidelines.speed(bench, case):.2f} predicted"
        for case in shufflenetv2_guidelines.CASES
    ]
    yield f"Speed at equal FLOPs, on a GTX 1080Ti: {'; '.join(parts)}. See shufflenetv2_guidelines.md for the causes."


def _fragments(bench: Bench) -> Iterator[str]:
    found = run(bench, "googlenet")
    split = bench.split(found)
    yield (
        f"GoogLeNet, A100, batch {BATCH}: one stream is busy for {seconds(split.busy_s)}, the longest path through the "
        f"graph takes {seconds(critical_path_s(found, split))}."
    )
    one, nas = bench.analysis("googlenet"), bench.analysis("nasnetalarge")
    yield (
        f"At batch 1 parallel branches do not even run in parallel: GoogLeNet starts {one.totals.kernels} kernels "
        f"one behind the other in {seconds(one.latency)}, NASNet-A large {nas.totals.kernels:,} in "
        f"{seconds(nas.latency)}."
    )


def _caches(bench: Bench) -> Iterator[str]:
    found = bench.analysis("resnet50")
    level = found.hardware.memory_level("l2")
    size = level.capacity_bytes or 0.0
    rows = [row for row in found.rows() if row.activation_bytes]
    fitting = [row for row in rows if row.activation_bytes <= size / 2]
    many = [row for row in bench.analysis("resnet50", batch=BATCH).rows() if 0 < row.activation_bytes <= size / 2]
    gains = {b: -bench.split(bench.analysis("resnet50", batch=b)).seconds("cache_hits") for b in (1, BATCH)}
    yield (
        f"The A100's L2 holds {size / 1e6:.0f} MB. At batch 1 the outputs of {len(fitting)} of ResNet-50's "
        f"{len(rows)} layers fit into half of it and are still there when the next operator reads them: "
        f"{seconds(gains[1])} less than if all came from memory. At batch {BATCH} {len(many)} fit, and the gain of a "
        f"picture is {percent(gains[BATCH] / BATCH / gains[1])} of that."
    )
    if level.bandwidth_bytes_per_s:
        factor = level.bandwidth_bytes_per_s / found.hardware.dram_bytes_per_s
        yield (
            "The claim's 50 to 100 times are latencies of a core's own cache; between this L2 and DRAM the "
            f"bandwidths are {factor:.1f} times apart."
        )
    else:
        yield (
            "The 50 to 100 times of the claim are latencies of a core's own cache against DRAM; kernels that stream "
            "whole tensors meet the L2's bandwidth instead."
        )


def _channels(bench: Bench) -> Iterator[str]:
    for title, name in (("MobileNet V2", "mobilenet_v2"), ("GhostNet", "ghostnet"), ("ResNet-50", "resnet50")):
        said = said_by(bench, run(bench, name), "channels_fill_no_tile")
        lost, share = channel_loss(bench, run(bench, name))
        if said:
            yield f"{title}: {said.message}."
        else:
            yield f"{title}: {seconds(lost)} ({percent(share)}){_where(bench, run(bench, name))}."


def channel_loss(bench: Bench, analysis: Analysis) -> tuple[float, float]:
    """Seconds that a step loses to tiles that channels do not fill, and their share of it."""
    lost = bench.split(analysis).seconds("channels")
    return lost, lost / analysis.latency


def _where(bench: Bench, analysis: Analysis) -> str:
    """The operator that loses most of it, with its channels."""
    nodes = next((share.nodes for share in bench.split(analysis).causes if share.cause == "channels"), ())
    if not nodes:
        return ""
    node = analysis.bound.nodes[nodes[0][0]]
    weight = analysis.bound.arguments(analysis.bound.calls[node.call]).get("weight")
    shape = getattr(weight, "shape", None)
    return f", most in {node.module or node.name}" + (f", which reads {shape[1]} channels" if shape else "")


#: Pictures a second on an A100 (Yu et al.: InceptionNeXt, arXiv:2303.16900, table 1): ConvNeXt-T, InceptionNeXt-T.
PUBLISHED_RATES = (2413, 2900)


def next_pair(bench: Bench) -> dict[str, Analysis]:
    """ConvNeXt-T and InceptionNeXt-T in TF32 at batch 128, each in the better layout, as the paper measured them."""
    best = {}
    for title, name in (("ConvNeXt-T", "convnext_tiny"), ("InceptionNeXt-T", "inception_next_tiny")):
        layouts = [bench.analysis(name, batch=128, dtype="tf32", layout=layout) for layout in ("nchw", "nhwc")]
        best[title] = min(layouts, key=lambda a: a.latency)
    return best


def _large_kernels(bench: Bench) -> Iterator[str]:
    best = next_pair(bench)
    convnext = best["ConvNeXt-T"]
    macs = [a.totals.macs / 128 / 1e9 for a in best.values()]
    rates = [128 / a.latency for a in best.values()]
    share = time_share(bench, convnext, "depthwise convolution")
    published = PUBLISHED_RATES
    off = [rate / told - 1 for rate, told in zip(rates, published, strict=True)]
    yield (
        f"ConvNeXt-T has {macs[0]:.2f} GMAC, InceptionNeXt-T {macs[1]:.2f} ({more(macs[1] / macs[0])}). Published on "
        f"an A100: {published[0]:,} and {published[1]:,} pictures/s, {published[1] / published[0]:.2f} times; "
        f"predicted (TF32, batch 128, the better layout) {rates[0]:,.0f} and {rates[1]:,.0f} ({off[0]:+.0%} and "
        f"{off[1]:+.0%}), {rates[1] / rates[0]:.2f} times."
    )
    yield (
        f"ConvNeXt's 7x7 depthwise convolutions have {percent(share[0])} of its FLOPs and take {percent(share[1])} "
        "of its time; InceptionNeXt convolves three eighths of the channels, with bands of 1x11 and 11x1 and a 3x3, "
        "and passes the rest on."
    )
    for title, analysis in best.items():
        said = said_by(bench, analysis, "large_kernel_depthwise")
        if said is not None:
            squares = title == "ConvNeXt-T"  # the other one is what the change would make of it
            change = f" To change it: {said.change}." if said.change and squares else ""
            yield f"{title}: {said.message}.{change}"


def _beats(bench: Bench) -> Iterator[str]:
    cases = (
        ("ResNet-50 in fp32 on a V100, batch 64", bench.analysis("resnet50", hw="v100-sxm-16gb", batch=BATCH)),
        ("VGG-16 in fp32 on a V100, batch 64", bench.analysis("vgg16", hw="v100-sxm-16gb", batch=BATCH)),
        ("ResNet-50 in fp32 on an A100, batch 1", bench.analysis("resnet50")),
    )
    for title, analysis in cases:
        said = said_by(bench, analysis, "beats_the_roofline")
        if said is not None:
            yield f"{title}: {said.message}."
    vgg = cases[1][1]
    kinds, split = kind_of(vgg), bench.split(vgg)
    wins = [kinds[vgg.bound.nodes[p.node].name] for p in split.parts if p.cause == "winograd" and p.seconds < 0]
    if wins:
        yield (
            f"In VGG-16 {len(wins)} convolutions run as Winograd or FFT there, with fewer multiplications than their "
            "FLOPs count: measured against the direct convolution's FLOPs they beat the roof."
        )


#: number -> (title, passage).
PASSAGES = {
    "D1": ("ResNet-50-D has 12 % more FLOPs than -A; is it only 3 % slower?", _resnet_d),
    "D2": ("A 1x1 convolution is a GEMM without im2col", _pointwise),
    "D3": ("Depthwise convolutions: few FLOPs, poor speed", _depthwise),
    "D4": ("Element-wise operators are free in FLOPs and not in time", _elementwise),
    "D5": ("ShuffleNet V2's guidelines", _guidelines),
    "D6": ("Fragments and parallel branches", _fragments),
    "D7": ("A cache is faster than DRAM: which tensors stay there", _caches),
    "D8": ("Channels that fill their tiles", _channels),
    "D9": ("ConvNeXt and InceptionNeXt: large depthwise windows", _large_kernels),
    "D10": ("Measurements that beat the roofline", _beats),
}
