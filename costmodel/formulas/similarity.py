"""Similarities and distances of vectors that are products of vectors or of matrices."""

from __future__ import annotations

from costmodel.cost import Cost
from costmodel.formulas.contraction import common_size
from costmodel.formulas.operands import contraction_cost, nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import product
from costmodel.tensor import TensorSpec

__all__ = ["cosine_similarity", "euclidean_dist"]


@formula("aten.cosine_similarity")
def cosine_similarity(x1: TensorSpec, x2: TensorSpec, dim: int = 1, *, out: TensorSpec) -> Cost:
    """out = sum over ``dim`` of (x1 / max(|x1|, eps)) * (x2 / max(|x2|, eps)), as PyTorch computes it.

    For each pair of vectors of length D: two norms (D squares, D - 1 additions, a root, a comparison), 2 D
    divisions and a dot product (D products, D - 1 additions): 8 D + 1 vector FLOP.

    >>> from costmodel.tensor import f32
    >>> cosine_similarity(f32(2, 3), f32(2, 3), out=f32(2)).vector_flops                 # 2 pairs, 8*3 + 1 each
    50
    """
    length = common_size(x1, x2, dim)
    return Cost(
        vector_flops=out.numel * (8 * length + 1), bytes_read=nbytes(x1, x2), bytes_written=out.nbytes, launches=1
    )


@formula("aten._euclidean_dist")
def euclidean_dist(x1: TensorSpec, x2: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[*, P, R] = sqrt(max(|x1|^2 - 2 x1 . x2 + |x2|^2, 0)), all of it one product of matrices of width D + 2.

    [-2 x1, |x1|^2, 1] @ [x2, 1, |x2|^2].T: D + 2 MACs a pair, then a comparison and a root; before it D
    products per row of x1 and 2 D - 1 FLOP per row of either for the squares.

    >>> from costmodel.tensor import f32
    >>> cost = euclidean_dist(f32(4, 3), f32(5, 3), out=f32(4, 5))
    >>> cost.macs, cost.vector_flops                               # 4*5*(3+2); 4*3 + (4+5)*(2*3-1) + 2*4*5
    (100, 97)
    """
    rows1, rows2 = product(x1.shape[:-1]), product(x2.shape[:-1])
    squares = 2 * x1.numel - rows1 + 2 * x2.numel - rows2
    macs = out.numel * (x1.shape[-1] + 2)
    return contraction_cost(macs, x1, x2, out=out, vector_flops=x1.numel + squares + 2 * out.numel)
