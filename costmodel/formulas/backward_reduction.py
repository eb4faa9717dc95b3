"""The backward of operators that fold many elements into one: softmax, distances, losses over classes.

A line is what was folded; n is its length. Boundary terms are counted exactly, as in the forward's sheet.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import cost, lines
from costmodel.formulas.registry import formula
from costmodel.symbols import product
from costmodel.tensor import TensorSpec

__all__ = ["log_softmax_backward", "nll_loss_backward", "softmax_backward"]


@formula("aten._softmax_backward_data")
def softmax_backward(grad_output: TensorSpec, output: TensorSpec, dim: int = -1, *, out: TensorSpec) -> Cost:
    """(g - sum(g * y)) * y: of n elements n products, n - 1 additions, n differences, n products.

    >>> from costmodel.tensor import f32
    >>> softmax_backward(f32(2, 10), f32(2, 10), out=f32(2, 10)).vector_flops           # 2 lines * (10 + 9 + 10 + 10)
    78
    """
    return cost(4 * output.numel - lines(output, dim), (grad_output, output), out)


@formula("aten._log_softmax_backward_data")
def log_softmax_backward(grad_output: TensorSpec, output: TensorSpec, dim: int = -1, *, out: TensorSpec) -> Cost:
    """g - exp(y) * sum(g): of n elements n - 1 additions, n exponentials, n products, n differences.

    >>> from costmodel.tensor import f32
    >>> log_softmax_backward(f32(2, 10), f32(2, 10), out=f32(2, 10)).vector_flops       # 2 lines * (9 + 10 + 10 + 10)
    78
    """
    return cost(4 * output.numel - lines(output, dim), (grad_output, output), out)


@formula("aten._masked_softmax_backward")
def masked_softmax_backward(
    grad_output: TensorSpec, output: TensorSpec, mask: TensorSpec, dim: int | None = None, *, out: TensorSpec
) -> Cost:
    """As :func:`softmax_backward`; masked elements are counted like the others."""
    along = -1 if dim is None else dim
    return cost(4 * output.numel - lines(output, along), (grad_output, output, mask), out)


@formula("aten.nll_loss_backward", "aten.nll_loss2d_backward")
def nll_loss_backward(
    grad_output: TensorSpec,
    target: TensorSpec,
    total_weight: TensorSpec,
    weight: Any = None,
    reduction: int = 1,
    *,
    out: TensorSpec,
) -> Cost:
    """-g at each target's class, zeros elsewhere: a negation each, a division for the mean, a product for a weight.

    The input's values are not needed; what the mean divides by is read, ``total_weight``.

    >>> from costmodel.tensor import f32
    >>> cost = nll_loss_backward(f32(), TensorSpec((4,), "int64"), f32(), out=f32(4, 10))
    >>> cost.vector_flops, cost.bytes_read, cost.bytes_written                          # 4*2; 4 + 4*8 + 4; 4*10*4
    (8, 40, 160)
    """
    per_target = 1 + (reduction == 1) + isinstance(weight, TensorSpec)
    return cost(per_target * target.numel, (grad_output, target, total_weight, weight), out)


def _of_distance(p: Any) -> tuple[int, int]:
    """FLOP of the derivative of a distance of order p: for each pair, for each feature of it."""
    return {2.0: (1, 2), 1.0: (0, 3), float("inf"): (0, 5)}.get(float(p), (2, 5))


@formula("aten._cdist_backward")
def cdist_backward(
    grad: TensorSpec, x1: TensorSpec, x2: TensorSpec, p: Any, cdist: TensorSpec, *, out: TensorSpec
) -> Cost:
    """Gradient by x1[*, P, M] of the distances to x2[*, R, M]: a sum over R of a derivative for each pair and feature.

    With d = x1 - x2, for p = 2: d * (g / distance), a division a pair and 2 FLOP a feature; for p = 1: g * sign(d), 3;
    for the largest (p = inf) g * sign(d) where |d| is the distance, 5; else d * |d|^(p - 2) * (g / distance^(p - 1)),
    a power and a division a pair and 5 a feature. Their sum over R is R - 1 additions for each element of x1.

    >>> from costmodel.tensor import f32
    >>> cdist_backward(f32(4, 5), f32(4, 3), f32(5, 3), 2.0, f32(4, 5), out=f32(4, 3)).vector_flops    # 20 + 120 + 48
    188
    """
    pairs, terms = grad.numel, grad.numel * x1.shape[-1]
    per_pair, per_feature = _of_distance(p)
    return cost(per_pair * pairs + per_feature * terms + terms - out.numel, (grad, x1, x2, cdist), out)


@formula("aten._pdist_backward")
def pdist_backward(grad: TensorSpec, input: TensorSpec, p: Any, pdist: TensorSpec, *, out: TensorSpec) -> Cost:
    """Gradient of the distances of any two of N rows: a derivative for each pair and feature as in
    :func:`cdist_backward`, which one row adds and the other subtracts; the last row subtracts them all.

    >>> from costmodel.tensor import f32
    >>> pdist_backward(f32(3), f32(3, 2), 2.0, f32(3), out=f32(3, 2)).vector_flops          # 3 + 3*2*2 + (2*6 - 6 + 2)
    23
    """
    pairs, features = grad.numel, input.shape[-1]
    per_pair, per_feature = _of_distance(p)
    sums = 2 * pairs * features - out.numel + features
    return cost(per_pair * pairs + per_feature * pairs * features + sums, (grad, input, pdist), out)


@formula("aten.multi_margin_loss_backward")
def multi_margin_loss_backward(
    grad_output: TensorSpec, input: TensorSpec, target: TensorSpec, p: Any, weight: Any = None, *, out: TensorSpec
) -> Cost:
    """``g * w[y] / C`` to each class whose margin is not kept, times 2 z where p is 2; to the target minus their sum.

    Of a sample the scale (1, and 1 for a weight) and margin - x[y]; for each of C - 1 classes a sum z and a
    comparison, 2 products where p is 2; C - 2 additions and a negation.

    >>> from costmodel.tensor import f32
    >>> multi_margin_loss_backward(f32(), f32(4, 5), TensorSpec((4,), "int64"), 1, out=f32(4, 5)).vector_flops
    56
    """
    samples, classes = product(input.shape[:-1]), input.shape[-1]
    each = 3 * classes - 1 + isinstance(weight, TensorSpec) + (2 * (classes - 1) if p == 2 else 0)
    return cost(samples * each, (grad_output, input, target, weight), out)
