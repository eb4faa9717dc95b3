"""Operators that fold many elements into one: sums, extrema, norms, softmax, running sums.

A line is what is folded into one result; n is its length. Boundary terms are counted exactly: the sum
of n numbers is n - 1 additions. Every operand is read once, every result written once.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import aten, cost, lines
from costmodel.formulas.operands import nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, maximum, minimum, product
from costmodel.tensor import TensorSpec

__all__ = ["FOLDS", "SCANS"]

#: FLOP of folding a line of n elements: (a, b) stands for a*n + b.
FOLDS: dict[str, tuple[int, int]] = {
    "sum": (1, -1),  # n-1 additions
    "mean": (1, 0),  # n-1 additions, 1 division
    "prod": (1, -1),  # n-1 multiplications
    "amax amin max min argmax argmin": (1, -1),  # n-1 comparisons
    "aminmax _aminmax": (2, -2),  # n-1 comparisons for each end
    "all any _is_all_true _is_any_true": (1, -1),  # n-1 ands or ors
    "equal": (2, -1),  # n comparisons, n-1 ands
    "count_nonzero": (2, -1),  # n comparisons, n-1 additions
    "nansum": (2, -1),  # n tests for nan, n-1 additions
    "var var_mean": (4, 0),  # mean: n-1 add, 1 div; n sub; n squares; n-1 add; 1 div
    "std std_mean": (4, 1),  # the variance, 1 square root
    "logsumexp special_logsumexp": (4, 0),  # n-1 max; n sub; n exp; n-1 add; 1 log; 1 add
}

#: FLOP of each step of a running operation; a line of n elements takes n - 1 steps.
SCANS: dict[str, int] = {
    "cumsum": 1,  # add
    "cumprod": 1,  # multiply
    "cummax cummin": 1,  # compare
    "logcumsumexp _logcumsumexp": 4,  # log(exp(x) + exp(y)): 2 exp, add, log
}


def _first(out: Any) -> TensorSpec:
    return out if isinstance(out, TensorSpec) else out[0]  # type: ignore[no-any-return]


def _register_fold(operators: str, per_element: int, per_line: int) -> None:
    @formula(*aten(operators))
    def fold(input: TensorSpec, other: Any = None, *, out: Any) -> Cost:
        if isinstance(other, TensorSpec) and operators != "equal":  # torch.max(x, y) is maximum
            return cost(_first(out).numel, (input, other), out)
        results = _first(out).numel if out else 1  # what puts out a Python number has no spec
        return cost(per_element * input.numel + per_line * results, (input, other), out)

    fold.__doc__ = f"Each line of n elements: {per_element}*n + {per_line} FLOP."


def _register_scan(operators: str, per_step: int) -> None:
    @formula(*aten(operators))
    def scan(input: TensorSpec, dim: int, *, out: Any) -> Cost:
        return cost(per_step * (input.numel - lines(input, dim)), (input,), out)

    scan.__doc__ = f"Each line of n elements: n - 1 steps of {per_step} FLOP."


for _operators, (_per_element, _per_line) in FOLDS.items():
    _register_fold(_operators, _per_element, _per_line)
for _operators, _per_step in SCANS.items():
    _register_scan(_operators, _per_step)


def _norm_flops(order: Any, elements: Dim, results: Dim) -> Dim:
    """FLOP of vector norms of some order, over lines that hold ``elements`` in all."""
    if order in (0, 1, float("inf"), float("-inf")):  # x != 0 or |x|: n; n-1 additions or comparisons
        return 2 * elements - results
    if order == 2:  # n squares; n-1 additions; 1 square root
        return 2 * elements
    return 3 * elements  # n absolute values; n powers; n-1 additions; 1 root


@formula("aten.linalg_vector_norm")
def vector_norm(input: TensorSpec, ord: Any = 2, *, out: TensorSpec) -> Cost:
    """``(sum |x|^p)^(1/p)``; for p = 2: n multiplications, n - 1 additions, one root.

    >>> from costmodel.tensor import f32
    >>> vector_norm(f32(3, 5), out=f32(3)).vector_flops             # 3 lines of 5: 5 mul, 4 add, 1 sqrt
    30
    """
    return cost(_norm_flops(ord, input.numel, out.numel), (input,), out)


@formula("aten.norm")
def norm(input: TensorSpec, p: Any = 2, *, out: TensorSpec) -> Cost:
    """As :func:`vector_norm`."""
    return cost(_norm_flops(2 if p is None else p, input.numel, out.numel), (input,), out)


@formula("aten.dist")
def dist(input: TensorSpec, other: TensorSpec, p: Any = 2, *, out: TensorSpec) -> Cost:
    """Norm of the difference: one subtraction per element more than :func:`vector_norm`."""
    return cost(input.numel + _norm_flops(p, input.numel, out.numel), (input, other), out)


@formula("aten._cdist_forward", "aten.cdist")
def cdist(x1: TensorSpec, x2: TensorSpec, p: Any = 2, *, out: TensorSpec) -> Cost:
    """out[*, P, R] = norm of x1[*, P, M] - x2[*, R, M]: M subtractions and a norm of M elements each."""
    differences = out.numel * x1.shape[-1]
    return cost(differences + _norm_flops(p, differences, out.numel), (x1, x2), out)


@formula("aten._pdist_forward")
def pdist(input: TensorSpec, p: Any = 2, *, out: TensorSpec) -> Cost:
    """Norms of the differences of any two of N rows of M: N (N - 1) / 2 pairs, M subtractions and a norm each.

    >>> from costmodel.tensor import f32
    >>> pdist(f32(4, 5), 2, out=f32(6)).vector_flops                                # 6 pairs: 5 sub, 5 mul, 4 add, sqrt
    90
    """
    differences = out.numel * input.shape[-1]
    return cost(differences + _norm_flops(p, differences, out.numel), (input,), out)


def _renormed(elements: Dim, lines: Dim, order: Any) -> Dim:
    """A norm a line; whether it is above the largest, max / (norm + eps); a product for each element."""
    return _norm_flops(order, elements, lines) + 3 * lines + elements


@formula("aten.renorm")
def renorm(input: TensorSpec, p: Any, dim: int, *, out: TensorSpec) -> Cost:
    """Each slice along ``dim`` scaled down to a largest norm: the norm, 3 FLOP a slice, a product an element.

    >>> from costmodel.tensor import f32
    >>> renorm(f32(2, 5), 2, 0, out=f32(2, 5)).vector_flops                         # 2 slices: 10 for the norm, 3, 5
    36
    """
    return cost(_renormed(input.numel, input.shape[dim], p), (input,), out)


@formula("aten.embedding_renorm")
def embedding_renorm(input: TensorSpec, indices: TensorSpec, norm_type: Any = 2, *, out: Any) -> Cost:
    """:func:`renorm` of the rows that are looked up, which are taken to differ, as far as the table has so many; which
    rows they are is arithmetic of indices.

    >>> from costmodel.tensor import f32
    >>> embedding_renorm(f32(9, 5), TensorSpec((2,), "int64"), 2.0, out=f32(9, 5)).vector_flops
    36
    """
    rows = minimum(indices.numel, input.shape[0])
    elements = rows * input.shape[1]
    moved = elements * input.itemsize
    return Cost(vector_flops=_renormed(elements, rows, norm_type), bytes_read=moved + nbytes(indices),
                bytes_written=moved, launches=1)  # fmt: skip


@formula("aten._softmax", "aten.softmax", "aten.special_softmax")
def softmax(input: TensorSpec, dim: int = -1, *, out: TensorSpec) -> Cost:
    """exp(x - max) / sum: of n elements n-1 comparisons, n subtractions, n exp, n-1 additions, n divisions.

    >>> from costmodel.tensor import f32
    >>> softmax(f32(2, 10), -1, out=f32(2, 10)).vector_flops        # 2 lines * (9 + 10 + 10 + 9 + 10)
    96
    """
    return cost(5 * input.numel - 2 * lines(input, dim), (input,), out)


@formula("aten._safe_softmax")
def safe_softmax(input: TensorSpec, dim: int = -1, *, out: TensorSpec) -> Cost:
    """Softmax that gives 0 where a whole line is -inf: n comparisons and n - 1 ands more than :func:`softmax`."""
    return cost(7 * input.numel - 3 * lines(input, dim), (input,), out)


@formula("aten._masked_softmax")
def masked_softmax(input: TensorSpec, mask: TensorSpec, dim: int | None = None, *, out: TensorSpec) -> Cost:
    """Softmax of the elements that a mask leaves; masked ones are counted like the others."""
    return cost(5 * input.numel - 2 * lines(input, -1 if dim is None else dim), (input, mask), out)


@formula("aten._log_softmax", "aten.log_softmax", "aten.special_log_softmax")
def log_softmax(input: TensorSpec, dim: int = -1, *, out: TensorSpec) -> Cost:
    """(x - max) - log(sum(exp(x - max))): n-1 comparisons, n subtractions, n exp, n-1 additions, 1 log, n subtractions.

    >>> from costmodel.tensor import f32
    >>> log_softmax(f32(2, 10), -1, out=f32(2, 10)).vector_flops    # 2 lines * (9 + 10 + 10 + 9 + 1 + 10)
    98
    """
    return cost(5 * input.numel - lines(input, dim), (input,), out)


@formula("aten.trace")
def trace(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """n - 1 additions along the diagonal, whose n elements alone are read."""
    rows, columns = input.shape
    diagonal = rows + columns - maximum(rows, columns)
    return cost(diagonal - 1, (), out, read_also=diagonal * input.itemsize)


@formula("aten.linalg_cross", "aten.cross")
def cross(input: TensorSpec, other: TensorSpec, *, out: TensorSpec) -> Cost:
    """Each of three components ``a*d - b*c``: 3 FLOP."""
    return cost(3 * out.numel, (input, other), out)


#: Loss of one element, in operations, before it is averaged or summed.
_LOSSES: dict[str, int] = {
    "mse_loss": 2,  # (x - y)^2: subtract, square
    "l1_loss": 2,  # |x - y|
    "smooth_l1_loss": 7,  # d = |x - y|; d < beta; 0.5*d*d/beta: 3; d - 0.5*beta: 1
    "huber_loss": 7,  # d = |x - y|; d < delta; 0.5*d*d: 2; delta*(d - 0.5*delta): 2
    "soft_margin_loss": 4,  # log1p(exp(-y * x)): negate, multiply, exp, log1p
    "binary_cross_entropy": 8,  # -(y log x + (1-y) log(1-x)): 2 log, 2 mul, 2 sub, add, neg
}


def _register_loss(operator: str, per_element: int) -> None:
    @formula(f"aten.{operator}")
    def loss(input: TensorSpec, target: TensorSpec, weight: Any = None, reduction: int = 1, *, out: TensorSpec) -> Cost:
        folded = input.numel - 1 + int(reduction == 1) if reduction else 0
        weighted = input.numel if isinstance(weight, TensorSpec) else 0
        return cost(per_element * input.numel + weighted + folded, (input, target, weight), out)

    loss.__doc__ = f"{per_element} FLOP per element; then their sum (reduction 2), and a division for the mean (1)."


for _operator, _per_element in _LOSSES.items():
    _register_loss(_operator, _per_element)


@formula("aten.binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    input: TensorSpec,
    target: TensorSpec,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: int = 1,
    *,
    out: TensorSpec,
) -> Cost:
    """(1 - y) * x - w * log_sigmoid(x), w = 1 + (pos_weight - 1) * y where that is given; a weight; their sum or mean.

    1 - y, a product, log_sigmoid 4 and the difference are 7 FLOP an element; pos_weight 3 more, and 1 for each of it.

    >>> from costmodel.tensor import f32
    >>> binary_cross_entropy_with_logits(f32(4, 5), f32(4, 5), out=f32()).vector_flops              # 7*20 + 19 + 1
    160
    """
    folded = input.numel - 1 + int(reduction == 1) if reduction else 0
    each = 7 + isinstance(weight, TensorSpec)
    if isinstance(pos_weight, TensorSpec):
        folded = folded + 3 * input.numel + pos_weight.numel
    return cost(each * input.numel + folded, (input, target, weight, pos_weight), out)


@formula("aten.nll_loss_forward", "aten.nll_loss2d_forward", "aten.nll_loss", "aten.nll_loss2d")
def nll_loss(input: TensorSpec, target: TensorSpec, weight: Any = None, reduction: int = 1, *, out: Any) -> Cost:
    """-input[i, target[i]], fetched and negated; summed, and divided for the mean."""
    targets = target.numel
    folded = targets - 1 + int(reduction == 1) if reduction else 0
    weighted = 2 * targets if isinstance(weight, TensorSpec) else 0
    return cost(targets + weighted + folded, (target, weight), out, read_also=targets * input.itemsize)


@formula("aten.multi_margin_loss")
def multi_margin_loss(
    input: TensorSpec, target: TensorSpec, p: Any = 1, weight: Any = None, reduction: int = 1, *, out: TensorSpec
) -> Cost:
    """Sum over the classes j but the target y of ``w[y] * max(0, margin - x[y] + x[j])^p / C``.

    Of a sample margin - x[y] once; for each of C - 1 classes a sum and a comparison, a square where p is 2, a product
    with the weight; C - 2 additions and the quotient. Then the samples' sum, or mean.

    >>> from costmodel.tensor import f32
    >>> multi_margin_loss(f32(4, 5), TensorSpec((4,), "int64"), out=f32()).vector_flops     # 4 * (1 + 8 + 3 + 1); 3 + 1
    56
    """
    samples, classes = product(input.shape[:-1]), input.shape[-1]
    each = 3 + (p == 2) + isinstance(weight, TensorSpec)
    folded = samples - 1 + int(reduction == 1) if reduction else 0
    return cost(samples * ((classes - 1) * each + 1) + folded, (input, target, weight), out)


@formula("aten._linalg_check_errors")
def check_errors(info: TensorSpec, *, out: Any) -> Cost:
    """Whether any matrix of a batch was singular: n - 1 ors of its flags, which the host waits for.

    >>> check_errors(TensorSpec((8,), "int32"), out=()).flops
    7
    """
    return cost(info.numel - 1, (info,), out)
