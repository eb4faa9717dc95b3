"""Normalizations: batch, layer, group, instance, root mean square, and of weights.

Each is counted by its elementary operations, rsqrt being one of them. Over a group of n elements

    mean                     n        n - 1 additions, 1 division
    variance, of the mean   3 n       n differences, n squares, n - 1 additions, 1 division
    1 / sqrt(var + eps)       2       per group

and then, where scale and shift are the same for many elements (batch, group and instance norm),
y = x * scale + shift: 2 per element, with scale = weight / sqrt(var + eps) and shift = bias - mean * scale made
once; where they are not (layer and RMS norm), (x - mean) * rstd * weight + bias, whose difference the variance
has already made. All of it is vector work.
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.cost import Cost
from costmodel.formulas.operands import Specs, nbytes, spec_of
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec

__all__ = [
    "batch_norm",
    "batch_norm_with_update",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "native_group_norm",
    "rms_norm",
    "weight_norm",
]

#: Updating running_mean and running_var from a batch, per channel: (1 - m) * r + m * new is 3 FLOP, twice, and the
#: variance is first made unbiased, * n / (n - 1).
RUNNING_UPDATE_FLOPS = 7


def _normalization(vector_flops: Dim, *operands: Specs, out: Specs, updated: Sequence[TensorSpec | None] = ()) -> Cost:
    """Cost of vector work that reads ``operands`` once and writes ``out`` and what it updates in place."""
    return Cost(
        vector_flops=vector_flops, bytes_read=nbytes(*operands), bytes_written=nbytes(out, *updated), launches=1
    )


def _given(*affine: TensorSpec | None) -> int:
    return sum(spec is not None for spec in affine)


@formula(
    "aten.batch_norm",
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_functional",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_no_update",
    "aten.cudnn_batch_norm",
    "aten.miopen_batch_norm",
)
def batch_norm(
    input: TensorSpec,
    weight: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    running_mean: TensorSpec | None = None,
    running_var: TensorSpec | None = None,
    training: bool = False,
    *,
    out: Specs,
) -> Cost:
    """out[N, C, *] = (input - mean[C]) / sqrt(var[C] + eps) * weight[C] + bias[C]

    In inference mean and var are ``running_mean`` and ``running_var``: 2 FLOP per element and, per channel, 3 (add
    eps, rsqrt, mean * scale), 1 more for a weight and 1 for a bias. In training they are the batch's own: 4 FLOP per
    element more, and 7 per channel to update the running statistics where there are any.

    >>> from costmodel.tensor import f32
    >>> norm = dict(weight=f32(3), bias=f32(3), running_mean=f32(3), running_var=f32(3))
    >>> batch_norm(f32(2, 3, 4, 4), **norm, out=f32(2, 3, 4, 4)).vector_flops                  # 2*96 + 3*5
    207
    >>> batch_norm(f32(2, 3, 4, 4), **norm, training=True, out=f32(2, 3, 4, 4)).vector_flops   # 6*96 + 3*(5 + 7)
    612
    """
    elements, channels = input.numel, input.shape[1]
    per_channel = 3 + _given(weight, bias)
    operands = (input, weight, bias, running_mean, running_var)
    if not training:
        # The saved statistics that some names return besides are empty in inference, whatever a meta kernel says.
        return _normalization(2 * elements + channels * per_channel, *operands, out=spec_of(out))
    if running_mean is not None:
        per_channel += RUNNING_UPDATE_FLOPS
    return _normalization(
        6 * elements + channels * per_channel, *operands, out=out, updated=(running_mean, running_var)
    )


@formula("aten._batch_norm_with_update", "aten._batch_norm_with_update_functional")
def batch_norm_with_update(
    input: TensorSpec,
    weight: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    running_mean: TensorSpec | None = None,
    running_var: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """:func:`batch_norm` in training, by the name it has after functionalization.

    >>> from costmodel.tensor import f32
    >>> batch_norm_with_update(f32(2, 3, 4, 4), f32(3), f32(3), f32(3), f32(3), out=f32(2, 3, 4, 4)).vector_flops
    612
    """
    return batch_norm(input, weight, bias, running_mean, running_var, True, out=out)


@formula("aten.layer_norm", "aten.native_layer_norm")
def layer_norm(
    input: TensorSpec,
    normalized_shape: Sequence[Dim],
    weight: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """out[*, D] = (input - mean[*]) / sqrt(var[*] + eps) * weight[D] + bias[D], statistics over ``normalized_shape``

    Per row of n elements: mean n, variance 3 n, 2 for 1 / sqrt(var + eps), n to scale; weight and bias n each:
    7 n + 2 in all.

    >>> from costmodel.tensor import f32
    >>> layer_norm(f32(2, 5, 8), [8], f32(8), f32(8), out=f32(2, 5, 8)).vector_flops           # 10 rows of 7*8 + 2
    580
    """
    rows = product(input.shape[: len(input.shape) - len(normalized_shape)])
    vector_flops = (5 + _given(weight, bias)) * input.numel + 2 * rows
    return _normalization(vector_flops, input, weight, bias, out=out)


@formula("aten.rms_norm", "aten._fused_rms_norm")
def rms_norm(
    input: TensorSpec, normalized_shape: Sequence[Dim], weight: TensorSpec | None = None, *, out: Specs
) -> Cost:
    """out[*, D] = input / sqrt(mean of input^2 over D + eps) * weight[D]  (Zhang and Sennrich 2019, arXiv:1910.07467)

    Per row of n elements: n squares, their mean n, 2 for 1 / sqrt(. + eps), n to scale; the weight n: 4 n + 2.

    >>> from costmodel.tensor import f32
    >>> rms_norm(f32(2, 5, 8), [8], f32(8), out=f32(2, 5, 8)).vector_flops                     # 10 rows of 4*8 + 2
    340
    """
    rows = product(input.shape[: len(input.shape) - len(normalized_shape)])
    return _normalization((3 + _given(weight)) * input.numel + 2 * rows, input, weight, out=out)


def _instance_flops(
    elements: Dim, groups: Dim, channels: Dim, weight: TensorSpec | None, bias: TensorSpec | None
) -> Dim:
    """FLOP of normalizing ``groups`` of elements by their own statistics, with an affine map for each of ``channels``.

    Counted over the batch: 4 per element for the statistics and 2 for the map, 2 per group for 1 / sqrt(var + eps), and
    mean * scale per channel (per group, where there is no weight that tells channels apart); weight and bias 1 each.
    """
    mean_times_scale = groups if weight is None else channels
    return 6 * elements + 2 * groups + mean_times_scale + _given(weight, bias) * channels


@formula("aten.group_norm")
def group_norm(
    input: TensorSpec, num_groups: int, weight: TensorSpec | None = None, bias: TensorSpec | None = None, *, out: Specs
) -> Cost:
    """out[N, C, *] = (input - mean) / sqrt(var + eps) * weight[C] + bias[C], statistics over each of N * groups groups

    Statistics 4 FLOP per element, y = x * scale + shift 2; 2 per group for 1 / sqrt(var + eps), and 3 per image and
    channel to make scale and shift. With a group for each channel this is instance norm.

    >>> from costmodel.tensor import f32
    >>> group_norm(f32(2, 6, 4, 4), 3, f32(6), f32(6), out=f32(2, 6, 4, 4)).vector_flops      # 6*192 + 2*3*2 + 2*6*3
    1200
    """
    images, channels = input.shape[0], input.shape[1]
    vector_flops = _instance_flops(input.numel, images * num_groups, images * channels, weight, bias)
    return _normalization(vector_flops, input, weight, bias, out=out)


@formula("aten.native_group_norm")
def native_group_norm(
    input: TensorSpec,
    weight: TensorSpec | None,
    bias: TensorSpec | None,
    N: Dim,  # the schema's names
    C: Dim,
    group: int,
    *,
    out: Specs,
) -> Cost:
    """:func:`group_norm` as the dispatcher sees it: also mean and rstd of every group are written.

    >>> from costmodel.tensor import f32
    >>> results = f32(2, 6, 4, 4), f32(2, 3), f32(2, 3)
    >>> native_group_norm(f32(2, 6, 4, 4), f32(6), f32(6), 2, 6, 3, out=results).vector_flops
    1200
    """
    return _normalization(_instance_flops(input.numel, N * group, N * C, weight, bias), input, weight, bias, out=out)


@formula("aten.instance_norm")
def instance_norm(
    input: TensorSpec,
    weight: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    running_mean: TensorSpec | None = None,
    running_var: TensorSpec | None = None,
    use_input_stats: bool = True,
    *,
    out: Specs,
) -> Cost:
    """Batch norm of every image by itself: statistics over each of N * C planes; with running statistics, batch norm.

    To update running statistics each image makes its own update, 7 FLOP per plane, and these are averaged, 2.

    >>> from costmodel.tensor import f32
    >>> instance_norm(f32(2, 6, 4, 4), f32(6), f32(6), out=f32(2, 6, 4, 4)).vector_flops      # 6*192 + 2*6*(2 + 3)
    1212
    """
    if not use_input_stats:
        return batch_norm(input, weight, bias, running_mean, running_var, out=out)
    planes = input.shape[0] * input.shape[1]
    vector_flops = _instance_flops(input.numel, planes, planes, weight, bias)
    if running_mean is not None:
        vector_flops = vector_flops + (RUNNING_UPDATE_FLOPS + 2) * planes
    operands = (input, weight, bias, running_mean, running_var)
    return _normalization(vector_flops, *operands, out=out, updated=(running_mean, running_var))


@formula("aten._weight_norm", "aten._weight_norm_interface")
def weight_norm(v: TensorSpec, g: TensorSpec, *, out: Specs) -> Cost:
    """out = v * (g / |v|), the norm over all dimensions but one (Salimans and Kingma 2016, arXiv:1602.07868)

    Per row of n weights: n squares, n - 1 additions, a root, a division, n products: 3 n + 1.

    >>> from costmodel.tensor import f32
    >>> weight_norm(f32(4, 6), f32(4, 1), out=f32(4, 6)).vector_flops                         # 4 rows of 3*6 + 1
    76
    """
    return _normalization(3 * v.numel + g.numel, v, g, out=out)
