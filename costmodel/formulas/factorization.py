"""Factorizations of square matrices and the triangular systems that they leave, by the textbook's loops.

Their products are vector FLOPs: libraries block them in their own ways, and no counter takes them for MACs.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import cost
from costmodel.formulas.registry import formula
from costmodel.symbols import product
from costmodel.tensor import TensorSpec

__all__: list[str] = []


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
    matrices = product(input.shape[:-2])
    read = matrices * (n * (n + 1) // 2)
    return cost(matrices * (n * (n + 1) * (2 * n + 1) // 6), (), out, read_also=read * input.itemsize)


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
    read = product(input.shape[:-2]) * (n * (n + 1) // 2)
    return cost(B.numel * (n - 1 if unitriangular else n), (B,), out, read_also=read * input.itemsize)
