"""Factorizations: loops over numbers that count, whose values are torch's."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.formulas.registry import cost_of
from costmodel.symbols import symbol
from costmodel.tensor import f32

from . import counting
from .counting import Counted

torch = pytest.importorskip("torch")


def _positive(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, n))
    return rows @ rows.T + n * np.eye(n)


def _counted(matrix: np.ndarray) -> list[list[Counted]]:
    return [[Counted(float(x)) for x in row] for row in matrix]


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_cholesky_is_its_loop(n: int) -> None:
    matrix = _positive(n)
    a = _counted(matrix)
    lower: list[list[object]] = [[0.0] * n for _ in range(n)]
    with counting.counting() as tally:
        for i in range(n):
            for j in range(i + 1):
                left = a[i][j]
                for k in range(j):
                    left = left - lower[i][k] * lower[j][k]  # type: ignore[operator]
                lower[i][j] = counting.sqrt(left) if i == j else left / lower[j][j]
    values = np.array([[float(getattr(x, "value", x)) for x in row] for row in lower])
    assert np.allclose(values, torch.linalg.cholesky_ex(torch.from_numpy(matrix)).L.numpy())
    cost = cost_of("aten.linalg_cholesky_ex", {"input": f32(5, n, n)}, (f32(5, n, n), f32(5)))
    assert cost is not None and cost.vector_flops == 5 * tally.flops and cost.macs == 0
    assert cost.bytes_read == 5 * 4 * n * (n + 1) // 2


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_triangular_system_is_its_substitution(n: int, unit: bool) -> None:
    triangle = np.tril(_positive(n))
    if unit:
        np.fill_diagonal(triangle, 1.0)
    right = np.random.default_rng(1).normal(size=(n, 3))
    a, b = _counted(triangle), _counted(right)
    solution = [[None] * 3 for _ in range(n)]
    with counting.counting() as tally:
        for column in range(3):
            for i in range(n):
                left = b[i][column]
                for k in range(i):
                    left = left - a[i][k] * solution[k][column]  # type: ignore[operator]
                solution[i][column] = left if unit else left / a[i][i]
    values = np.array([[x.value for x in row] for row in solution])
    expected = torch.linalg.solve_triangular(
        torch.from_numpy(triangle), torch.from_numpy(right), upper=False, unitriangular=unit
    )
    assert np.allclose(values, expected.numpy())
    arguments = {"input": f32(n, n), "B": f32(n, 3), "upper": False, "left": True, "unitriangular": unit}
    cost = cost_of("aten.linalg_solve_triangular", arguments, f32(n, 3))
    assert cost is not None and cost.vector_flops == tally.flops


def test_symbolic_and_numeric_agree() -> None:
    def at(batch: object):
        return cost_of("aten.linalg_cholesky_ex", {"input": f32(batch, 4, 4)}, (f32(batch, 4, 4), f32(batch)))

    assert at(symbol("batch")).bind({"batch": 7}) == at(7)
