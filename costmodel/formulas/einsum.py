"""Einstein sums: contracted pair by pair, as PyTorch does it.

Left to right, or along ``path`` where one is given; labels that no later operand and no output needs are
summed at once. A pair that shares a summed label is a batched matrix product (MACs: the product of all its
label sizes); a pair that shares none is an element-wise or outer product (one vector FLOP per element of the
result); a summed label of one operand alone is a sum taken first (n - 1 additions for n elements). Diagonals
and transpositions are views. Labels of size 1 contract nothing. ``torch.utils.flop_counter`` sees the same
matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from costmodel.cost import Cost
from costmodel.formulas.operands import contraction_cost, nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec

__all__ = ["bilinear", "einsum", "parse", "trilinear"]

#: A letter, or the place of a dimension under an ellipsis, counted from the right: -1, -2, ...
Label = str | int
#: Sizes by label, those of size 1 left out: they neither multiply nor sum.
Sizes = dict[Label, Dim]


@lru_cache(maxsize=1024)
def parse(equation: str, ranks: tuple[int, ...]) -> tuple[tuple[tuple[Label, ...], ...], tuple[Label, ...]]:
    """Labels of every operand and of the output, an ellipsis written out.

    Without an arrow the output has the ellipsis first, then the letters that occur once, in alphabetical order.

    >>> parse("...ij, jk", (3, 2))
    (((-1, 'i', 'j'), ('j', 'k')), (-1, 'i', 'k'))
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = tuple(_labels(term, rank) for term, rank in zip(left.split(","), ranks, strict=True))
    covered = sorted({label for term in terms for label in term if isinstance(label, int)})
    if arrow:
        return terms, _labels(right, len(right.replace("...", "")) + ("..." in right) * len(covered))
    letters = [label for term in terms for label in term if isinstance(label, str)]
    return terms, (*covered, *sorted(letter for letter in letters if letters.count(letter) == 1))


def _labels(term: str, rank: int) -> tuple[Label, ...]:
    before, ellipsis, after = term.partition("...")
    covered = range(len(before) + len(after) - rank, 0) if ellipsis else ()
    return (*before, *covered, *after)


@formula("aten.einsum")
def einsum(equation: str, tensors: Sequence[TensorSpec], path: Sequence[int] | None = None, *, out: TensorSpec) -> Cost:
    """The Einstein sum of ``tensors``; see this module for how it is taken apart.

    Every operand is read once and the result written once; what passes between the pairs of a longer chain
    is not compulsory traffic. A lone transposition or diagonal is a view and costs nothing.

    >>> from costmodel.tensor import f32
    >>> einsum("bij,bjk->bik", [f32(7, 2, 3), f32(7, 3, 4)], out=f32(7, 2, 4)).macs      # as bmm: 7*2*4*3
    168
    >>> einsum("i,j->ij", [f32(2), f32(3)], out=f32(2, 3)).flops                         # an outer product
    6
    >>> einsum("ii->i", [f32(3, 3)], out=f32(3))
    Cost(matrix_flops=0, vector_flops=0, bytes_read=0, bytes_written=0, launches=0, activations=0, workspace_bytes=0)
    """
    terms, output = parse(equation, tuple(len(t.shape) for t in tensors))
    return _contract(terms, output, tensors, path, out)


def _contract(
    terms: Sequence[Sequence[Label]],
    output: Sequence[Label],
    tensors: Sequence[TensorSpec],
    path: Sequence[int] | None,
    out: TensorSpec,
) -> Cost:
    """Contract all operands down to the output's labels and add the traffic."""
    operands: list[Sizes] = [_sizes(term, t.shape) for term, t in zip(terms, tensors, strict=True)]
    if len(operands) == 1:
        _, work = _sum_out(operands[0], set(operands[0]) - set(output))
    else:
        work = Cost()
    pairs = [(0, 1)] * (len(operands) - 1) if not path else list(zip(path[::2], path[1::2], strict=True))
    for i, j in pairs:
        right, left = operands.pop(max(i, j)), operands.pop(min(i, j))
        needed = set(output).union(*operands)
        result, cost = _pair(left, right, needed)
        # Without a path the product is the next left operand; along a path it goes to the end.
        operands.insert(len(operands) if path else 0, result)
        work = work + cost
    if isinstance(work.launches, int) and work.launches == 0:
        return work
    return work + Cost(bytes_read=nbytes(*tensors), bytes_written=out.nbytes)


def _sizes(labels: Sequence[Label], shape: Sequence[Dim]) -> Sizes:
    return {label: size for label, size in zip(labels, shape, strict=True) if size != 1}


def _sum_out(operand: Sizes, labels: set[Label]) -> tuple[Sizes, Cost]:
    """The operand summed over some of its labels: an addition for every element that disappears."""
    if not labels:
        return operand, Cost()
    kept = {label: size for label, size in operand.items() if label not in labels}
    return kept, Cost(vector_flops=product(operand.values()) - product(kept.values()), launches=1)


def _pair(left: Sizes, right: Sizes, needed: set[Label]) -> tuple[Sizes, Cost]:
    """Two operands into one, which keeps the labels in ``needed``."""
    left, left_sums = _sum_out(left, left.keys() - right.keys() - needed)
    right, right_sums = _sum_out(right, right.keys() - left.keys() - needed)
    union = left | right
    result = {label: size for label, size in union.items() if label in needed}
    elements = product(result.values())
    if len(result) == len(union):
        return result, left_sums + right_sums + Cost(vector_flops=elements, launches=1)
    return result, left_sums + right_sums + Cost(2 * product(union.values()), launches=1, activations=elements)


@formula("aten.bilinear")
def bilinear(
    input1: TensorSpec, input2: TensorSpec, weight: TensorSpec, bias: TensorSpec | None = None, *, out: TensorSpec
) -> Cost:
    """out[*, K] = input1[*, I] weight[K, I, J] input2[*, J] + bias[K]

    Two contractions: input1 with the weight, I MACs for each of K * J elements a row, then with input2, J MACs
    for each of K. (``torch.utils.flop_counter`` does not see this operator.)

    >>> from costmodel.tensor import f32
    >>> bilinear(f32(2, 3), f32(2, 4), f32(5, 3, 4), out=f32(2, 5)).macs            # 2*5*4*3 + 2*5*4
    160
    """
    elements, (inner1, inner2) = out.numel, weight.shape[1:]
    intermediate = elements * inner2
    return contraction_cost(
        intermediate * (inner1 + 1),
        input1, input2, weight, bias,
        out=out,
        vector_flops=0 if bias is None else elements,
        activations=intermediate + elements,
    )  # fmt: skip


@formula("aten._trilinear")
def trilinear(
    i1: TensorSpec,
    i2: TensorSpec,
    i3: TensorSpec,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    *,
    out: TensorSpec,
) -> Cost:
    """The sum over ``sumdim`` of i1 * i2 * i3, each with new dimensions at ``expand``: what :func:`bilinear` becomes.

    >>> from costmodel.tensor import f32
    >>> trilinear(f32(2, 3), f32(5, 3, 4), f32(2, 4), [1, 3], [0], [1, 2], [2, 3], out=f32(2, 5)).macs
    160
    """
    rank = len(i1.shape) + len(expand1)
    terms = [[d for d in range(rank) if d not in expand] for expand in (expand1, expand2, expand3)]
    output = [d for d in range(rank) if d not in sumdim]
    return _contract(terms, output, (i1, i2, i3), None, out)
