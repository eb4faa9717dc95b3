"""Connectionist temporal classification (Graves et al. 2006): the loss of a transcript without alignment, both ways.

A target of S labels has 2 S + 1 states (blanks before, between and after them). A step of the recursion folds up to
three predecessors of a state in logarithms, m + log(sum of exp(a - m)) with m their maximum, and adds the label's
logarithmic probability: 2 comparisons, 3 differences, 3 exponentials, 2 additions, a logarithm and 2 more additions, 13
FLOP. All states are counted as if they had three predecessors, all sequences as if they were as long as the longest.
"""

from __future__ import annotations

from costmodel.cost import Cost
from costmodel.formulas.elements import cost
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim
from costmodel.tensor import TensorSpec

__all__ = ["STATE_FLOPS", "ctc_loss", "ctc_loss_backward"]

#: One step of the recursion for one state.
STATE_FLOPS = 13


def _recursion(log_probs: TensorSpec, log_alpha: TensorSpec) -> Dim:
    """FLOP of alpha or beta [N, T, 2 S + 1], whose first step is given."""
    images, steps, states = log_alpha.shape
    return STATE_FLOPS * images * (steps - 1) * states


@formula("aten._ctc_loss")
def ctc_loss(log_probs: TensorSpec, targets: TensorSpec, *, out: tuple[TensorSpec, ...]) -> Cost:
    """(loss[N], log alpha[N, T, 2 S + 1]) of log_probs[T, N, C]: the recursion, and the last two states folded, 9.

    >>> from costmodel.tensor import f32
    >>> ctc_loss(f32(5, 2, 4), TensorSpec((2, 3), "int64"), out=(f32(2), f32(2, 5, 7))).vector_flops   # 13*2*4*7 + 9*2
    746
    """
    loss, log_alpha = out
    return cost(_recursion(log_probs, log_alpha) + 9 * loss.numel, (log_probs, targets), out)


@formula("aten._ctc_loss_backward")
def ctc_loss_backward(
    grad: TensorSpec,
    log_probs: TensorSpec,
    targets: TensorSpec,
    neg_log_likelihood: TensorSpec,
    log_alpha: TensorSpec,
    *,
    out: TensorSpec,
) -> Cost:
    """(exp(lp) - exp(r + loss - lp)) * g, with r for each class the logarithm of the sum of alpha * beta of its states.

    beta is the same recursion from the end; each state is added to its class in logarithms, 1 + 8 FLOP; each of
    log_probs' elements takes 6.

    >>> from costmodel.tensor import f32
    >>> targets, alpha = TensorSpec((2, 3), "int64"), f32(2, 5, 7)
    >>> ctc_loss_backward(f32(2), f32(5, 2, 4), targets, f32(2), alpha, out=f32(5, 2, 4)).vector_flops
    1598
    """
    flops = _recursion(log_probs, log_alpha) + 9 * log_alpha.numel + 6 * log_probs.numel
    return cost(flops, (grad, log_probs, targets, neg_log_likelihood, log_alpha), out)
