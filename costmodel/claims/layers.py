"""Layers by their registered formulas: each is a function from the tensor that comes in to a :class:`Design`."""

from __future__ import annotations

from costmodel.claims.design import Design, Layer, operator, sequence
from costmodel.receptive_field import Field
from costmodel.symbols import Dim, as_expr, floor_div, product
from costmodel.tensor import TensorSpec

__all__ = [
    "concat",
    "conv",
    "conv_transpose",
    "deform_conv",
    "depthwise_separable",
    "fully_connected",
    "global_average_pool",
    "pooled_head",
    "upsample",
]

#: Padding that lets stride 1 keep the size: half of what a window overhangs, on each side.
SAME = "same"


def _bias(weights: dict[str, TensorSpec], channels: Dim, bias: bool, dtype: str) -> dict[str, TensorSpec]:
    return {**weights, "bias": TensorSpec((channels,), dtype)} if bias else weights


def _per(dim: Dim, divisor: Dim) -> Dim:
    """``dim / divisor``, taken to leave no remainder."""
    if isinstance(dim, int) and isinstance(divisor, int) and dim % divisor == 0:
        return dim // divisor
    return as_expr(dim) / divisor


def _outputs(size: Dim, kernel: Dim, stride: Dim, dilation: Dim, padding: Dim | str) -> Dim:
    """Positions along an axis; in symbols the stride is taken to divide what it must."""
    if isinstance(padding, str):
        return _per(size, stride)
    reach = size + 2 * padding - dilation * (kernel - 1) - 1
    return (floor_div(reach, stride) if isinstance(stride, int) else _per(reach, stride)) + 1


def conv(
    c_out: Dim, kernel: Dim, *, stride: Dim = 1, dilation: Dim = 1, groups: Dim = 1, padding: Dim | str = SAME,
    bias: bool = False,
) -> Layer:  # fmt: skip
    """A convolution with a ``kernel`` alike along every axis, 1-d to 3-d as its input is.

    ``padding="same"`` puts out H/stride positions; a number is what is added on each side.

    >>> from costmodel.claims.design import maps
    >>> conv(48, 3)(maps(24, 50, 50, batch=128)).params
    10368
    """

    def build(x: TensorSpec) -> Design:
        rank = len(x.shape) - 2
        out = tuple(_outputs(size, kernel, stride, dilation, padding) for size in x.shape[2:])
        weight = TensorSpec((c_out, _per(x.shape[1], groups), *[kernel] * rank), x.dtype)
        before = _per(dilation * (kernel - 1), 2) if padding == SAME else padding
        return operator(
            f"aten.conv{rank}d", x, _bias({"weight": weight}, c_out, bias, x.dtype),
            stride=[stride] * rank, padding=[before] * rank, dilation=[dilation] * rank, groups=groups,
            out=TensorSpec((x.shape[0], c_out, *out), x.dtype),
            seen=Field().through(kernel, stride=stride, dilation=dilation, padding=before),
        )  # fmt: skip

    return build


def depthwise(kernel: Dim, *, stride: Dim = 1, padding: Dim | str = SAME) -> Layer:
    """A convolution for each channel by itself: groups = C_in = C_out."""
    return lambda x: conv(x.shape[1], kernel, stride=stride, groups=x.shape[1], padding=padding)(x)


def depthwise_separable(c_out: Dim, kernel: Dim, *, stride: Dim = 1, padding: Dim | str = SAME) -> Layer:
    """A depthwise convolution, then a 1x1 that mixes channels (MobileNet, arXiv:1704.04861).

    >>> from costmodel.claims.design import maps
    >>> depthwise_separable(4, 3, padding=0)(maps(3, 5, 5)).params
    39
    """
    return sequence(depthwise(kernel, stride=stride, padding=padding), conv(c_out, 1))


def conv_transpose(c_out: Dim, kernel: Dim, *, stride: Dim = 1, bias: bool = False) -> Layer:
    """A transposed convolution that puts out stride * H positions an axis; one sees kernel/stride of its input."""

    def build(x: TensorSpec) -> Design:
        rank = len(x.shape) - 2
        weight = TensorSpec((x.shape[1], c_out, *[kernel] * rank), x.dtype)
        return operator(
            f"aten.conv_transpose{rank}d", x, _bias({"weight": weight}, c_out, bias, x.dtype),
            stride=[stride] * rank, out=TensorSpec((x.shape[0], c_out, *(stride * n for n in x.shape[2:])), x.dtype),
            seen=Field(_per(kernel, stride), _per(1, stride)),
        )  # fmt: skip

    return build


def deform_conv(c_out: Dim, kernel: Dim) -> Layer:
    """A deformable convolution (arXiv:1703.06211) with the convolution that computes its 2*K*K offsets a position."""

    def build(x: TensorSpec) -> Design:
        offsets = conv(2 * kernel * kernel, kernel, bias=True)(x)
        weight = TensorSpec((c_out, x.shape[1], kernel, kernel), x.dtype)
        sampled = operator(
            "torchvision.deform_conv2d", x, {"weight": weight}, offset=offsets.output,
            out=TensorSpec((x.shape[0], c_out, *x.shape[2:]), x.dtype),
        )  # fmt: skip
        return Design(
            input=x,
            output=sampled.output,
            params=offsets.params + sampled.params,
            cost=offsets.cost + sampled.cost,
            field=offsets.field,  # without the offsets' reach, which is learnt
        )

    return build


def fully_connected(outputs: Dim, *, bias: bool = False) -> Layer:
    """Flatten, and multiply by a matrix: C*H*W weights for each output, for one size of input alone."""

    def build(x: TensorSpec) -> Design:
        flat = TensorSpec((x.shape[0], product(x.shape[1:])), x.dtype)
        weight = TensorSpec((outputs, flat.shape[1]), x.dtype)
        weights = _bias({"weight": weight}, outputs, bias, x.dtype)
        made = operator("aten.linear", flat, weights, out=TensorSpec((x.shape[0], outputs), x.dtype))
        extent = x.shape[2] if len(x.shape) > 2 else 1
        return Design(input=x, output=made.output, params=made.params, cost=made.cost, field=Field(extent, extent))

    return build


def global_average_pool() -> Layer:
    """The mean of every map: [N, C, *spatial] to [N, C]."""

    def build(x: TensorSpec) -> Design:
        rank = len(x.shape) - 2
        pooled = TensorSpec((*x.shape[:2], *[1] * rank), x.dtype)
        made = operator(f"aten.adaptive_avg_pool{rank}d", x, out=pooled)
        flat = TensorSpec(x.shape[:2], x.dtype)
        return Design(input=x, output=flat, cost=made.cost, field=Field(x.shape[2], x.shape[2]))

    return build


def pooled_head(outputs: Dim, *, bias: bool = False) -> Layer:
    """Global average pooling, then a matrix: C weights for each output, for any size of input."""
    return sequence(global_average_pool(), fully_connected(outputs, bias=bias))


def upsample(scale: Dim) -> Layer:
    """Bilinear up-sampling by ``scale``: each output is mixed from two neighbours an axis."""

    def build(x: TensorSpec) -> Design:
        out = TensorSpec((*x.shape[:2], *(scale * n for n in x.shape[2:])), x.dtype)
        return operator("aten.upsample_bilinear2d", x, out=out, seen=Field(2, _per(1, scale)))

    return build


def concat(channels: Dim) -> Layer:
    """Set ``channels`` more maps beside the input's: nothing is computed, everything is copied."""

    def build(x: TensorSpec) -> Design:
        other = TensorSpec((x.shape[0], channels, *x.shape[2:]), x.dtype)
        out = TensorSpec((x.shape[0], x.shape[1] + channels, *x.shape[2:]), x.dtype)
        return operator("aten.cat", x, input=[x, other], out=out)

    return build
