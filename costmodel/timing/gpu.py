"""Time of one kernel on a GPU: the model that fits its algorithm, on the figures of the machine.

Every constant has a physical meaning, a unit and an origin; how well the whole does is in reports/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel
from costmodel.timing.clock import Clock
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.convolution import ConvShape, convolution_time
from costmodel.timing.gemm import gemm_time
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.timing.machine import GpuMachine
from costmodel.timing.streaming import streaming_time
from costmodel.timing.timeline import KernelSeconds

__all__ = ["GpuModel", "gpu_kernel_time", "gpu_model"]


class GpuModel:
    """One GPU with one bundle of constants: the time of a kernel, each distinct one worked out once."""

    def __init__(self, hardware: HardwareProfile, constants: Constants) -> None:
        self.hardware, self.constants = hardware, constants
        self.machine = GpuMachine.from_profile(hardware, constants.clock)
        self.products = GemmMachine.from_profile(hardware, constants.clock)
        self.clock = Clock.of(hardware, constants.clock)
        self._known: dict[Kernel, KernelSeconds] = {}

    def seconds(self, kernel: Kernel) -> KernelSeconds:
        """Device time of ``kernel``, without the host's."""
        found = self._known.get(kernel)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[kernel] = _RULES.get(kernel.algorithm, _streaming)(kernel, self)
        return found


#: Kernels that a model remembers: many times those of the largest network.
_MOST_KNOWN = 50_000


@lru_cache(maxsize=64)
def gpu_model(hardware: HardwareProfile, constants: Constants = CONSTANTS) -> GpuModel:
    """The model of a GPU, made once for each profile and bundle of constants."""
    return GpuModel(hardware, constants)


def gpu_kernel_time(kernel: Kernel, hardware: HardwareProfile, constants: Constants = CONSTANTS) -> KernelSeconds:
    """Device time of ``kernel``, without the host's."""
    return gpu_model(hardware, constants).seconds(kernel)


def _streaming(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    kind = kernel.access if kernel.access in model.constants.streaming.rates else "elementwise"
    elements = max(kernel.elements, 1)
    half = kernel.bytes_written <= 2 * elements  # two values an instruction
    found = streaming_time(
        kernel.bytes_read,
        kernel.bytes_written,
        elements=elements / 2 if half and not kernel.variant else elements,
        machine=model.machine,
        kind=kind,
        rows=elements / kernel.row_length if kernel.row_length else None,
        row_length=kernel.row_length or None,
        lane_cycles=_lane_cycles(kernel, model.constants),
        constants=model.constants.streaming,
    )
    return KernelSeconds(found.compute_s, found.memory_s, found.fixed_s * kernel.count, found.overlap)


def _lane_cycles(kernel: Kernel, constants: Constants) -> float:
    """Lane cycles of one element put out."""
    if kernel.access == "pooling" and kernel.row_length:
        return kernel.row_length * float(getattr(constants.kernels, f"pool_tap_cycles_{kernel.variant}"))
    streaming = constants.streaming
    return streaming.lane_cycles.get(kernel.op.removeprefix("aten."), streaming.plain_lane_cycles)


def _matrix_product(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    if kernel.gemm is None:
        return _roofline(kernel, model)
    m, n, k, batch = kernel.gemm
    found = gemm_time(
        m,
        n,
        k,
        batch,
        dtype=kernel.dtype,
        hw=model.products,
        traffic_bytes=kernel.bytes,
        steady=not kernel.alone,
        row_reuse=_row_reuse(kernel),
        constants=model.constants.products,
    )
    fixed = found.fixed_s * kernel.count
    return KernelSeconds(found.compute_s, found.memory_s, fixed, model.constants.products.memory_overlap)


def _row_reuse(kernel: Kernel) -> float:
    """How many taps of a filter's row read the same pixel: the unit's cache serves all but the first of them."""
    if kernel.window is None:
        return 1.0
    shape = ConvShape.of_window(kernel.window)
    return max(1.0, shape.kernel[1] / shape.stride[1])


def _dense_convolution(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    """On vector lanes the fastest of implicit GEMM, Winograd and FFT; on matrix engines implicit GEMM."""
    if kernel.engine == "matrix" or kernel.window is None:
        return _matrix_product(kernel, model)
    found = convolution_time(
        ConvShape.of_window(kernel.window), machine=model.machine, constants=model.constants.convolutions
    )
    return KernelSeconds(found.compute_s, found.memory_s, found.fixed_s, serial_s=found.transform_s)


def _depthwise(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    constants = model.constants.kernels
    if kernel.variant == "depthwise_nhwc_wide":
        taps = kernel.matrix_flops // 2
        kernel = replace(kernel, bytes_read=int(constants.depthwise_wide_tap_bytes * taps), variant="depthwise_nhwc")
    share = getattr(constants, kernel.variant or "depthwise_native")
    compute = kernel.matrix_flops / (share * model.machine.vector_flop_per_s)
    stream = _streaming(kernel, model)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def _attention(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    if kernel.gemm is None:
        return _roofline(kernel, model)
    constants = model.constants.kernels
    length, keys, width, batch = kernel.gemm
    step = constants.attention_length_step
    padded = -(-length // step) * step * -(-keys // step) * step * batch
    wide = (
        -(-width // constants.attention_width_step) * constants.attention_width_step + constants.attention_width_extra
    )
    peak = model.hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate)
    flop_per_s = peak.flop_per_s * model.clock.gain(peak)
    compute = 4 * padded * wide / (constants.attention_efficiency * flop_per_s)
    stream = _streaming(kernel, model)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def _resample_serial(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    stream = _streaming(kernel, model)
    serial = kernel.row_length * model.constants.kernels.resample_plane_s
    return KernelSeconds(serial, stream.memory_s, stream.fixed_s)


def _roofline(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    stream = _streaming(kernel, model)
    peak = model.hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate).flop_per_s
    compute = kernel.matrix_flops / (0.8 * peak)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


Rule = Callable[[Kernel, GpuModel], KernelSeconds]
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
