"""The backward of operators that fold many elements into one: softmax, distances, losses over classes.

A line is what was folded; n is its length. Boundary terms are counted exactly, as in the forward's sheet.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import cost, lines
from costmodel.formulas.registry import formula
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
    per_pair, per_feature = {2.0: (1, 2), 1.0: (0, 3), float("inf"): (0, 5)}.get(float(p), (2, 5))
    return cost(per_pair * pairs + per_feature * terms + terms - out.numel, (grad, x1, x2, cdist), out)
