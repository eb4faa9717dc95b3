"""The backward of normalizations: gradients by input, weight and bias, from statistics that the forward saved.

All of it is vector work. Per group of n elements with mean m and r = 1 / sqrt(var + eps), and g the gradient of the
output (times the weight, where that differs from element to element), the input's gradient is (Ioffe and Szegedy 2015,
arXiv:1502.03167, section 3, its equations folded together)

    r * (g - mean(g) - xhat * mean(g * xhat)),    xhat = (x - m) * r

Where weight and statistics are the same for many elements (batch and group norm) it is g * a + x * b + c with a, b, c
made once: 4 per element, after two sums. A gradient that ``output_mask`` does not ask for is neither made nor written,
and what only it needs is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.operands import Specs, nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec

__all__ = [
    "batch_norm_backward",
    "cudnn_batch_norm_backward",
    "group_norm_backward",
    "layer_norm_backward",
    "rms_norm_backward",
    "weight_norm_backward",
]

ALL = (True, True, True)


def _gradients(vector_flops: Dim, read: Sequence[Any], written: Dim) -> Cost:
    """Vector work that reads each spec of ``read`` and writes so many bytes."""
    return Cost(vector_flops=vector_flops, bytes_read=nbytes(*read), bytes_written=written, launches=1)


def _written(input: TensorSpec, weight: TensorSpec | None, features: Dim, output_mask: Sequence[bool]) -> Dim:
    """Bytes of the gradients asked for: one as large as the input, two of ``features`` in the weight's dtype.

    From the mask, because some kernels for the meta device give more results than were asked for.
    """
    return (input.numel * input.itemsize if output_mask[0] else 0) + sum(output_mask[1:]) * features * (
        weight or input
    ).itemsize


@formula("aten.native_batch_norm_backward")
def batch_norm_backward(
    grad_out: TensorSpec,
    input: TensorSpec,
    weight: TensorSpec | None = None,
    running_mean: TensorSpec | None = None,
    running_var: TensorSpec | None = None,
    save_mean: TensorSpec | None = None,
    save_invstd: TensorSpec | None = None,
    train: bool = True,
    output_mask: Sequence[bool] = ALL,
    *,
    out: Specs,
) -> Cost:
    """Gradients of :func:`~costmodel.formulas.normalization.batch_norm`, statistics over all but channels.

    In training, per channel of n elements, with s the sum of g (n - 1) and d that of g * (x - m) (3 n - 1): the
    weight's gradient is r * d (1), the bias's s, and the input's g * a - x * b + c (4 n), with a = r * weight (1, where
    there is a weight), b = a * (r * d * r / n) (3) and c = b * m - a * s / n (4). With statistics that are fixed, of a
    norm that is frozen in evaluation, the input's gradient is g * a alone, and r is first made of the running variance
    (2).

    >>> from costmodel.tensor import f32
    >>> x, w = f32(2, 3, 4, 4), f32(3)
    >>> batch_norm_backward(x, x, w, None, None, w, w, out=(x, w, w)).vector_flops          # 8*96 + 3*(-2 + 1 + 8)
    789
    >>> batch_norm_backward(x, x, w, w, w, train=False, output_mask=[True, False, False], out=x).vector_flops
    105
    """
    by_input, by_weight, by_bias = output_mask
    elements, channels = input.numel, input.shape[1]
    statistics = by_input and train  # the batch's own depend on the input, so that its gradient goes through them
    flops: Dim = 0
    if by_bias or statistics:
        flops = flops + elements - channels
    if by_weight or statistics:
        flops = flops + 3 * elements
    if (by_input or by_weight) and not train:
        flops = flops + 2 * channels
    if by_input:
        flops = flops + (4 * elements + 7 * channels if train else elements) + int(weight is not None) * channels
    mean, invstd = (save_mean, save_invstd) if train else (running_mean, running_var)
    read = (
        grad_out,
        weight if by_input else None,
        (input, mean) if by_weight or statistics else None,
        invstd if by_input or by_weight else None,
    )
    return _gradients(flops, read, _written(input, weight, channels, output_mask))


@formula("aten.cudnn_batch_norm_backward", "aten.miopen_batch_norm_backward")
def cudnn_batch_norm_backward(
    input: TensorSpec,
    grad_output: TensorSpec,
    weight: TensorSpec,
    save_mean: TensorSpec | None = None,
    save_var: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """:func:`batch_norm_backward` in training by the names of the libraries, all three gradients.

    >>> from costmodel.tensor import f32
    >>> x, w = f32(2, 3, 4, 4), f32(3)
    >>> cudnn_batch_norm_backward(x, x, w, w, w, out=(x, w, w)).vector_flops
    789
    """
    return batch_norm_backward(grad_output, input, weight, None, None, save_mean, save_var, out=out)


@formula("aten.batch_norm_backward")
def batch_norm_backward_by_any(
    grad_out: TensorSpec,
    input: TensorSpec,
    weight: TensorSpec | None = None,
    running_mean: TensorSpec | None = None,
    running_var: TensorSpec | None = None,
    save_mean: TensorSpec | None = None,
    save_var: TensorSpec | None = None,
    update: bool = True,
    output_mask: Sequence[bool] = ALL,
    *,
    out: Specs,
) -> Cost:
    """:func:`batch_norm_backward` by the name that leaves the library open; ``update`` is its ``train``.

    >>> from costmodel.tensor import f32
    >>> x, w = f32(2, 3, 4, 4), f32(3)
    >>> batch_norm_backward_by_any(x, x, w, None, None, w, w, out=(x, w, w)).vector_flops
    789
    """
    return batch_norm_backward(
        grad_out, input, weight, running_mean, running_var, save_mean, save_var, update, output_mask, out=out
    )


@formula("aten.native_layer_norm_backward")
def layer_norm_backward(
    grad_out: TensorSpec,
    input: TensorSpec,
    normalized_shape: Sequence[Dim],
    mean: TensorSpec,
    rstd: TensorSpec,
    weight: TensorSpec | None = None,
    output_mask: Sequence[bool] = ALL,
    *,
    out: Specs,
) -> Cost:
    """Gradients of :func:`~costmodel.formulas.normalization.layer_norm` (Ba et al. 2016, arXiv:1607.06450).

    Per row of n elements xhat takes 2 n, g * weight n where there is a weight, the sum of g n - 1 and that of g * xhat
    2 n - 1; both are divided by n (2), and r * (g - s - xhat * d) takes 4 n. The weight's gradient is the sum over R
    rows of grad_out * xhat, (2 R - 1) n, the bias's that of grad_out, (R - 1) n.

    >>> from costmodel.tensor import f32
    >>> x, w, m = f32(10, 8), f32(8), f32(10, 1)
    >>> layer_norm_backward(x, x, [8], m, m, w, out=(x, w, w)).vector_flops            # 10*10*8 + (19 + 9)*8
    1024
    """
    by_input, by_weight, by_bias = output_mask
    elements, features = input.numel, product(normalized_shape)
    flops: Dim = 0
    if by_input or by_weight:
        flops = flops + 2 * elements
    if by_input:
        flops = flops + (7 + (weight is not None)) * elements
    if by_weight:
        flops = flops + 2 * elements - features
    if by_bias:
        flops = flops + elements - features
    read = (grad_out, (input, mean, rstd) if by_input or by_weight else None, weight if by_input else None)
    return _gradients(flops, read, _written(input, weight, features, output_mask))


@formula("aten._fused_rms_norm_backward")
def rms_norm_backward(
    grad_out: TensorSpec,
    input: TensorSpec,
    normalized_shape: Sequence[Dim],
    rstd: TensorSpec,
    weight: TensorSpec | None = None,
    output_mask: Sequence[bool] = (True, True),
    *,
    out: Specs,
) -> Cost:
    """Gradients of :func:`~costmodel.formulas.normalization.rms_norm` (Zhang and Sennrich 2019, arXiv:1910.07467).

    Per row of n elements xhat = x * r takes n, g * weight n where there is a weight, the mean of g * xhat 2 n, and
    r * (g - xhat * d) 3 n; the weight's gradient, over R rows, (2 R - 1) n.

    >>> from costmodel.tensor import f32
    >>> x, w = f32(10, 8), f32(8)
    >>> rms_norm_backward(x, x, [8], f32(10, 1), w, out=(x, w)).vector_flops           # 10*7*8 + 19*8
    712
    """
    by_input, by_weight = output_mask
    elements, features = input.numel, product(normalized_shape)
    flops: Dim = 0
    if by_input or by_weight:
        flops = flops + elements
    if by_input:
        flops = flops + (5 + (weight is not None)) * elements
    if by_weight:
        flops = flops + 2 * elements - features
    read = (grad_out, input, rstd, weight if by_input else None)
    return _gradients(flops, read, _written(input, weight, features, output_mask))


@formula("aten.native_group_norm_backward")
def group_norm_backward(
    grad_out: TensorSpec,
    input: TensorSpec,
    mean: TensorSpec,
    rstd: TensorSpec,
    weight: TensorSpec | None,
    N: Dim,  # the schema's names
    C: Dim,
    HxW: Dim,
    group: int,
    output_mask: Sequence[bool] = ALL,
    *,
    out: Specs,
) -> Cost:
    """Gradients of :func:`~costmodel.formulas.normalization.native_group_norm` (Wu and He 2018, arXiv:1803.08494).

    Per image and channel, of S positions: s = the sum of g, S - 1, and d = that of g * x, 2 S - 1. The input's gradient
    is g * a - x * b + c, 4 S, with a = r * weight (1 where there is a weight). Per image and group, of D channels: the
    sums of s and of d, each times the weight, 2 (2 D - 1) (without a weight 2 (D - 1)); b = (d - s * m) * r * r * r / n
    (6) and c = b * m - s * r / n (4). The weight's gradient is the sum over N images of (d - s * m) * r, 4 N - 1 a
    channel, the bias's that of s, N - 1.

    >>> from costmodel.tensor import f32
    >>> x, w, m = f32(2, 6, 4, 4), f32(6), f32(2, 3)
    >>> group_norm_backward(x, x, m, m, w, 2, 6, 16, 3, out=(x, w, w)).vector_flops    # 12*(7*16-2+1) + 6*(6+10) + 6*8
    1476
    """
    by_input, by_weight, by_bias = output_mask
    elements, planes, groups = input.numel, N * C, N * group
    flops: Dim = elements - planes
    if by_input or by_weight:
        flops = flops + 2 * elements - planes
    if by_input:
        sums = 4 * planes - 2 * groups if weight is not None else 2 * (planes - groups)
        flops = flops + 4 * elements + int(weight is not None) * planes + sums + 10 * groups
    if by_weight:
        flops = flops + 4 * planes - C
    if by_bias:
        flops = flops + planes - C
    read = (grad_out, (input, mean, rstd) if by_input or by_weight else None, weight if by_input else None)
    return _gradients(flops, read, _written(input, weight, C, output_mask))


@formula("aten._weight_norm_interface_backward")
def weight_norm_backward(
    grad_w: TensorSpec, saved_v: TensorSpec, saved_g: TensorSpec, saved_norms: TensorSpec, *, out: Specs
) -> Cost:
    """Gradients of v * (g / |v|) by v and g (Salimans and Kingma 2016, arXiv:1602.07868, equation 3).

    Per row of n weights: d = the sum of grad_w * v, 2 n - 1; g's gradient d / |v| (1); v's (grad_w - v * c) * k, 3 n,
    with c = d / |v| / |v| (1 more) and k = g / |v| (1).

    >>> from costmodel.tensor import f32
    >>> weight_norm_backward(f32(4, 6), f32(4, 6), f32(4, 1), f32(4, 1), out=(f32(4, 6), f32(4, 1))).vector_flops
    128
    """
    read = (grad_w, saved_v, saved_g, saved_norms)
    return _gradients(5 * saved_v.numel + 2 * saved_g.numel, read, nbytes(out))
