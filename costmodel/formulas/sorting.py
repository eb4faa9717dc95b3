"""Sorting, selecting and searching: comparisons whose number depends on values, so conventions say how many count.

Sorting n keys counts n*ceil(log2 n) comparisons, the bound of a merge sort; keeping the k best of n keys
counts n*(1 + ceil(log2 k)), one comparison with the worst that is kept and a place in the heap.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import cost, lines
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, is_symbolic
from costmodel.tensor import TensorSpec

__all__ = ["ceil_log2"]

#: A symbolic size has at most 2^32 elements.
_MAX_EXPONENT = 32


def ceil_log2(size: Dim) -> Dim:
    """The logarithm to base 2, rounded up: stages of a merge sort or of a radix-2 FFT.

    For a symbol the sum over k of min(1, (size - 1) // 2^k), which is integer arithmetic.

    >>> ceil_log2(1), ceil_log2(8), ceil_log2(9)
    (0, 3, 4)
    """
    if isinstance(size, int):
        return max(size - 1, 0).bit_length()
    if not is_symbolic(size):
        return ceil_log2(int(size))
    return _symbolic_log2(size)


@lru_cache(maxsize=256)
def _symbolic_log2(size: Any) -> Any:
    import sympy

    terms = (sympy.Min(1, floor_div(size - 1, 2**k), evaluate=False) for k in range(_MAX_EXPONENT))
    return sympy.Add(*terms)  # Min unevaluated: sympy's own check of each term against 1 takes 60 ms


def _length(input: TensorSpec, dim: int) -> Dim:
    return input.shape[dim] if input.shape else 1


@formula("aten.sort", "aten.argsort", "aten.msort")
def sort(input: TensorSpec, dim: int = -1, *, out: Any) -> Cost:
    """Sorted values and their indices: n*ceil(log2 n) comparisons a line.

    >>> from costmodel.tensor import f32
    >>> sort(f32(3, 8), out=(f32(3, 8), TensorSpec((3, 8), "int64"))).vector_flops      # 3 lines * 8 * 3
    72
    """
    return cost(input.numel * ceil_log2(_length(input, dim)), (input,), out)


@formula("aten.median", "aten.nanmedian", "aten.kthvalue", "aten.mode")
def order_statistic(input: TensorSpec, dim: int | None = None, *, out: Any) -> Cost:
    """An element of the sorted line: counted as its sort."""
    length = input.numel if dim is None else _length(input, dim)
    return cost(input.numel * ceil_log2(length), (input,), out)


@formula("aten.topk")
def topk(input: TensorSpec, k: Dim, *, out: Any) -> Cost:
    """The k largest of each line and their indices: n*(1 + ceil(log2 k)) comparisons."""
    return cost(input.numel * (1 + ceil_log2(k)), (input,), out)


@formula("aten._unique2", "aten._unique", "aten.unique_dim")
def unique(input: TensorSpec, *, out: Any) -> Cost:
    """Sort, then compare neighbours: n*ceil(log2 n) + n - 1. How many are written depends on values."""
    size = input.numel
    return cost(size * ceil_log2(size) + size - 1, (input,), out)


@formula("aten.unique_consecutive", "aten.unique_dim_consecutive")
def unique_consecutive(input: TensorSpec, *, out: Any) -> Cost:
    """n - 1 comparisons of neighbours."""
    return cost(input.numel - 1, (input,), out)


@formula("aten.nonzero", "aten.nonzero_static", "aten.argwhere")
def nonzero(input: TensorSpec, *, out: Any) -> Cost:
    """One comparison with zero each; how many indices are written depends on values."""
    return cost(input.numel, (input,), out)


@formula("aten.searchsorted")
def searchsorted(sorted_sequence: TensorSpec, input: Any = None, sorter: Any = None, *, out: TensorSpec) -> Cost:
    """A binary search for each value among n: ceil(log2(n + 1)) comparisons."""
    return cost(out.numel * ceil_log2(sorted_sequence.shape[-1] + 1), (sorted_sequence, input, sorter), out)


@formula("aten.bucketize")
def bucketize(input: Any, boundaries: TensorSpec, *, out: TensorSpec) -> Cost:
    """A binary search for each value among n boundaries: ceil(log2(n + 1)) comparisons."""
    return cost(out.numel * ceil_log2(boundaries.shape[-1] + 1), (input, boundaries), out)


@formula("aten.isin")
def isin(elements: Any, test_elements: Any, *, out: TensorSpec) -> Cost:
    """Each element compared with each of m test elements: m comparisons, m - 1 ors."""
    tests = test_elements.numel if isinstance(test_elements, TensorSpec) else 1
    return cost((2 * tests - 1) * out.numel, (elements, test_elements), out)


@formula("aten.bincount", "aten.histc")
def histogram(input: TensorSpec, weights: Any = None, *, out: TensorSpec) -> Cost:
    """One addition to a bin for each element; finding the bin is arithmetic of indices."""
    return cost(input.numel, (input, weights), out)


@formula("aten.multinomial")
def multinomial(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Running sums of the n weights of a row (n - 1 additions, n divisions), then a binary search a sample."""
    draws = out.numel * ceil_log2(input.shape[-1])
    return cost(2 * input.numel - lines(input, -1) + draws, (input,), out)


@formula("torchvision.nms")
def nms(dets: TensorSpec, scores: TensorSpec, *, out: TensorSpec) -> Cost:
    """Non-maximum suppression of n boxes, at most: a sort by score, n areas, and n(n-1)/2 overlaps.

    An area is 3 FLOP. An overlap is 4 max/min for the corners, 2 subtractions and 2 max with 0 for the
    sides, 1 product, 2 for the union, 1 division, 1 comparison with the threshold: 13. How many overlaps
    are needed depends on the boxes.
    """
    n = dets.shape[0]
    pairs = n * (n - 1) // 2 if isinstance(n, int) else n * (n - 1) / 2
    return cost(n * ceil_log2(n) + 3 * n + 13 * pairs, (dets, scores), out)
