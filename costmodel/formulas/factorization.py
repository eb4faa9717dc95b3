"""Factorizations of matrices and the systems that they leave, by the textbook's loops: LU, Cholesky, LDL, QR.

Their products are vector FLOPs: libraries block them in their own ways, and no counter takes them for MACs. Counts are
exact for the loops that each docstring names; leading terms are those of G. Golub and C. Van Loan, Matrix Computations,
4th edition, and of LAPACK's own count (Working Note 41, appendix C). Neither counts the comparisons that look for a
pivot, and nor do these. Matrices in front are a batch. A complex operation counts once.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import cost
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, minimum, product
from costmodel.tensor import TensorSpec, tensors_in

__all__ = ["lu_flops", "matrices", "qr_flops", "reflections_flops"]


def matrices(spec: TensorSpec) -> Dim:
    """How many matrices a tensor holds: the elements of its dimensions before the last two."""
    return product(spec.shape[:-2])


def _to(count: Dim) -> tuple[Dim, Dim]:
    """(sum of k, sum of k^2) for k from 0 to ``count - 1``."""
    return floor_div(count * (count - 1), 2), floor_div(count * (count - 1) * (2 * count - 1), 6)


# -- LU ------------------------------------------------------------------------------------------


def lu_flops(rows: Dim, columns: Dim) -> Dim:
    """Gaussian elimination: column k of r = min(m, n) takes m - 1 - k divisions, and a multiplication and a subtraction
    for each element right of it: 2 n^3 / 3 - n^2 / 2 - n / 6 for a square matrix.

    >>> lu_flops(3, 3)                                                        # 2 + 1 divisions; 2 * (4 + 1)
    13
    """
    steps = minimum(rows, columns)
    first, second = _to(steps)
    divisions = steps * (rows - 1) - first
    return divisions + 2 * (steps * (rows - 1) * (columns - 1) - (rows + columns - 2) * first + second)


@formula("aten.linalg_lu_factor_ex", "aten.linalg_lu")
def lu(A: TensorSpec, *, out: Any) -> Cost:
    """P A = L U with partial pivoting (Golub and Van Loan, section 3.4): 2 n^3 / 3.

    >>> from costmodel.tensor import f32
    >>> lu(f32(4, 3, 3), out=f32(4, 3, 3)).flops                                                    # 4 of 13
    52
    """
    return cost(matrices(A) * lu_flops(*A.shape[-2:]), (A,), out)


@formula("aten.linalg_lu_solve")
def lu_solve(LU: TensorSpec, pivots: TensorSpec, B: TensorSpec, *, out: TensorSpec) -> Cost:
    """A X = B by its two triangles, n (n - 1) for the unit one and n^2: 2 n^2 - n for each column of B.

    >>> from costmodel.tensor import f32
    >>> lu_solve(f32(3, 3), f32(3), f32(3, 2), out=f32(3, 2)).flops                                # 2 columns of 15
    30
    """
    order = LU.shape[-1]
    return cost(out.numel * (2 * order - 1), (LU, pivots, B), out)


@formula("aten._linalg_solve_ex")
def solve(A: TensorSpec, B: TensorSpec, *, out: Any) -> Cost:
    """A X = B: the LU factors of A, then their two triangles for each column of B.

    >>> from costmodel.tensor import f32
    >>> solve(f32(3, 3), f32(3, 2), out=(f32(3, 2), f32(3, 3))).flops                              # 13 + 2 * 15
    43
    """
    order = A.shape[-1]
    solution = next(tensors_in(out))
    return cost(matrices(A) * lu_flops(order, order) + solution.numel * (2 * order - 1), (A, B), out)


@formula("aten.linalg_inv_ex")
def inverse(A: TensorSpec, *, out: Any) -> Cost:
    """A^-1 from LU as LAPACK's ``getri``: U^-1 (n^3 / 3), then A^-1 L = U^-1 from the last column on (n^3): 2 n^3.

    PyTorch solves A X = I with all of I's zeros, which takes 8 n^3 / 3 and which no count of an inverse asks for.

    >>> from costmodel.tensor import f32
    >>> inverse(f32(3, 3), out=f32(3, 3)).flops                               # 13; 3^3/3 + 2*3/3 = 11; 2*3*(2+1) = 18
    42
    """
    order = A.shape[-1]
    return cost(matrices(A) * (lu_flops(order, order) + _triangle_inverse(order) + order * order * (order - 1)),
                (A,), out)  # fmt: skip


def _triangle_inverse(order: Dim) -> Dim:
    """Inverse of a triangle, column j from the j before it: j^2 for the product, j for its scale, one division:
    n^3 / 3 + 2 n / 3 (LAPACK's ``trtri``)."""
    return floor_div(order * (order * order + 2), 3)


@formula("aten._linalg_det")
def det(A: TensorSpec, *, out: Any) -> Cost:
    """LU, then n - 1 products of the diagonal and one with the sign of the permutation.

    >>> from costmodel.tensor import f32
    >>> det(f32(3, 3), out=f32()).flops                                                                # 13 + 3
    16
    """
    order = A.shape[-1]
    return cost(matrices(A) * (lu_flops(order, order) + order), (A,), out)


@formula("aten._linalg_slogdet")
def slogdet(A: TensorSpec, *, out: Any) -> Cost:
    """LU; of the diagonal n signs and n - 1 products of them, one with the permutation's; n absolute values,
    n logarithms, n - 1 additions."""
    order = A.shape[-1]
    return cost(matrices(A) * (lu_flops(order, order) + 5 * order - 1), (A,), out)


# -- Cholesky, LDL and triangles -----------------------------------------------------------------


@formula("aten.linalg_cholesky_ex", "aten.cholesky")
def cholesky(input: TensorSpec, *, out: Any) -> Cost:
    """L with A = L L^T, column by column: n(n + 1)(2n + 1)/6 FLOP a matrix (Golub and Van Loan, section 4.2).

    Element (i, j) of L takes j multiplications, j subtractions and one square root or division; of A, n(n + 1)/2
    elements are read.

    >>> from costmodel.tensor import f32
    >>> cholesky(f32(2, 2), out=f32(2, 2)).flops                   # sqrt; div; mul, sub, sqrt
    5
    """
    n = input.shape[-1]
    read = matrices(input) * floor_div(n * (n + 1), 2)
    flops = matrices(input) * floor_div(n * (n + 1) * (2 * n + 1), 6)
    return cost(flops, (), out, read_also=read * input.itemsize)


@formula("aten.linalg_solve_triangular")
def solve_triangular(
    input: TensorSpec, B: TensorSpec, left: bool = True, unitriangular: bool = False, *, out: Any
) -> Cost:
    """X with A X = B, by substitution: n(n - 1)/2 multiplications and subtractions and n divisions a column: n^2 FLOP.

    A unit diagonal needs no division. Of A, one triangle is read.

    >>> from costmodel.tensor import f32
    >>> solve_triangular(f32(3, 3), f32(3, 2), out=f32(3, 2)).flops                    # 2 columns of 9
    18
    """
    n = input.shape[-1]
    read = matrices(input) * floor_div(n * (n + 1), 2)
    return cost(B.numel * (n - 1 if unitriangular else n), (B,), out, read_also=read * input.itemsize)


@formula("aten.triangular_solve")
def triangular_solve(input: TensorSpec, A: TensorSpec, unitriangular: bool = False, *, out: Any) -> Cost:
    """:func:`solve_triangular` by its former name, the right side first."""
    return solve_triangular(A, input, unitriangular=unitriangular, out=out)


@formula("aten.cholesky_solve")
def cholesky_solve(input: TensorSpec, input2: TensorSpec, *, out: TensorSpec) -> Cost:
    """A X = B by L and L^T, whose triangle alone is read: 2 n^2 for each column of B.

    >>> from costmodel.tensor import f32
    >>> cholesky_solve(f32(3, 2), f32(3, 3), out=f32(3, 2)).flops                                  # 2 columns of 18
    36
    """
    n = input2.shape[-1]
    read = matrices(input2) * floor_div(n * (n + 1), 2)
    return cost(2 * n * out.numel, (input,), out, read_also=read * input2.itemsize)


@formula("aten.cholesky_inverse")
def cholesky_inverse(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """A^-1 from L: L^-1, then one triangle of its product with itself, n (n + 1)(2n + 1)/6 (LAPACK's ``potri``).

    >>> from costmodel.tensor import f32
    >>> cholesky_inverse(f32(2, 2), out=f32(2, 2)).flops                                                # 4 + 5
    9
    """
    n = input.shape[-1]
    each = _triangle_inverse(n) + floor_div(n * (n + 1) * (2 * n + 1), 6)
    return cost(matrices(input) * each, (), out, read_also=matrices(input) * floor_div(n * (n + 1), 2) * input.itemsize)


@formula("aten.linalg_ldl_factor_ex")
def ldl(input: TensorSpec, *, out: Any) -> Cost:
    """A = L D L^T: column k divides the m = n - 1 - k elements below it and subtracts their products with the old ones
    from a triangle of m (m + 1) / 2: n^3 / 3 (LAPACK's ``sytrf`` beside its blocks of two).

    >>> from costmodel.tensor import f32
    >>> ldl(f32(3, 3), out=f32(3, 3)).flops                                               # 2 + 2*3; 1 + 2*1
    11
    """
    n = input.shape[-1]
    first, second = _to(n)
    return cost(matrices(input) * (second + 2 * first), (input,), out)


@formula("aten.linalg_ldl_solve")
def ldl_solve(LD: TensorSpec, pivots: TensorSpec, B: TensorSpec, *, out: TensorSpec) -> Cost:
    """Two unit triangles and a diagonal: 2 n (n - 1) + n for each column of B."""
    return cost(out.numel * (2 * LD.shape[-1] - 1), (LD, pivots, B), out)


# -- QR ------------------------------------------------------------------------------------------


def reflections_flops(rows: Dim, columns: Dim, count: Dim) -> Dim:
    """``count`` Householder reflections of m, m - 1, ... rows, each applied to ``columns`` whole columns.

    With v scaled so that its first element is 1, p rows take p - 1 products and p - 1 additions for v^T a, one for tau
    times that, then a subtraction, and p - 1 products and subtractions: 4 p - 2 (Golub and Van Loan, section 5.1.4).
    """
    return columns * (count * (4 * rows - 2) - 4 * _to(count)[0])


def qr_flops(rows: Dim, columns: Dim) -> Dim:
    """R and the reflections: for each column of p rows a norm (2 p), the first element of v (1), p - 1 quotients and
    tau (p), and 4 p - 2 for each column right of it: 2 n^2 (m - n / 3) (Golub and Van Loan, section 5.2.1).

    A last column of one row needs none.

    >>> qr_flops(2, 2)                                                  # norm 4, v 1 + 1, tau 1; one column of 6
    13
    """
    count = minimum(rows - 1, columns)
    first, second = _to(count)
    own = count * (3 * rows + 1) - 3 * first
    # the columns right of it: sum of (n - 1 - k)(4 (m - k) - 2)
    others = count * (columns - 1) * (4 * rows - 2) - (4 * (columns - 1) + 4 * rows - 2) * first + 4 * second
    return own + others


def _formed_flops(rows: Dim, columns: Dim, count: Dim) -> Dim:
    """``columns`` columns of Q from the last of ``count`` reflections to the first: reflection k is applied to the
    columns right of it, then makes its own of p rows by p - 1 products with -tau and a subtraction (LAPACK's
    ``org2r``)."""
    first, second = _to(count)
    applied = count * (columns - 1) * (4 * rows - 2) - (4 * (columns - 1) + 4 * rows - 2) * first + 4 * second
    return applied + count * rows - first


@formula("aten.linalg_qr")
def qr(A: TensorSpec, mode: str = "reduced", *, out: Any) -> Cost:
    """A = Q R by Householder reflections: 2 n^2 (m - n / 3) for R, and as much again for the first n columns of Q
    (Golub and Van Loan, sections 5.2.1 and 5.1.6); all m of them with ``mode="complete"``, none with ``"r"``.

    >>> from costmodel.tensor import f32
    >>> qr(f32(2, 2), "r", out=f32(2, 2)).flops
    13
    """
    rows, columns = A.shape[-2:]
    flops = qr_flops(rows, columns)
    if mode != "r":
        wanted = rows if mode == "complete" else minimum(rows, columns)
        flops = flops + _formed_flops(rows, wanted, minimum(rows - 1, columns))
    return cost(matrices(A) * flops, (A,), out)


@formula("aten.geqrf")
def geqrf(input: TensorSpec, *, out: Any) -> Cost:
    """R, and the reflections in the place of A."""
    return cost(matrices(input) * qr_flops(*input.shape[-2:]), (input,), out)


@formula("aten.linalg_householder_product", "aten.orgqr")
def householder_product(input: TensorSpec, tau: TensorSpec, *, out: TensorSpec) -> Cost:
    """The first columns of Q from its reflections."""
    rows, columns = input.shape[-2:]
    return cost(matrices(input) * _formed_flops(rows, columns, tau.shape[-1]), (input, tau), out)


@formula("aten.ormqr")
def ormqr(input: TensorSpec, input2: TensorSpec, input3: TensorSpec, left: bool = True, *, out: TensorSpec) -> Cost:
    """Q C or C Q from the reflections of Q."""
    rows, columns = (out.shape[-2], out.shape[-1]) if left else (out.shape[-1], out.shape[-2])
    flops = reflections_flops(rows, columns, input2.shape[-1])
    return cost(matrices(out) * flops, (input, input2, input3), out)


@formula("aten.linalg_lstsq")
def lstsq(input: TensorSpec, b: TensorSpec, *, out: Any) -> Cost:
    """min |A x - b| by QR of A, or of its transpose where it is wide: the reflections applied to b, a triangle solved
    (Golub and Van Loan, section 5.3.2; LAPACK's ``gels``, the one driver that CUDA has)."""
    rows, columns = input.shape[-2:]
    short = minimum(rows, columns)
    long = rows + columns - short
    sides = b.shape[-1] if len(b.shape) == len(input.shape) else 1
    each = reflections_flops(long, 1, minimum(long - 1, short)) + short * short
    return cost(matrices(input) * (qr_flops(long, short) + sides * each), (input, b), out)
