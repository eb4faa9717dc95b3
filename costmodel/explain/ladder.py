"""From FLOPs alone to the time of one kernel, rung by rung.

A rung is (cause, seconds of the kernel once this cause is taken into account). The difference between two rungs is the
cause's part, so that the parts add up to the kernel's time whatever the rungs say. Rungs inside the arithmetic are
found by asking the time model again, with the effect removed: the same product with channels rounded up to 64, a large
product that fills every unit, a convolution held to implicit GEMM.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from costmodel.explain.causes import CONTRACTIONS, MOVED_FOR_THE_KERNEL, cause_of
from costmodel.hardware import HardwareProfile
from costmodel.kernels import Kernel
from costmodel.kernels.shapes import Attention, Convolution, Product, Window, product_of
from costmodel.timing.convolution import convolution_time
from costmodel.timing.gpu import gpu_kernel_time, gpu_model
from costmodel.timing.timeline import KernelSeconds

__all__ = ["Rung", "device_rungs", "differences", "own_peak_s", "parts_rungs", "units_rung"]

Rung = tuple[str, float]

#: Channels that every library's tiles divide [elements].
ALIGNED = 64


def differences(start: float, rungs: Sequence[Rung]) -> dict[str, float]:
    """Seconds by cause: each rung's step up from the one before, from ``start``; they add to the last rung less it.

    >>> differences(1.0, [("tiles", 3.0), ("cache_hits", 2.5), ("tiles", 4.0)])
    {'tiles': 3.5, 'cache_hits': -0.5}
    """
    found: dict[str, float] = {}
    level = start
    for cause, seconds in rungs:
        if seconds != level:
            found[cause] = found.get(cause, 0.0) + seconds - level
        level = seconds
    return found


def own_peak_s(kernel: Kernel, hardware: HardwareProfile) -> float:
    """Seconds of the kernel's contractions at the peak of the units that they run on."""
    if not kernel.matrix_flops:
        return 0.0
    peak = hardware.find_peak(kernel.engine, kernel.dtype, kernel.accumulate) or hardware.peak("vector", "fp32")
    return kernel.matrix_flops / peak.flop_per_s


def units_rung(kernel: Kernel, hardware: HardwareProfile, alone_s: float, flop_per_s: float) -> list[Rung]:
    """What FLOPs alone say once a contraction is counted at the peak of its own units instead of ``flop_per_s``."""
    elsewhere = own_peak_s(kernel, hardware) - kernel.matrix_flops / flop_per_s
    return [("other_units", alone_s + elsewhere)] if elsewhere else []


def device_rungs(
    kernel: Kernel, hardware: HardwareProfile, alone_s: float, flop_per_s: float, memory_share: float
) -> list[Rung]:
    """Rungs of a GPU kernel, up to its time on the device. Seconds.

    ``alone_s`` is what its FLOPs alone say, at ``flop_per_s``; ``memory_share`` of its memory time DRAM serves, the
    rest L2.
    """
    part = gpu_kernel_time(kernel, hardware)
    cause = cause_of(kernel)
    direct = _direct(kernel, hardware) if kernel.algorithm in CONTRACTIONS else None
    body = direct or part
    if kernel.algorithm in CONTRACTIONS:
        units = units_rung(kernel, hardware, alone_s, flop_per_s)
        rungs = _joined([*units, *_arithmetic(kernel, hardware, body.compute_s)], body, alone_s)
    else:
        rungs = [(cause, part.seconds() - part.fixed_s)]
    extra = part.fixed_s - body.fixed_s  # kernels before and after a transformed convolution
    if direct is not None:
        rungs.append(("winograd", part.seconds() - body.fixed_s))
    rungs.append(("cache_hits", part.seconds(memory_share) - part.fixed_s + extra))
    rungs.append((cause if cause in MOVED_FOR_THE_KERNEL else "fixed", part.seconds(memory_share)))
    return rungs


def _joined(arithmetic: list[Rung], part: KernelSeconds, alone_s: float) -> list[Rung]:
    """Rungs of a contraction: what binds comes first, so that waste which memory traffic hides is not blamed."""
    if part.memory_s <= part.compute_s:
        return [*arithmetic, ("contraction_memory", part.seconds() - part.fixed_s)]

    def over_memory(compute_s: float) -> float:
        return KernelSeconds(compute_s, part.memory_s, 0.0, part.overlap).seconds()

    return [
        ("contraction_memory", over_memory(alone_s)),
        *((cause, over_memory(seconds)) for cause, seconds in arithmetic),
    ]


def _direct(kernel: Kernel, hardware: HardwareProfile) -> KernelSeconds | None:
    """The same convolution by implicit GEMM, where the library takes Winograd or FFT; None where it does not."""
    shape, machine = kernel.shape, gpu_model(hardware).machine
    if kernel.engine == "matrix" or "implicit_gemm" not in kernel.algorithm:
        return None
    if not isinstance(shape, Convolution) or shape.window is None:
        return None
    if convolution_time(shape.window, machine=machine).algorithm == "implicit_gemm":
        return None
    found = convolution_time(shape.window, machine=machine, algorithms=("implicit_gemm",))
    return KernelSeconds(found.compute_s, found.memory_s, found.fixed_s, serial_s=found.transform_s)


def _arithmetic(kernel: Kernel, hardware: HardwareProfile, compute_s: float) -> list[Rung]:
    """Rungs of a contraction's arithmetic on its own units, up to ``compute_s``."""
    if not _has_tiles(kernel):
        return [("achievable", compute_s)]
    own, packed = own_peak_s(kernel, hardware), _packing(kernel)
    rungs = [("grouping", own * packed)] if packed > 1 else []
    best = own * packed / roof_share(kernel.algorithm, kernel.engine, kernel.dtype, kernel.accumulate, hardware)
    aligned = min(_aligned_s(kernel, hardware, compute_s), compute_s)
    return [*rungs, ("achievable", best), ("tiles", aligned), ("channels", compute_s)]


def _has_tiles(kernel: Kernel) -> bool:
    """Whether the kernel works tile by tile: attention, and products but for those with a vector."""
    product = product_of(kernel.shape)
    return isinstance(kernel.shape, Attention) or (product is not None and not product.is_vector)


def _packing(kernel: Kernel) -> float:
    """Multiplications that a tensor-core kernel of narrow groups makes, over those that count."""
    product = product_of(kernel.shape)
    if kernel.algorithm != "grouped_implicit_gemm" or kernel.engine != "matrix" or product is None:
        return 1.0
    return max(2.0 * product.macs / max(kernel.matrix_flops, 1), 1.0)


def _up(value: int, step: int = ALIGNED) -> int:
    return -(-value // step) * step


def _aligned_s(kernel: Kernel, hardware: HardwareProfile, compute_s: float) -> float:
    """Arithmetic of the same work at the rate that channels rounded up to 64 reach."""
    shape = kernel.shape
    if isinstance(shape, Attention):  # the head's width is the channels
        wider, work = replace(kernel, shape=replace(shape, width=_up(shape.width))), _up(shape.width) / shape.width
    elif isinstance(shape, Convolution) and shape.window is not None and _has_windows(kernel):
        window = shape.window
        more = _up(window.out_channels // window.groups) * window.groups
        wider = replace(kernel, shape=replace(shape, window=replace(window, out_channels=more)))
        found = _direct(wider, hardware) or gpu_kernel_time(wider, hardware)
        return found.compute_s / (more / window.out_channels)
    else:
        product = product_of(shape)
        assert product is not None  # noqa: S101 - asked by the caller
        rounded = replace(product, n=_up(product.n), k=_up(product.k))
        wider = replace(kernel, shape=replace(shape, product=rounded) if isinstance(shape, Convolution) else rounded)
        work = rounded.n * rounded.k / (product.n * product.k)
    return gpu_kernel_time(wider, hardware).compute_s / work if work > 1 else compute_s


def _has_windows(kernel: Kernel) -> bool:
    """Whether the time of a convolution is that of its window, and not of a product on matrix units."""
    return kernel.engine != "matrix" and "implicit_gemm" in kernel.algorithm


@lru_cache(maxsize=256)
def roof_share(algorithm: str, engine: str, dtype: str, accumulate: str, hardware: HardwareProfile) -> float:
    """Share of the peak that the best of some large, well shaped kernels of an algorithm is predicted to reach [1]."""
    base = Kernel(op="", algorithm=algorithm, engine=engine, dtype=dtype, accumulate=accumulate)
    shares = []
    for large in _large_kernels(base, hardware.unit_count):
        found = _direct(large, hardware) or gpu_kernel_time(large, hardware)
        shares.append(own_peak_s(large, hardware) / found.compute_s)
    return max(shares)


def _large_kernels(base: Kernel, units: int) -> Iterator[Kernel]:
    """Kernels whose tiles fill every unit for many rounds."""
    if "attention" in base.algorithm:
        yield replace(base, shape=Attention(8192, 8192, 128, units), matrix_flops=4 * 8192 * 8192 * 128 * units)
        return
    for channels in (256, 512, 1024):
        shape: Product | Convolution
        if "implicit_gemm" in base.algorithm:  # 3x3 on 64x64 maps, one image a unit
            product = Product(units * 64 * 64, channels, 9 * channels)
            shape = Convolution(product, Window(batch=units, in_channels=channels, height=64, width=64,
                                                out_channels=channels, kernel=(3, 3), padding=(1, 1)))  # fmt: skip
        elif "batched" in base.algorithm:
            shape = product = Product(channels, 1024, 4096, units)
        else:
            shape = product = Product(256 * units, 1024, 8 * channels)
        yield replace(base, shape=shape, matrix_flops=2 * product.macs)


def parts_rungs(
    kernel: Kernel,
    hardware: HardwareProfile,
    alone_s: float,
    flop_per_s: float,
    part: KernelSeconds,
    dry: KernelSeconds,
    uncached: KernelSeconds,
) -> Iterator[Rung]:
    """Rungs of a CPU kernel from its parts as they are, without page faults, and without caches besides."""
    cause = cause_of(kernel)
    if kernel.algorithm in CONTRACTIONS and uncached.compute_s:
        waste = "im2col" if kernel.algorithm == "im2col_gemm" else "achievable"
        units = units_rung(kernel, hardware, alone_s, flop_per_s)
        yield from _joined([*units, (waste, uncached.compute_s)], uncached, alone_s)
    else:
        yield cause, uncached.seconds() - uncached.fixed_s
    yield "cache_hits", dry.seconds() - dry.fixed_s
    yield "page_faults", part.seconds() - part.fixed_s
    yield "framework", part.seconds()
