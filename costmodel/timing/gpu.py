"""Time of one kernel on a GPU: the model that fits its algorithm, on the figures of the machine.

Every constant has a physical meaning, a unit and an origin; how well the whole does is in reports/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel
from costmodel.timing.clock import Clock
from costmodel.timing.convolution import ConvShape, convolution_time
from costmodel.timing.gemm import GEMM, gemm_time
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.timing.machine import GpuMachine
from costmodel.timing.streaming import LANE_CYCLES, PLAIN_LANE_CYCLES, RATE_CLASSES, streaming_time
from costmodel.timing.timeline import KernelSeconds

__all__ = ["GPU", "GpuConstants", "gpu_kernel_time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConstants:
    """Rates of kernels that neither stream nor multiply matrices; shares of the fp32 vector peak unless said.

    Depthwise convolutions, from families of timm models on RTX 3090 and 4090 that agree on both machines:
    ``depthwise_nhwc`` cuDNN's NHWC kernel up to 7x7, ``depthwise_nhwc_large`` beyond (its cliff), ``depthwise_nchw``
    cuDNN's NCHW kernel, ``depthwise_native`` PyTorch's own.
    """

    depthwise_nhwc: float = 0.21
    depthwise_nhwc_large: float = 0.014
    depthwise_nchw: float = 0.07
    depthwise_native: float = 0.045
    #: cuDNN's depthwise kernel for tensors beyond 32-bit indices fetches its window anew for each output [B a tap]:
    #: 100 ps an output of 3x3, on RTX 3090 and 4090 alike (EfficientNets, Xceptions; above 192 channels the 3090 is
    #: up to four times slower, for a reason not known).
    depthwise_wide_tap_bytes: float = 10.0
    #: Flash attention pads the head's width to this [elements] and adds this much work a row [elements].
    attention_width_step: int = 32
    attention_width_extra: int = 12
    attention_length_step: int = 64
    #: Share of the tensor-core peak that flash attention reaches.
    attention_efficiency: float = 0.97
    #: Average pooling: a thread walks the window of its output [lane cycles a tap]. Poolformers on RTX 3090 and 4090
    #: give 71 and 63 in NCHW, 40 and 40 in NHWC.
    pool_tap_cycles_nchw: float = 65.0
    pool_tap_cycles_nhwc: float = 40.0
    #: Bilinear up-sampling in NCHW: one thread a pixel walks all planes [s a plane].
    resample_plane_s: float = 0.265e-6


GPU = GpuConstants()


@lru_cache(maxsize=64)
def machines(hardware: HardwareProfile) -> tuple[GpuMachine, GemmMachine]:
    """The figures that the models read, derived once for each profile."""
    return GpuMachine.from_profile(hardware), GemmMachine.from_profile(hardware)


def gpu_kernel_time(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants | None = None) -> KernelSeconds:
    """Device time of ``kernel``, without the host's."""
    rule = _RULES.get(kernel.algorithm, _streaming)
    return rule(kernel, hardware, constants or GPU)


def _streaming(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants) -> KernelSeconds:
    machine, _ = machines(hardware)
    kind = kernel.access if kernel.access in RATE_CLASSES else "elementwise"
    elements = max(kernel.elements, 1)
    half = kernel.bytes_written <= 2 * elements  # two values an instruction
    found = streaming_time(
        kernel.bytes_read,
        kernel.bytes_written,
        elements=elements / 2 if half and not kernel.variant else elements,
        machine=machine,
        kind=kind,
        rows=elements / kernel.row_length if kernel.row_length else None,
        row_length=kernel.row_length or None,
        lane_cycles=_lane_cycles(kernel, constants),
    )
    return KernelSeconds(found.compute_s, found.memory_s, found.fixed_s * kernel.count, found.overlap)


def _lane_cycles(kernel: Kernel, constants: GpuConstants) -> float:
    """Lane cycles of one element put out."""
    if kernel.access == "pooling" and kernel.row_length:
        return kernel.row_length * float(getattr(constants, f"pool_tap_cycles_{kernel.variant}"))
    return LANE_CYCLES.get(kernel.op.removeprefix("aten."), PLAIN_LANE_CYCLES)


def _matrix_product(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants) -> KernelSeconds:
    if kernel.gemm is None:
        return _roofline(kernel, hardware, constants)
    _, machine = machines(hardware)
    m, n, k, batch = kernel.gemm
    found = gemm_time(
        m,
        n,
        k,
        batch,
        dtype=kernel.dtype,
        hw=machine,
        traffic_bytes=kernel.bytes,
        steady=not kernel.alone,
        row_reuse=_row_reuse(kernel),
    )
    fixed = found.fixed_s * kernel.count
    return KernelSeconds(found.compute_s, found.memory_s, fixed, GEMM.memory_overlap)


def _row_reuse(kernel: Kernel) -> float:
    """How many taps of a filter's row read the same pixel: the unit's cache serves all but the first of them."""
    if kernel.window is None:
        return 1.0
    shape = ConvShape.of_window(kernel.window)
    return max(1.0, shape.kernel[1] / shape.stride[1])


def _dense_convolution(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants) -> KernelSeconds:
    """On vector lanes the fastest of implicit GEMM, Winograd and FFT; on matrix engines implicit GEMM."""
    if kernel.engine == "matrix" or kernel.window is None:
        return _matrix_product(kernel, hardware, constants)
    found = convolution_time(ConvShape.of_window(kernel.window), machine=machines(hardware)[0])
    return KernelSeconds(found.compute_s, found.memory_s, found.fixed_s, serial_s=found.transform_s)


def _depthwise(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants) -> KernelSeconds:
    machine, _ = machines(hardware)
    if kernel.variant == "depthwise_nhwc_wide":
        taps = kernel.matrix_flops // 2
        kernel = replace(kernel, bytes_read=int(constants.depthwise_wide_tap_bytes * taps), variant="depthwise_nhwc")
    share = getattr(constants, kernel.variant or "depthwise_native")
    compute = kernel.matrix_flops / (share * machine.vector_flop_per_s)
    stream = _streaming(kernel, hardware, constants)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def _attention(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants) -> KernelSeconds:
    if kernel.gemm is None:
        return _roofline(kernel, hardware, constants)
    length, keys, width, batch = kernel.gemm
    step = constants.attention_length_step
    padded = -(-length // step) * step * -(-keys // step) * step * batch
    wide = (
        -(-width // constants.attention_width_step) * constants.attention_width_step + constants.attention_width_extra
    )
    peak = hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate)
    flop_per_s = peak.flop_per_s * Clock.of(hardware).gain(peak)
    compute = 4 * padded * wide / (constants.attention_efficiency * flop_per_s)
    stream = _streaming(kernel, hardware, constants)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def _resample_serial(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants) -> KernelSeconds:
    stream = _streaming(kernel, hardware, constants)
    serial = kernel.row_length * constants.resample_plane_s
    return KernelSeconds(serial, stream.memory_s, stream.fixed_s)


def _roofline(kernel: Kernel, hardware: HardwareProfile, constants: GpuConstants) -> KernelSeconds:
    stream = _streaming(kernel, hardware, constants)
    peak = hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate).flop_per_s
    compute = kernel.matrix_flops / (0.8 * peak)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


Rule = Callable[[Kernel, HardwareProfile, GpuConstants], KernelSeconds]
_RULES: dict[str, Rule] = {
    "gemm": _matrix_product,
    "batched_gemm": _matrix_product,
    "implicit_gemm": _dense_convolution,
    "grouped_implicit_gemm": _dense_convolution,
    "direct_depthwise": _depthwise,
    "flash_attention": _attention,
    "efficient_attention": _attention,
    "resample_serial": _resample_serial,
}
