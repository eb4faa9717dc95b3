"""Rules about convolutions: the same FLOPs cost differently by depth, groups, channels, padding and window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from typing import Any

from costmodel.explain.case import Case, Started
from costmodel.explain.causes import cause_of
from costmodel.explain.rule import Finding, listed, rule
from costmodel.kernels import Kernel
from costmodel.kernels.shapes import Attention, Convolution, Depthwise, Product, Window, product_of
from costmodel.units import format_percent, format_quantity, format_seconds

__all__ = ["padding_share"]


@rule("depthwise_low_intensity")
def depthwise(case: Case) -> Iterator[Finding]:
    """A depthwise convolution does K^2 MACs for each element that it moves: far left of the ridge point."""
    starts = [s for s in case.starts if cause_of(s.kernel) == "depthwise"]
    seconds = {start.node: start.seconds for start in starts}
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    share = case.flop_share(nodes)
    if not case.matters(stake) or stake / case.split.busy_s <= share:
        return
    flops, nbytes = (sum(getattr(s.kernel, name) for s in starts) for name in ("matrix_flops", "bytes"))
    intensity, hardware = flops / max(nbytes, 1), case.analysis.hardware
    ridge = hardware.ridge_point("vector", "fp32")
    yield Finding(
        rule="depthwise_low_intensity",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(nodes):,} depthwise convolutions have {format_percent(share)} of the FLOPs and take "
        f"{case.of_step(stake)}: {intensity:.1f} FLOP/B, the ridge of the vector "
        f"lanes is at {ridge:.0f}",
        evidence={"flop_share": share, "intensity_flop_per_byte": intensity, "ridge_flop_per_byte": ridge},
        **(_faster_depthwise(case) if hardware.family.half_depthwise else {}),
    )


def _faster_depthwise(case: Case) -> dict[str, Any]:
    """Change and saving: fewer bytes, or the kernel that cuDNN has for half precision in channels_last."""
    now = case.analysis.execution.precision
    half = str(now) if now.bits == 16 else "fp16"
    tried = {"half precision in channels_last takes cuDNN's depthwise kernel": {"dtype": half, "layout": "nhwc"}}
    if half != str(now):
        tried = {"half precision moves half the bytes": {"dtype": half}, **tried}
    savings = {change: case.cause_saving_s("depthwise", **how) for change, how in tried.items()}
    known = {change: saved for change, saved in savings.items() if saved is not None}
    best = max(known, key=lambda change: known[change], default=None)
    return {} if best is None or known[best] <= 0 else case.on_device(best, known[best])


@rule("large_kernel_depthwise")
def large_kernel_depthwise(case: Case) -> Iterator[Finding]:
    """Depthwise windows of 7x7 and more: many taps from cache, few FLOPs, kernels that libraries neglect."""
    large = {n for n, conv in case.convolutions.items() if conv.is_depthwise and max(conv.kernel) >= 7}
    seconds = case.device_s_of(large)
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    share = case.flop_share(nodes)
    if not case.matters(stake) or stake / case.split.busy_s <= share:
        return
    windows = sorted({"x".join(map(str, case.convolutions[node].kernel)) for node in nodes})
    rate = sum(s.kernel.matrix_flops for s in case.starts if s.node in large) / stake
    small, saved = _with_3x3(case, nodes)
    yield Finding(
        rule="large_kernel_depthwise",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(nodes):,} depthwise convolutions with windows of {', '.join(windows)} have "
        f"{format_percent(share)} of the FLOPs and take {case.of_step(stake)}, at "
        f"{format_quantity(rate, 'FLOP/s')}",
        evidence={"flop_share": share, "flop_per_s": rate, "as_3x3_s": small if small is not None else "not evaluated"},
        **case.on_device("windows of 3x3 (InceptionNeXt keeps large ones for an eighth of the channels)", saved),
    )


def _with_3x3(case: Case, nodes: list[int]) -> tuple[float | None, float | None]:
    """Seconds of depthwise kernels were their windows 3x3, and what that saves; None where kernels have no own time."""
    if not case.times_kernels:
        return None, None
    now = small = 0.0
    for start in case.starts:
        if start.node in nodes and cause_of(start.kernel) == "depthwise":
            height, width = case.convolutions[start.node].kernel
            kernel = replace(start.kernel, matrix_flops=start.kernel.matrix_flops * 9 // (height * width))
            if isinstance(kernel.shape, Convolution) and kernel.shape.depthwise is Depthwise.NHWC_LARGE:
                kernel = replace(kernel, shape=replace(kernel.shape, depthwise=Depthwise.NHWC))
            now, small = now + case.kernel_s(start.kernel), small + case.kernel_s(kernel)
    return small, now - small


@rule("grouped_convolution")
def grouped(case: Case) -> Iterator[Finding]:
    """Groups divide the FLOPs and leave the traffic: less arithmetic for each byte, narrower products."""
    some = {n for n, conv in case.convolutions.items() if conv.groups > 1 and not conv.is_depthwise}
    seconds = case.device_s_of(some)
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake) or not case.times_kernels:
        return
    starts = [s for s in case.starts if s.node in some and s.kernel.matrix_flops]
    grouped_s = sum(case.kernel_s(s.kernel) for s in starts)
    dense_s = sum(case.kernel_s(_dense(s.kernel, case.convolutions[s.node])) for s in starts)
    if dense_s >= grouped_s:
        return
    groups = sorted({case.convolutions[node].groups for node in nodes})
    yield Finding(
        rule="grouped_convolution",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(nodes):,} convolutions in {' or '.join(map(str, groups))} groups take {case.of_step(stake)}"
        f"; dense ones of the same FLOPs, with channels / sqrt(groups), would take "
        f"{format_seconds(dense_s)} for their {format_seconds(grouped_s)}",
        evidence={"grouped_s": grouped_s, "dense_of_equal_flops_s": dense_s},
        **case.on_device("dense convolutions of fewer channels, at the same FLOPs", grouped_s - dense_s),
    )


def _dense(kernel: Kernel, conv: Window) -> Kernel:
    """A convolution without groups of the same FLOPs: channels over sqrt(groups), maps and window as they are."""
    narrower = sqrt(conv.groups)
    wide_in, wide_out = (max(round(c / narrower), 1) for c in (conv.in_channels, conv.out_channels))
    taps = conv.kernel[0] * conv.kernel[1]
    pixels = kernel.matrix_flops * conv.groups // max(2 * conv.in_channels * conv.out_channels * taps, 1)
    window = kernel.shape.window if isinstance(kernel.shape, Convolution) else None
    if window is not None:
        window = replace(window, in_channels=wide_in, out_channels=wide_out, groups=1)
    return replace(
        kernel,
        algorithm="gemm" if taps == 1 and conv.stride == (1, 1) else "implicit_gemm",
        shape=Convolution(Product(pixels, wide_out, wide_in * taps), window),
        matrix_flops=2 * pixels * wide_out * wide_in * taps,
        bytes_read=round(kernel.bytes_read / narrower),
        bytes_written=round(kernel.bytes_written / narrower),
    )


@rule("stem_of_few_channels")
def stem(case: Case) -> Iterator[Finding]:
    """Convolutions of 3 colours: large maps, short sums, tiles that the few channels do not fill."""
    few = {n for n, conv in case.convolutions.items() if conv.in_channels <= 4 and conv.kernel != (1, 1)}
    seconds = case.device_s_of(few)
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    share = case.flop_share(nodes)
    if not case.matters(stake) or stake / case.split.busy_s < 1.5 * share:
        return
    channels = sorted({case.convolutions[node].in_channels for node in nodes})
    copied = sum(case.split.by_node.get(node, {}).get("layout", 0.0) for node in nodes)
    yield Finding(
        rule="stem_of_few_channels",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))} with {' or '.join(map(str, channels))} input channels has "
        f"{format_percent(share)} of the FLOPs and {format_percent(stake / case.split.busy_s)} of the time on the "
        f"device, {format_seconds(stake)}"
        + (f", {format_seconds(copied)} of it copies into the kernel's layout" if copied else ""),
        evidence={"flop_share": share, "layout_s": copied},
        **(case.in_channels_last() if copied else {}),
    )


@rule("channels_fill_no_tile")
def channels(case: Case) -> Iterator[Finding]:
    """Channel counts that are no multiple of the libraries' tiles pay for the channels that are missing."""
    seconds = {n: parts["channels"] for n, parts in case.split.by_node.items() if parts.get("channels", 0.0) > 0}
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    starts = [s for s in case.starts if s.node in seconds and _columns(s.kernel) and s.kernel.matrix_flops]
    whole = sum(start.seconds for start in starts)
    now = sum(case.kernel_s(start.kernel) for start in starts)
    wider = [_rounded(start.kernel, up=True) for start in starts]
    more_s = sum(map(case.kernel_s, wider)) - now
    work = sum(k.matrix_flops for k in wider) / max(sum(s.kernel.matrix_flops for s in starts), 1) - 1
    fewer_s = now - sum(min(case.kernel_s(s.kernel), case.kernel_s(_rounded(s.kernel, up=False))) for s in starts)
    counts = sorted({_columns(start.kernel) for start in starts})
    longer = (
        f"{format_seconds(more_s)} more" if abs(more_s) > 1e-6 * now else "as long"
    )  # not what sums of floats leave
    yield Finding(
        rule="channels_fill_no_tile",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))}: {format_percent(stake / whole)} of {format_seconds(whole)} is tiles "
        f"that {listed(list(map(str, counts)), 4)} channels do not fill, {format_seconds(stake)}; rounded up to "
        f"multiples of 64 the same kernels take {longer} for {format_percent(work)} more FLOPs",
        evidence={"rounded_up_more_s": more_s, "rounded_up_more_flops": work, "rounded_down_less_s": fewer_s},
        **case.on_device("widths rounded down to multiples of 32", fewer_s),
    )


def _columns(kernel: Kernel) -> int:
    """Output channels of a product or convolution, the width of an attention head; 0 for other kernels."""
    if isinstance(kernel.shape, Attention):
        return kernel.shape.width
    product = product_of(kernel.shape)
    return product.n if product is not None else 0


def _rounded(kernel: Kernel, *, up: bool) -> Kernel:
    """The kernel with its output channels rounded: up to multiples of 64, or down to multiples of 32."""
    n, shape = _columns(kernel), kernel.shape
    count = -(-n // 64) * 64 if up else max(n // 32 * 32, min(n, 32))
    if isinstance(shape, Attention):
        shape = replace(shape, width=count)
    elif isinstance(shape, Convolution):
        window = shape.window and replace(shape.window, out_channels=shape.window.out_channels * count // n)
        shape = replace(shape, product=replace(shape.product, n=count), window=window)
    elif isinstance(shape, Product):
        shape = replace(shape, n=count)
    return replace(
        kernel, shape=shape, matrix_flops=kernel.matrix_flops * count // n,
        bytes_written=kernel.bytes_written * count // n,
    )  # fmt: skip


@rule("tiles_and_waves")
def tiles(case: Case) -> Iterator[Finding]:
    """Products that are too small to fill every unit, or just too large for a whole number of waves."""
    seconds = {n: parts["tiles"] for n, parts in case.split.by_node.items() if parts.get("tiles", 0.0) > 0}
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake, 0.05):
        return
    whole, batch = sum(case.device_s[node] for node in nodes), case.analysis.execution.batch
    units = case.analysis.hardware.unit_count
    yield Finding(
        rule="tiles_and_waves",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{len(nodes):,} convolutions and products lose {format_seconds(stake)} of their "
        f"{format_seconds(whole)} to partial tiles, last waves that leave some of {units} units idle, and epilogues, "
        f"most in {listed(case.names(nodes))}",
        evidence={"share_of_kernels": stake / whole},
        **case.on_device(f"batch {2 * batch} fills more of each wave", case.cause_saving_s("tiles", batch=2 * batch)),
    )


@rule("pointwise_against_window")
def pointwise(case: Case) -> Iterator[Finding]:
    """A 1x1 convolution is a matrix product on the input as it lies; a k x k one must gather windows first."""
    dense = {
        n: c for n, c in case.convolutions.items() if c.groups == 1 and c.in_channels >= 16 and c.out_size != (1, 1)
    }
    kinds = {True: set[int](), False: set[int]()}
    for node, conv in dense.items():
        kinds[conv.is_pointwise].add(node)
    flops = {kind: case.flops(nodes) for kind, nodes in kinds.items()}
    seconds = {kind: case.device_s_of(nodes) for kind, nodes in kinds.items()}
    if not flops[True] or not flops[False]:
        return
    rates = {kind: sum(seconds[kind].values()) / flops[kind] for kind in kinds}
    slower = rates[True] > rates[False]  # of the two kinds, which: True for 1x1
    stake = (rates[slower] - rates[not slower]) * flops[slower]
    if not case.matters(stake, 0.02) or rates[slower] < 1.1 * rates[not slower]:
        return
    nodes = case.by_stake(seconds[slower])
    copied = sum(case.split.by_node[node].get("layout", 0.0) for node in kinds[False] if node in case.split.by_node)
    yield Finding(
        rule="pointwise_against_window",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"on 16 channels and more a GFLOP of 1x1 convolutions takes {format_seconds(1e9 * rates[True])}, of "
        f"wider windows {format_seconds(1e9 * rates[False])}: {_why_slower(case, slower, copied)}; "
        f"{format_seconds(stake)} at equal rates",
        evidence={"pointwise_s_per_gflop": 1e9 * rates[True], "window_s_per_gflop": 1e9 * rates[False]},
    )


def _why_slower(case: Case, pointwise_slower: bool, copied: float) -> str:
    if pointwise_slower:
        return "each element moved is multiplied by one tap only, so memory and short sums bind first"
    if copied:
        return f"windows want another layout, and {format_seconds(copied)} of copies with it"
    return "windows are gathered, 1x1 reads its matrix as it lies"


def padding_share(conv: Window) -> float:
    """Share of a convolution's MACs that multiply padding [1], counted position by position.

    >>> pixel = Window(batch=1, in_channels=8, height=1, width=1, out_channels=8, kernel=(3, 3), padding=(1, 1))
    >>> padding_share(pixel)     # one of nine taps lies inside
    0.8888888888888888
    """
    inside = 1.0
    for axis in range(2):
        reach = conv.dilation[axis]
        taps = [
            out * conv.stride[axis] - conv.padding[axis] + tap * reach
            for out in range(conv.out_size[axis])
            for tap in range(conv.kernel[axis])
        ]
        inside *= sum(0 <= at < conv.in_size[axis] for at in taps) / len(taps)
    return 1 - inside


@rule("padding_multiplied")
def padding(case: Case) -> Iterator[Finding]:
    """Zeros around small maps are multiplied like any other number."""
    shares = {node: padding_share(conv) for node, conv in case.convolutions.items() if any(conv.padding)}
    shares = {node: share for node, share in shares.items() if share >= 0.1}
    seconds = {n: shares[n] * s for n, s in case.device_s_of(set(shares)).items()}
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    flops, whole = case.flops(nodes), sum(case.device_s[node] for node in nodes)
    lost = sum(shares[node] * case.flops([node]) for node in nodes) / max(flops, 1)
    worst = case.convolutions[max(nodes, key=lambda node: shares[node])]
    yield Finding(
        rule="padding_multiplied",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))}: {format_percent(lost)} of {format_quantity(flops, 'FLOP')} multiply "
        f"padding (up to {'x'.join(map(str, worst.kernel))} on {'x'.join(map(str, worst.in_size))} maps), "
        f"{format_seconds(stake)} of {format_seconds(whole)}",
        evidence={"share_of_flops": lost},
    )


@rule("dilation")
def dilation(case: Case) -> Iterator[Finding]:
    """A dilated convolution has the FLOPs of a plain one, and none of its fast algorithms."""
    some = [s for s in case.starts if _is_dilated(case, s)]
    if not some or not case.times_kernels:
        return
    seconds: dict[int, float] = {}
    for start in some:
        shape, conv = start.kernel.shape, case.convolutions[start.node]
        assert isinstance(shape, Convolution)  # noqa: S101 - _is_dilated asked
        height, width = (p // d for p, d in zip(conv.padding, conv.dilation, strict=True))
        window = shape.window and replace(shape.window, padding=(height, width), dilation=(1, 1))
        plain = replace(start.kernel, shape=replace(shape, window=window))
        seconds[start.node] = case.kernel_s(start.kernel) - case.kernel_s(plain)
    stake, nodes = sum(seconds.values()), case.by_stake(seconds)
    if not case.matters(stake):
        return
    yield Finding(
        rule="dilation",
        nodes=case.names(nodes),
        seconds_at_stake=stake,
        message=f"{listed(case.names(nodes))} are dilated: the same FLOPs without dilation run as Winograd or FFT, "
        f"{format_seconds(stake)} less",
        evidence={"convolutions": len(nodes)},
        change="two plain 3x3 convolutions reach as far as one of dilation 2 (another graph; not evaluated)",
    )


def _is_dilated(case: Case, start: Started) -> bool:
    conv = case.convolutions.get(start.node)
    shape = start.kernel.shape
    if conv is None or conv.dilation == (1, 1) or not isinstance(shape, Convolution) or shape.window is None:
        return False
    return bool(start.kernel.matrix_flops)
