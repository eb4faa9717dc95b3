"""Dense linear algebra: calls of LAPACK on a CPU, of cuSOLVER (on AMD rocSOLVER) on a GPU.

A factorization goes column by column, and the next column waits for the last: small matrices are bound by that, large
ones by arithmetic. What these libraries start for it is not followed kernel by kernel: one launch stands for the call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from costmodel.formulas.factorization import matrices
from costmodel.kernels.operator import Operator, rule
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Columns
from costmodel.tensor import tensors_in

__all__ = ["PASSES", "factorization_kernel"]

#: Operator -> walks over the columns of a matrix: the triangles after the factors, Q after R; eigenvalues and singular
#: values iterate, set from LAPACK's times on one CPU beside those of LU.
PASSES: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("linalg_lu_factor_ex", "linalg_lu", "_linalg_det", "_linalg_slogdet"), 1),
        **dict.fromkeys(("linalg_cholesky_ex", "linalg_ldl_factor_ex", "geqrf"), 1),
        **dict.fromkeys(("linalg_solve_triangular", "triangular_solve", "linalg_householder_product", "ormqr"), 1),
        **dict.fromkeys(("linalg_lu_solve", "cholesky_solve", "linalg_ldl_solve", "linalg_qr", "cholesky_inverse"), 2),
        **dict.fromkeys(("_linalg_solve_ex", "linalg_inv_ex", "linalg_lstsq"), 3),
        "_linalg_eigh": 5,
        **dict.fromkeys(("_linalg_svd", "linalg_pinv", "linalg_eig", "linalg_eigvals", "_linalg_eigvals"), 10),
    }
)
#: Operators whose matrices a GPU takes one after the other (aten/src/ATen/native/cuda/linalg/BatchLinearAlgebraLib.cpp:
#: ``gesvdj`` in a loop); those of the others side by side.
_IN_TURN = frozenset({"_linalg_svd", "linalg_pinv", "linalg_eig", "linalg_eigvals", "_linalg_eigvals"})
#: Matrices no larger than this are side by side there too (``gesvdjBatched``).
_SMALL = 32


#: Operators whose right side comes first -> the matrix.
_FACTORS = {"cholesky_solve": "input2", "triangular_solve": "A"}


def factorization_kernel(operator: Operator) -> Kernel:
    """The one launch that stands for a call of the library."""
    matrix = _matrix(operator)
    short = min(matrix.shape[-2:])
    count: Any = matrices(matrix)
    in_turn = operator.name in _IN_TURN and short > _SMALL
    return operator.kernel("factorization", shape=Columns(PASSES[operator.name] * short, count, in_turn))


def _matrix(operator: Operator) -> Any:
    """The operand that is factorized, or was."""
    name = _FACTORS.get(operator.name)
    return operator.arguments[name] if name else next(tensors_in(operator.arguments))


@rule(*PASSES)
def _factorization(operator: Operator) -> Iterator[Kernel]:
    yield factorization_kernel(operator)
