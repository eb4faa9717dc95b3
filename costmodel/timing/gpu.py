"""Time of one kernel on a GPU: the model that fits its algorithm, on the figures of the machine.

Every constant has a physical meaning, a unit and an origin; how well the whole does is in reports/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import (
    Attention,
    Channels,
    Columns,
    Convolution,
    Depthwise,
    Planes,
    Pooling,
    Rows,
    Window,
    product_of,
)
from costmodel.timing.attention import AttentionMachine, attention_time
from costmodel.timing.clock import Clock
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.convolution import ConvTime, convolution_time, executed_share, window_on_lanes
from costmodel.timing.gemm import GemmTime, gemm_time
from costmodel.timing.gemm_machine import ELEMENT_BYTES, GemmMachine
from costmodel.timing.gradients import (
    attention_gradient,
    channels_s,
    data_gradient,
    depthwise_gradient,
    grouped_direct,
    weight_gradient,
    with_splits,
)
from costmodel.timing.machine import GpuMachine
from costmodel.timing.power import Power
from costmodel.timing.streaming import streaming_time
from costmodel.timing.timeline import KernelSeconds

__all__ = ["GpuModel", "gpu_kernel_time", "gpu_model", "product_time", "row_reuse"]


class GpuModel:
    """One GPU with one bundle of constants: the time of a kernel, each distinct one worked out once."""

    def __init__(self, hardware: HardwareProfile, constants: Constants) -> None:
        self.hardware, self.constants = hardware, constants
        self.machine = GpuMachine.from_profile(hardware, constants.clock)
        self.products = GemmMachine.from_profile(hardware, constants.clock)
        own = self.machine.convolutions.matrix_products
        #: The same with the kernels of its library of convolutions.
        self.implicit = GemmMachine.from_profile(hardware, constants.clock, own) if own else self.products
        self.clock = Clock.of(hardware, constants.clock)
        double = hardware.find_peak("vector", "fp64")
        #: Peak of the lanes in fp64 over that in fp32 [1].
        self.double_share = double.flop_per_s / hardware.peak("vector", "fp32").flop_per_s if double else 1.0
        self.attention = {kernels.name: kernels for kernels in hardware.gpu.attention}
        self.power = Power(hardware, constants.power)
        #: Products whose long sums are split as far as it takes to fill the machine, by every library.
        self.deep_products = replace(constants.products, split_max=constants.gradients.weight_split_max)
        self.splitting = with_splits(self.implicit)
        self.convolved = lru_cache(maxsize=_MOST_KNOWN)(self._convolved)
        #: Device time of a kernel, without the host's.
        self.seconds = lru_cache(maxsize=_MOST_KNOWN)(self._seconds)

    def priced(self, kernel: Kernel) -> tuple[KernelSeconds, float, float]:
        """Device time of a kernel without the host's, the clock that it is worked out at [Hz], and the energy of what
        it executes at the reference voltage [J]; worked out anew, for those who ask once."""
        part = self._seconds(kernel)
        return part, self.clock_hz(kernel), self._switched_j(kernel, part)

    def switched_j(self, kernel: Kernel) -> float:
        """Energy of what a kernel executes, at the reference voltage [J]."""
        return self._switched_j(kernel, self.seconds(kernel))

    def _convolved(self, window: Window) -> ConvTime:
        return convolution_time(window, machine=self.machine, constants=self.constants.convolutions)

    def _seconds(self, kernel: Kernel) -> KernelSeconds:
        rule = _RULES.get(kernel.algorithm)
        if rule is None and kernel.algorithm in self.attention:
            rule = _attention
        elif rule is None:
            rule = _matrix_product if kernel.algorithm in self.products.engines else _streaming
        return rule(kernel, self)

    def lanes_flop_per_s(self, kernel: Kernel) -> float:
        """FLOP/s of the lanes for a kernel: at their own peak in fp64, where the profile states one."""
        rate = self.machine.vector_flop_per_s
        return rate * self.double_share if kernel.dtype == "fp64" else rate

    def attention_machine(self, kernel: Kernel) -> AttentionMachine:
        """The machine for attention in the dtype of a kernel."""
        peak, machine = self.hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate), self.machine
        stated_hz = peak.clock_hz or self.clock.stated_hz
        return AttentionMachine(
            unit_count=machine.unit_count,
            clock_hz=stated_hz * self.clock.gain(peak),
            flop_per_clock=peak.flop_per_s / machine.unit_count / stated_hz,
            dram_bytes_per_s=machine.dram_fraction * machine.dram_bytes_per_s,
            l2_bytes_per_s=self.products.l2_bytes_per_s,
            fixed_s=machine.kernel_fixed_s,
            item_bytes=ELEMENT_BYTES.get(kernel.dtype, 4),
        )

    def window_on_lanes(self, kernel: Kernel) -> Window | None:
        """The window of a kernel that convolves on vector lanes; None for other kernels."""
        return window_on_lanes(kernel) if _RULES.get(kernel.algorithm) in _OF_WINDOWS else None

    def _switched_j(self, kernel: Kernel, part: KernelSeconds) -> float:
        window = self.window_on_lanes(kernel)
        if window is None:
            return self.power.switched_j(kernel)
        algorithm = self.convolved(window).algorithm
        if _RULES[kernel.algorithm] is _weight_gradient:  # whose sums are split, or Winograd's
            algorithm = "winograd_nonfused" if part.serial_s else "implicit_gemm"
        return self.power.switched_j(kernel, executed_share(algorithm, window))

    def clock_hz(self, kernel: Kernel) -> float:
        """The clock that a kernel's time is worked out at [Hz], before power holds it down."""
        if kernel.engine == "matrix" and kernel.matrix_flops:
            peak = self.hardware.find_peak(kernel.engine, kernel.dtype, kernel.accumulate)
            return self.clock.stated_hz if peak is None else self.clock.long_product_hz(peak)
        is_product = kernel.algorithm in ("gemm", "batched_gemm")
        return self.clock.stated_hz if is_product else self.clock.lanes_hz


#: Kernels that a model remembers: those of a large network, so that what is asked of it again is known; few enough for
#: the models of all machines to lie in memory beside each other.
_MOST_KNOWN = 2048


@lru_cache(maxsize=256)  # more than there are profiles
def gpu_model(hardware: HardwareProfile, constants: Constants = CONSTANTS) -> GpuModel:
    """The model of a GPU, made once for each profile and bundle of constants."""
    return GpuModel(hardware, constants)


def gpu_kernel_time(kernel: Kernel, hardware: HardwareProfile, constants: Constants = CONSTANTS) -> KernelSeconds:
    """Device time of ``kernel``, without the host's."""
    return gpu_model(hardware, constants).seconds(kernel)


def _streaming(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    """Traffic at the rate of the walk; rows by the models of softmax and layer norm."""
    shape, constants = kernel.shape, model.constants.streaming
    kind = kernel.access if kernel.access in constants.rates else "elementwise"
    elements = max(kernel.elements, 1)
    length = shape.length if isinstance(shape, Rows) else None
    found = streaming_time(
        kernel.bytes_read,
        kernel.bytes_written,
        elements=elements / _elements_an_instruction(kernel, elements),
        machine=model.machine,
        kind=kind,
        rows=elements / length if length else None,
        row_length=length,
        lane_cycles=_lane_cycles(kernel, model),
        constants=constants,
    )
    memory_s = found.memory_s
    if isinstance(shape, Channels):
        memory_s = channels_s(kernel, shape, model, memory_s)
    compute_s = found.compute_s * model.machine.vector_flop_per_s / model.lanes_flop_per_s(kernel)
    return KernelSeconds(compute_s, memory_s, found.fixed_s * kernel.starts, found.overlap)


def _elements_an_instruction(kernel: Kernel, elements: int) -> int:
    """Two values of half precision, but where a thread walks one window after the other."""
    return 2 if kernel.bytes_written <= 2 * elements and not isinstance(kernel.shape, Pooling) else 1


def _lane_cycles(kernel: Kernel, model: GpuModel) -> float:
    """Lane cycles of one element put out."""
    if isinstance(kernel.shape, Pooling):
        layout = "nhwc" if kernel.shape.channels_last else "nchw"
        return kernel.shape.taps * model.constants.kernels.pool_tap_cycles[layout]
    streaming, op = model.constants.streaming, kernel.op.removeprefix("aten.")
    own = model.hardware.gpu.lane_cycles.get(op)
    return streaming.lane_cycles.get(op, streaming.plain_lane_cycles) if own is None else own


def product_time(kernel: Kernel, model: GpuModel) -> GemmTime | None:
    """The time and the tiles of a kernel that runs as matrix products; None for other shapes."""
    product, constants = product_of(kernel.shape), model.constants.products
    machine = model.implicit if isinstance(kernel.shape, Convolution) else model.products
    if product is None:
        return None
    if kernel.algorithm == "implicit_gemm_wgrad":  # groups stand side by side, so that their sums are split as one's
        product, constants = replace(product, n=product.n * product.batch, batch=1), model.deep_products
        machine = model.splitting
    return gemm_time(
        product.m,
        product.n,
        product.k,
        product.batch,
        dtype=kernel.algorithm if kernel.algorithm in model.products.engines else kernel.dtype,
        hw=machine,
        traffic_bytes=kernel.bytes,
        row_reuse=row_reuse(kernel, model),
        constants=constants,
    )


def _matrix_product(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    found = product_time(kernel, model)
    if found is None:
        return _roofline(kernel, model)
    fixed = found.fixed_s * kernel.starts
    return KernelSeconds(found.compute_s, found.memory_s, fixed, model.constants.products.memory_overlap)


def row_reuse(kernel: Kernel, model: GpuModel) -> float:
    """How many taps of a filter's row read the same pixel: the unit's cache serves all but the first of them."""
    shape = kernel.shape
    if not isinstance(shape, Convolution) or shape.window is None or not model.machine.convolutions.keeps_taps:
        return 1.0
    return max(1.0, shape.window.kernel[1] / shape.window.stride[1])


def _dense_convolution(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    """On vector lanes the fastest of implicit GEMM, Winograd and FFT; on matrix engines implicit GEMM."""
    window = window_on_lanes(kernel)
    if window is None:
        return _matrix_product(kernel, model)
    found = model.convolved(window)
    return KernelSeconds(found.compute_s, found.memory_s, found.fixed_s, serial_s=found.transform_s)


def _data_gradient(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    return data_gradient(kernel, model, _matrix_product(kernel, model))


def _weight_gradient(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    return weight_gradient(kernel, model, _matrix_product(kernel, model))


def _depthwise_gradient(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    return depthwise_gradient(kernel, model, _streaming(kernel, model))


def _grouped_direct(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    return grouped_direct(kernel, model, _streaming(kernel, model))


def _early_batched(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    found, share = _matrix_product(kernel, model), model.constants.gradients.early_batched
    return found._replace(compute_s=found.compute_s / share, memory_s=found.memory_s / share)


def _attention_gradient(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    forward = replace(kernel, algorithm=kernel.algorithm.removesuffix("_backward"))
    return attention_gradient(kernel, model, _attention(forward, model))


def _depthwise(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    constants = model.constants.kernels
    which = (kernel.shape.depthwise if isinstance(kernel.shape, Convolution) else None) or Depthwise.NATIVE
    if which is Depthwise.NHWC_WIDE:
        taps = kernel.matrix_flops // 2
        kernel, which = replace(kernel, bytes_read=int(constants.depthwise_wide_tap_bytes * taps)), Depthwise.NHWC
    compute = kernel.matrix_flops / (constants.depthwise[which.value] * model.lanes_flop_per_s(kernel))
    stream = _streaming(kernel, model)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def _attention(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    shape, constants = kernel.shape, model.constants.kernels
    if not isinstance(shape, Attention):
        return _roofline(kernel, model)
    if (kernels := model.attention.get(kernel.algorithm)) is not None and kernel.engine == "matrix":
        return attention_time(shape, kernels, model.attention_machine(kernel), kernel.bytes)
    step = constants.attention_length_step
    padded = -(-shape.queries // step) * step * -(-shape.keys // step) * step * shape.heads
    wide = -(-shape.width // constants.attention_width_step) * constants.attention_width_step
    wide += constants.attention_width_extra
    peak = model.hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate)
    compute = 4 * padded * wide / (constants.attention_efficiency * (peak.flop_per_s * model.clock.gain(peak)))
    stream = _streaming(kernel, model)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def _resample_serial(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    stream = _streaming(kernel, model)
    planes = kernel.shape.count if isinstance(kernel.shape, Planes) else 0
    return KernelSeconds(planes * model.constants.kernels.resample_plane_s, stream.memory_s, stream.fixed_s)


def _factorization(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    """Arithmetic at a low share of the lanes' peak, and the columns that wait for each other."""
    constants, stream, shape = model.constants.kernels, _streaming(kernel, model), kernel.shape
    compute = kernel.vector_flops / (constants.factorization_share * model.lanes_flop_per_s(kernel))
    steps = shape.steps * (shape.matrices if shape.in_turn else 1) if isinstance(shape, Columns) else 0
    return KernelSeconds(compute + steps * constants.factorization_column_s, stream.memory_s, stream.fixed_s)


def _roofline(kernel: Kernel, model: GpuModel) -> KernelSeconds:
    stream = _streaming(kernel, model)
    peak = model.hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate).flop_per_s
    compute = kernel.matrix_flops / (0.8 * peak)
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


Rule = Callable[[Kernel, GpuModel], KernelSeconds]
_RULES: dict[str, Rule] = {
    "gemm": _matrix_product,
    "batched_gemm": _matrix_product,
    "early_batched_gemm": _early_batched,
    "implicit_gemm": _dense_convolution,
    "grouped_implicit_gemm": _dense_convolution,
    "direct_depthwise": _depthwise,
    "implicit_gemm_dgrad": _data_gradient,
    "implicit_gemm_wgrad": _weight_gradient,
    "grouped_direct_wgrad": _grouped_direct,
    "depthwise_dgrad": _depthwise_gradient,
    "depthwise_wgrad": _depthwise_gradient,
    "flash_attention_backward": _attention_gradient,
    "efficient_attention_backward": _attention_gradient,
    "flash_attention": _attention,
    "efficient_attention": _attention,
    "latent_attention": _attention,
    "resample_serial": _resample_serial,
    "factorization": _factorization,
}
#: Rules that may take Winograd or FFT on vector lanes.
_OF_WINDOWS = (_dense_convolution, _data_gradient, _weight_gradient)
