"""Eigenvalues and singular values: algorithms that iterate until they converge, by their customary counts.

How often they iterate depends on values. The counts are those of G. Golub and C. Van Loan, Matrix Computations, 4th
edition, which take about two steps a value: leading terms, no lower ones. Vector FLOPs, as in the sheet of
factorizations. A complex operation counts once.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import cost
from costmodel.formulas.factorization import matrices
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, minimum
from costmodel.tensor import TensorSpec

__all__ = ["svd_flops"]


def svd_flops(rows: Dim, columns: Dim, *, vectors: bool = True, full: bool = False) -> Dim:
    """Singular values of one matrix, by Golub and Reinsch or after a QR decomposition, whichever asks for less.

    With m the longer side and n the shorter (figure 8.6.1): values alone 4 m n^2 - 4 n^3 / 3 or 2 m n^2 + 2 n^3; with
    n vectors of each side 14 m n^2 + 8 n^3 or 6 m n^2 + 20 n^3; with all m of the longer side
    4 m^2 n + 8 m n^2 + 9 n^3 or 4 m^2 n + 22 n^3.

    >>> svd_flops(3, 3), svd_flops(3, 3, vectors=False), svd_flops(300, 3, vectors=False)
    (594, 72, 5454)
    """
    n = minimum(rows, columns)
    m = rows + columns - n
    square, cube = m * n * n, n * n * n
    if not vectors:
        return minimum(4 * square - floor_div(4 * cube, 3), 2 * square + 2 * cube)
    if full:
        return 4 * m * m * n + minimum(8 * square + 9 * cube, 22 * cube)
    return minimum(14 * square + 8 * cube, 6 * square + 20 * cube)


@formula("aten._linalg_svd")
def svd(A: TensorSpec, full_matrices: bool = False, compute_uv: bool = True, *, out: Any) -> Cost:
    """A = U S V^T: :func:`svd_flops` for each matrix.

    >>> from costmodel.tensor import f32
    >>> svd(f32(5, 3, 3), False, False, out=f32(5, 3)).flops                                           # 5 of 72
    360
    """
    flops = svd_flops(*A.shape[-2:], vectors=compute_uv, full=full_matrices)  # type: ignore[misc]
    return cost(matrices(A) * flops, (A,), out)


@formula("aten.linalg_pinv")
def pinv(input: TensorSpec, hermitian: bool = False, *, out: TensorSpec) -> Cost:
    """V S^-1 U^T by singular values, of a Hermitian matrix by eigenvalues: n quotients, n scaled columns, a product.

    >>> from costmodel.tensor import f32
    >>> pinv(f32(3, 3), out=f32(3, 3)).flops                                                # 594 + 3 + 9 + 2 * 27
    660
    """
    rows, columns = input.shape[-2:]
    n = minimum(rows, columns)
    found = _SYMMETRIC[True](n) if hermitian else svd_flops(rows, columns)
    return cost(matrices(input) * (found + n + columns * n + 2 * rows * columns * n), (input,), out)


#: FLOP of the symmetric QR algorithm without and with vectors (section 8.3.5).
_SYMMETRIC = {False: lambda n: floor_div(4 * n * n * n, 3), True: lambda n: 9 * n * n * n}


@formula("aten._linalg_eigh")
def eigh(A: TensorSpec, compute_v: bool = True, *, out: Any) -> Cost:
    """A = V L V^T of a symmetric matrix: 9 n^3 by the symmetric QR algorithm, 4 n^3 / 3 for the values alone
    (section 8.3.5).

    >>> from costmodel.tensor import f32
    >>> eigh(f32(3, 3), out=f32(3, 3)).flops, eigh(f32(3, 3), compute_v=False, out=f32(3)).flops
    (243, 36)
    """
    return cost(matrices(A) * _SYMMETRIC[bool(compute_v)](A.shape[-1]), (A,), out)


@formula("aten.linalg_eig")
def eig(input: TensorSpec, *, out: Any) -> Cost:
    """A V = V L of any square matrix: 25 n^3 for the Schur form and its vectors by Francis' QR algorithm (section
    7.5.6)."""
    n = input.shape[-1]
    return cost(matrices(input) * 25 * n * n * n, (input,), out)


@formula("aten.linalg_eigvals", "aten._linalg_eigvals")
def eigvals(input: TensorSpec, *, out: Any) -> Cost:
    """Eigenvalues of any square matrix alone: 10 n^3 (section 7.5.6).

    >>> from costmodel.tensor import f32
    >>> eigvals(f32(2, 2), out=f32(2)).flops
    80
    """
    n = input.shape[-1]
    return cost(matrices(input) * 10 * n * n * n, (input,), out)


@formula("aten.linalg_matrix_exp")
def matrix_exp(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """exp(A) by its Taylor polynomial of degree 18, which takes five products of matrices (P. Bader, S. Blanes and
    F. Casas, Mathematics 7, 2019, as PyTorch does): 10 n^3. A small norm needs fewer, a large one a product more each
    time that it doubles; its sums of matrices, and the norm, are left out.

    >>> from costmodel.tensor import f32
    >>> matrix_exp(f32(2, 2), out=f32(2, 2)).flops
    80
    """
    n = input.shape[-1]
    return cost(matrices(input) * 10 * n * n * n, (input,), out)
