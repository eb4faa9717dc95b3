"""Sparse tensors: work for the elements that they store, and no other."""

from __future__ import annotations

from costmodel.cost import Cost
from costmodel.formulas.operands import Specs, nbytes, spec_of
from costmodel.formulas.registry import formula
from costmodel.formulas.sorting import ceil_log2
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec

__all__ = ["coalesce", "sparse_mm"]


@formula("sparse.sparse_mm")
def sparse_mm(
    matrix: TensorSpec,
    dense: TensorSpec,
    nnz: Dim,
    index_bytes: Dim = 0,
    added: TensorSpec | None = None,
    *,
    out: Specs,
) -> Cost:
    """out[M, N] = matrix[M, K] @ dense[K, N] (+ added), of a matrix that stores ``nnz`` elements

    N MACs for each stored element. Read once: the values stored, ``index_bytes`` [B] that say where they lie, the
    dense matrix. (That its rows are fetched again for each element is a matter of the kernel and its caches.)

    >>> from costmodel.tensor import f32
    >>> cost = sparse_mm(f32(6, 5), f32(5, 4), 7, 7 * 16, out=f32(6, 4))
    >>> cost.macs, cost.bytes_read                              # 7*4; 4 B * (7 + 5*4) + 112 B
    (28, 220)
    """
    result = spec_of(out)
    return Cost(
        matrix_flops=2 * nnz * product(dense.shape[1:]),
        vector_flops=0 if added is None else result.numel,
        bytes_read=nnz * matrix.itemsize + index_bytes + nbytes(dense, added),
        bytes_written=nbytes(out),
        launches=1,
        activations=result.numel,
    )


@formula("sparse.coalesce")
def coalesce(indices: TensorSpec, values: TensorSpec, *, out: Specs) -> Cost:
    """Rows of values sorted by where they lie, those of one place summed: n ceil(log2 n) comparisons for the sort,
    n - 1 of neighbours. Places are taken to differ, so nothing is added up.

    >>> from costmodel.tensor import f32
    >>> places = TensorSpec((8,), "int64")
    >>> coalesce(places, f32(8, 5), out=(places, f32(8, 5))).vector_flops                                  # 8*3 + 7
    31
    """
    n = indices.numel
    return Cost(
        vector_flops=n * ceil_log2(n) + n - 1, bytes_read=nbytes(indices, values), bytes_written=nbytes(out), launches=1
    )
