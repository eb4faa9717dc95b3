"""Section D as a table: claims about speed, what is predicted, and whether it bears them out."""

from __future__ import annotations

from collections.abc import Iterator

from costmodel.studies import resnet_abcd, shufflenetv2_guidelines
from costmodel.studies.bench import Bench, critical_path_s
from costmodel.studies.claim_lines import Line
from costmodel.studies.section_d import BATCH, PUBLISHED_RATES, channel_loss, next_pair, run, said_by, time_share
from costmodel.studies.words import listed, more, percent, seconds, slower

__all__ = ["lines"]

#: A ratio of times within this of the published one agrees [1].
CLOSE = 0.1
#: A ratio of speeds that another framework measured agrees where both predictions are within this factor of it [1].
WITHIN = 1.5


def lines(bench: Bench) -> list[Line]:
    """D1 to D10; unless it says otherwise on an A100, batch 64, autocast fp16, channels_last."""
    return [*_more_flops(bench), *_shares(bench), *_guidelines(bench), *_machine(bench), *_next(bench), *_beats(bench)]


def _more_flops(bench: Bench) -> Iterator[Line]:
    flops, one = resnet_abcd.ratios(bench, "a100", 1)
    _, many = resnet_abcd.ratios(bench, "a100", 256)
    yield Line(
        number="D1", claim="ResNet-50-D over -A", published="12 to 13 % more FLOPs, 3 % slower",
        ours=f"{more(flops)} FLOPs; {slower(one)} at batch 1, {slower(many)} at batch 256",
        agrees=many < 1.03 + CLOSE / 2, counts=False, derivation="holds only while the GPU waits for the host",
    )  # fmt: skip
    said = said_by(bench, run(bench, "resnet50"), "pointwise_against_window")
    rates = said.evidence if said else {"pointwise_s_per_gflop": 0.0, "window_s_per_gflop": 0.0}
    point, window = float(rates["pointwise_s_per_gflop"]), float(rates["window_s_per_gflop"])
    yield Line(
        number="D2", claim="1x1 convolution against 3x3 of equal FLOPs", published="1x1 is faster",
        ours=f"{seconds(point)} against {seconds(window)} a GFLOP" if said else "as fast",
        agrees=bool(said) and point < window,
        counts=False, derivation="true where the im2col matrix is stored; here it never is",
    )  # fmt: skip


def _shares(bench: Bench) -> Iterator[Line]:
    for number, claim, published, name, kinds in (
        (
            "D3",
            "depthwise convolutions of MobileNet V2",
            "few FLOPs, poor speed",
            "mobilenet_v2",
            ("depthwise convolution",),
        ),
        (
            "D4",
            "element-wise and normalization in ResNet-50",
            "no FLOPs, but time",
            "resnet50",
            ("element-wise", "normalization"),
        ),
    ):
        flops, time = time_share(bench, run(bench, name), *kinds)
        yield Line(
            number=number, claim=claim, published=published,
            ours=f"{percent(flops)} of the FLOPs, {percent(time)} of the time", agrees=time > 2 * flops, counts=False,
            derivation="FLOP/B far below the ridge point",
        )  # fmt: skip


def _guidelines(bench: Bench) -> Iterator[Line]:
    for case in shufflenetv2_guidelines.CASES:
        ours = (shufflenetv2_guidelines.speed(bench, case), shufflenetv2_guidelines.speed(bench, case, on_device=True))
        off = [shufflenetv2_guidelines.off_by(value, case.measured) for value in ours]
        yield Line(
            number="D5", claim=f"{case.guideline}: {case.what}, equal FLOPs, GTX 1080Ti",
            published=f"{shufflenetv2_guidelines.measured_text(case.measured)} times the speed",
            ours=f"{ours[0]:.2f} in PyTorch, {ours[1]:.2f} of the GPU alone", agrees=max(off) < WITHIN, counts=False,
            derivation=f"{_direction(ours, case.measured)}; off by {off[0]:.2f} and {off[1]:.2f} times",
        )  # fmt: skip


def _direction(ours: tuple[float, float], measured: tuple[float, ...]) -> str:
    same = all((value < 1) == (measured[0] < 1) for value in ours)
    return "the right direction" if same else "not the same direction"


def _machine(bench: Bench) -> Iterator[Line]:
    google = run(bench, "googlenet")
    path = critical_path_s(google, bench.split(google))
    yield Line(
        number="D6", claim="parallel branches (GoogLeNet)", published="run one behind the other",
        ours=f"{seconds(google.latency)}; the longest path alone {seconds(path)}", agrees=path < 0.9 * google.latency,
        counts=False, derivation="the critical path of the graph against the sum over its operators",
    )  # fmt: skip
    machine = google.hardware
    factor = (machine.memory_level("l2").bandwidth_bytes_per_s or 0.0) / machine.dram_bytes_per_s
    yield Line(
        number="D7", claim="a cache is faster than DRAM", published="50 to 100 times",
        ours=f"L2 {factor:.1f} times in bandwidth",
        agrees=factor >= 50, counts=False, derivation="the claim is of latencies of a core's own cache; kernels stream",
    )  # fmt: skip
    losses = {name: channel_loss(bench, run(bench, name)) for name in ("mobilenet_v2", "resnet50")}
    told = [f"{title} {seconds(losses[name][0])} ({percent(losses[name][1])})" for title, name in
            (("MobileNet V2", "mobilenet_v2"), ("ResNet-50", "resnet50"))]  # fmt: skip
    yield Line(
        number="D8", claim="channel counts that are multiples of 8 run at full speed", published="yes",
        ours=f"lost to tiles that channels do not fill: {listed(told)}",
        agrees=losses["mobilenet_v2"][1] < 0.01,
        counts=False, derivation="MobileNet V2's widths are multiples of 8; a GPU's tiles are 64 wide and wider",
    )  # fmt: skip


def _next(bench: Bench) -> Iterator[Line]:
    rates = [128 / analysis.latency for analysis in next_pair(bench).values()]
    told, ours = PUBLISHED_RATES[1] / PUBLISHED_RATES[0], rates[1] / rates[0]
    yield Line(
        number="D9", claim="InceptionNeXt-T over ConvNeXt-T, pictures/s, A100",
        published=f"{PUBLISHED_RATES[1]:,} / {PUBLISHED_RATES[0]:,} = {told:.2f}",
        ours=f"{rates[1]:,.0f} / {rates[0]:,.0f} = {ours:.2f}",
        agrees=abs(ours / told - 1) < CLOSE, counts=False,
        derivation="large depthwise windows are slow; by how much is off",
    )  # fmt: skip


def _beats(bench: Bench) -> Iterator[Line]:
    vgg = bench.analysis("vgg16", hw="v100-sxm-16gb", batch=BATCH)
    gain = -bench.split(vgg).seconds("winograd")
    cached = -bench.split(bench.analysis("resnet50")).seconds("cache_hits")
    yield Line(
        number="D10", claim="measurements that beat the roofline", published="Winograd, caches, TF32",
        ours=f"VGG-16 on a V100: Winograd {seconds(gain)}; ResNet-50 on an A100, batch 1: L2 {seconds(cached)}",
        agrees=gain > 0 and cached > 0, counts=False,
        derivation="multiplications that Winograd spares, and traffic that the cache serves",
    )  # fmt: skip
