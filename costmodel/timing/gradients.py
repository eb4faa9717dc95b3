"""Time of the backward pass's own kernels on a GPU: gradients of convolutions and of attention.

Each is the forward kernel's model at another share of the rate: the products are of the same kind, their operands lie
otherwise. What streams (activations, normalizations, pooling) is timed as it is forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Attention, Channels, Convolution, Depthwise
from costmodel.timing.convolution import convolution_time, eligible, window_on_lanes
from costmodel.timing.timeline import KernelSeconds

if TYPE_CHECKING:
    from costmodel.timing.gemm_machine import GemmMachine
    from costmodel.timing.gpu import GpuModel

__all__ = [
    "GRADIENTS",
    "GradientConstants",
    "attention_gradient",
    "channels_cost",
    "channels_s",
    "data_gradient",
    "depthwise_gradient",
    "grouped_direct",
    "weight_gradient",
    "with_splits",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientConstants:
    """Shares of what the forward kernel of the same work reaches [1], and what the backward pass has of its own.

    Fitted to timm's training steps on an RTX 3090 (torch 1.12, channels last, autocast), which
    ``benchmarks/fit_training.py`` reproduces, unless said otherwise; "set" means chosen, not fitted.
    """

    #: Gradients of a convolution on matrix units, of the data and of the weight.
    data_share: float = 0.88
    weight_share: float = 0.77
    #: The same on FMA lanes; set, and within 6 % of ResNet-50's steps in fp32 on V100s.
    lanes_data_share: float = 0.95
    lanes_weight_share: float = 0.80
    #: Most parts that the pixels of a weight's gradient are split into; set.
    weight_split_max: int = 256
    #: Depthwise convolutions: share of the fp32 vector peak by whose kernel runs, of the data and of the weight.
    #: Set: steps hardly tell them from the traffic. "native" within 20 % of EfficientNet-B0 and B4 in fp32 on V100s.
    depthwise_data: Mapping[str, float] = field(
        default_factory=lambda: {"nhwc": 0.15, "nhwc_large": 0.014, "nchw": 0.05, "native": 0.04}, hash=False
    )
    depthwise_weight: Mapping[str, float] = field(
        default_factory=lambda: {"nhwc": 0.08, "nhwc_large": 0.014, "nchw": 0.03, "native": 0.02}, hash=False
    )
    #: Weight gradient of few or wide groups by cuDNN's direct kernel: share of the fp32 vector peak, and the channels
    #: that a block works through at a time [1].
    grouped_direct: float = 0.050
    grouped_direct_channels: int = 32
    #: Batch norm in training in channels last, by cuDNN: a block takes this many channels [1]; the share of the time of
    #: blocks that channels leave partly empty which no other block makes use of [1]; and the extra time of channels
    #: that are no multiple of eight, over that of the traffic [1].
    norm_block_channels: int = 64
    norm_block_exposed: float = 0.3
    norm_misaligned: float = 2.0
    #: Batch norm in training in NCHW: values of half precision that a unit takes a clock [1], which holds back boards
    #: of fast memory. ResNet-50 on A100 and V100 against RTX A6000 and A10, and against fp32.
    halves_per_clock: float = 2.0
    #: The same before PyTorch 1.13, over the time of later ones [1]: steps of ResNet-50 by the same machines in
    #: containers of 2020 and 2022 differ by 17 %, in fp32 and in half precision, and batch norm is a quarter of them.
    early_norm: float = 1.5
    #: Sums over rows before torch 1.13 (gradients of a layer norm's scale and shift): a block takes so many columns and
    #: all rows [elements], at the rate at which one unit reads [B/clock].
    sum_block_columns: int = 32
    sum_block_bytes_per_clock: float = 40.0
    #: Batched products of half precision before PyTorch 2: share of the rate of later ones, in memory and arithmetic.
    #: Vision transformers of timm on an RTX 3090, whose other kernels are predicted within 5 %.
    early_batched: float = 0.51
    #: Fused attention backward: share of the forward kernel's rate. Set after the speeds of both passes that
    #: FlashAttention 2 states for an A100 (Dao 2023, arXiv:2307.08691, figures 5 and 6); no row here has one.
    attention_share: float = 0.58


GRADIENTS = GradientConstants()


def data_gradient(kernel: Kernel, model: GpuModel, product: KernelSeconds) -> KernelSeconds:
    """Gradient of a convolution's data; ``product`` is its time as a matrix product at the forward rate."""
    window = window_on_lanes(kernel)
    constants = model.constants.gradients
    if window is None:
        share = constants.data_share if kernel.engine == "matrix" else constants.lanes_data_share
        return product._replace(compute_s=product.compute_s / share)
    found = model.convolved(window)
    compute_s = found.compute_s / constants.lanes_data_share
    return KernelSeconds(compute_s, found.memory_s, found.fixed_s, serial_s=found.transform_s)


def with_splits(machine: GemmMachine) -> GemmMachine:
    """The machine with kernels that split k, as those of weight gradients do in every library."""
    engines = {
        name: replace(engine, kernels=replace(engine.kernels, splits=True)) for name, engine in machine.engines.items()
    }
    return replace(machine, engines=engines)


def weight_gradient(kernel: Kernel, model: GpuModel, product: KernelSeconds) -> KernelSeconds:
    """Gradient of a convolution's weight: a product of long sums, or Winograd's, which works as it does forward."""
    constants = model.constants.gradients
    share = constants.weight_share if kernel.engine == "matrix" else constants.lanes_weight_share
    summed = product._replace(compute_s=product.compute_s / share)
    window = window_on_lanes(kernel)
    if window is None or "winograd_nonfused" not in eligible(window, model.machine.convolutions.algorithms):
        return summed
    found = convolution_time(
        window, machine=model.machine, algorithms=("winograd_nonfused",), constants=model.constants.convolutions
    )
    compute_s = found.compute_s / constants.lanes_data_share
    winograd = KernelSeconds(compute_s, found.memory_s, found.fixed_s, serial_s=found.transform_s)
    return min(summed, winograd, key=KernelSeconds.seconds)


def depthwise_gradient(kernel: Kernel, model: GpuModel, stream: KernelSeconds) -> KernelSeconds:
    """One of the two gradients of a depthwise convolution; ``stream`` is the time of its traffic."""
    constants = model.constants.gradients
    which = (kernel.shape.depthwise if isinstance(kernel.shape, Convolution) else None) or Depthwise.NATIVE
    name = Depthwise.NHWC.value if which is Depthwise.NHWC_WIDE else which.value
    shares = constants.depthwise_data if kernel.algorithm == "depthwise_dgrad" else constants.depthwise_weight
    compute = kernel.matrix_flops / (shares[name] * model.lanes_flop_per_s(kernel))
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def grouped_direct(kernel: Kernel, model: GpuModel, stream: KernelSeconds) -> KernelSeconds:
    """Weight gradient of a grouped convolution on FMA lanes."""
    constants, shape = model.constants.gradients, kernel.shape
    assert isinstance(shape, Convolution)  # noqa: S101 - as lowered
    window = shape.window
    channels = shape.product.n if window is None else window.in_channels // window.groups
    step = constants.grouped_direct_channels
    wasted = -(-channels // step) * step / channels
    compute = wasted * kernel.matrix_flops / (constants.grouped_direct * model.lanes_flop_per_s(kernel))
    return KernelSeconds(compute, stream.memory_s, stream.fixed_s)


def channels_cost(count: int, constants: GradientConstants) -> float:
    """Time of a batch norm over ``count`` channels by blocks, over that of its traffic [1].

    >>> [round(channels_cost(count, GradientConstants()), 2) for count in (64, 32, 40, 36)]
    [1.0, 1.3, 1.18, 3.23]
    """
    block = constants.norm_block_channels
    wasted = -(-count // block) * block / count - 1
    return 1 + constants.norm_block_exposed * wasted + (constants.norm_misaligned if count % 8 else 0.0)


def channels_s(kernel: Kernel, shape: Channels, model: GpuModel, memory_s: float) -> float:
    """Memory time of a kernel that walks channels, where its traffic alone would take ``memory_s`` [s]."""
    constants, machine = model.constants.gradients, model.machine
    if kernel.access == "columns":  # sums over rows by one block for so many columns, however many rows there are
        blocks = -(-shape.count // constants.sum_block_columns)
        return max(memory_s, kernel.bytes / (blocks * constants.sum_block_bytes_per_clock * machine.clock_hz))
    if shape.last:
        return memory_s * channels_cost(shape.count, constants)
    memory_s *= constants.early_norm if shape.early else 1.0
    if shape.item_bytes > 2:
        return memory_s
    return max(memory_s, kernel.bytes / 2 / (constants.halves_per_clock * machine.unit_count * machine.clock_hz))


def attention_gradient(kernel: Kernel, model: GpuModel, forward: KernelSeconds) -> KernelSeconds:
    """Fused attention backward; ``forward`` is the time of the forward kernel's two products, with this traffic."""
    assert isinstance(kernel.shape, Attention)  # noqa: S101 - as lowered
    compute = 2.5 * forward.compute_s / model.constants.gradients.attention_share
    return forward._replace(compute_s=compute)
