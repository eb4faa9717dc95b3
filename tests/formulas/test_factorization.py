"""Factorizations: loops over numbers that count, whose values are torch's."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import pytest

from costmodel.cost import Cost
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


def _cost(operator: str, arguments: dict[str, object], out: object) -> Cost:
    found = cost_of(f"aten.{operator}", arguments, out)
    assert found is not None and found.macs == 0
    return found


def _values(matrix: object) -> np.ndarray:
    return np.array([[float(getattr(x, "value", x)) for x in row] for row in matrix])  # type: ignore[attr-defined]


def _eliminated(matrix: list[list[Any]]) -> list[list[Any]]:
    """L and U in the place of A, without exchanges: those only rename rows."""
    a, rows, columns = [list(row) for row in matrix], len(matrix), len(matrix[0])
    for k in range(min(rows, columns)):
        for i in range(k + 1, rows):
            a[i][k] = a[i][k] / a[k][k]
            for j in range(k + 1, columns):
                a[i][j] = a[i][j] - a[i][k] * a[k][j]
    return a


def _substituted(lu: list[list[Any]], right: list[Any]) -> list[Any]:
    """x with L U x = b."""
    n, x = len(lu), list(right)
    for i in range(n):
        for k in range(i):
            x[i] = x[i] - lu[i][k] * x[k]
    for i in reversed(range(n)):
        for k in range(i + 1, n):
            x[i] = x[i] - lu[i][k] * x[k]
        x[i] = x[i] / lu[i][i]
    return x


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (6, 3), (3, 6)])
def test_lu_is_gaussian_elimination(rows: int, columns: int) -> None:
    matrix = _positive(6)[:rows, :columns]
    with counting.counting() as tally:
        found = _values(_eliminated(_counted(matrix)))
    lower, upper = np.tril(found, -1)[:, : min(rows, columns)] + np.eye(rows, min(rows, columns)), np.triu(found)
    assert np.allclose(lower @ upper[: min(rows, columns)], matrix)
    cost = _cost("linalg_lu_factor_ex", {"A": f32(5, rows, columns)}, (f32(5, rows, columns), f32(5, 3), f32(5)))
    assert cost.vector_flops == 5 * tally.flops


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_system_is_its_factors_and_two_triangles(n: int) -> None:
    matrix, right = _positive(n), np.random.default_rng(1).normal(size=(2, n))
    with counting.counting() as whole:
        lu = _eliminated(_counted(matrix))
        with counting.counting() as triangles:
            found = [_substituted(lu, row) for row in _counted(right)]
    assert np.allclose(_values(found), np.linalg.solve(matrix, right.T).T)
    results = f32(n, 2), f32(n, n), f32(n), f32()
    assert _cost("_linalg_solve_ex", {"A": f32(n, n), "B": f32(n, 2)}, results).vector_flops == whole.flops
    arguments = {"LU": f32(n, n), "pivots": f32(n), "B": f32(n, 2)}
    assert _cost("linalg_lu_solve", arguments, f32(n, 2)).vector_flops == triangles.flops


def _inverted_triangle(upper: list[list[Any]]) -> list[list[Any]]:
    """U^-1, column by column, from the columns before it."""
    n = len(upper)
    inverse: list[list[Any]] = [[0.0] * n for _ in range(n)]
    for j in range(n):
        inverse[j][j] = 1 / upper[j][j]
        for i in range(j):
            inner = inverse[i][i] * upper[i][j]
            for k in range(i + 1, j):
                inner = inner + inverse[i][k] * upper[k][j]
            inverse[i][j] = inner * -inverse[j][j].value  # a sign that rides along
    return inverse


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_inverse_is_that_of_u_then_l_from_the_right(n: int) -> None:
    matrix = _positive(n)
    with counting.counting() as tally:
        lu = _eliminated(_counted(matrix))
        found = _inverted_triangle(lu)
        for j in reversed(range(n)):  # X[:, j] = U^-1[:, j] - X[:, j+1:] L[j+1:, j]
            for i in range(n):
                for k in range(j + 1, n):
                    left = found[i][j] if isinstance(found[i][j], Counted) else Counted(0.0)
                    found[i][j] = left - found[i][k] * lu[k][j]
    assert np.allclose(_values(found), np.linalg.inv(matrix))
    assert _cost("linalg_inv_ex", {"A": f32(3, n, n)}, (f32(3, n, n), f32(3))).vector_flops == 3 * tally.flops


@pytest.mark.parametrize("n", [1, 2, 4])
def test_determinants_are_the_products_of_their_factors(n: int) -> None:
    matrix = _positive(n)
    with counting.counting() as product:
        lu = _eliminated(_counted(matrix))
        found = functools.reduce(operator.mul, [lu[i][i] for i in range(n)]) * 1.0  # the permutation's sign
    assert np.isclose(found.value, np.linalg.det(matrix))
    assert _cost("_linalg_det", {"A": f32(n, n)}, (f32(), f32(n, n), f32(n))).vector_flops == product.flops
    with counting.counting() as logarithm:
        lu = _eliminated(_counted(matrix))
        signs = functools.reduce(operator.mul, [counting.sign(lu[i][i]) for i in range(n)]) * 1.0
        logs = counting.total([counting.log(counting.abs_(lu[i][i])) for i in range(n)])
    assert np.allclose((signs.value, logs.value), np.linalg.slogdet(matrix))
    results = f32(), f32(), f32(n, n), f32(n)
    assert _cost("_linalg_slogdet", {"A": f32(n, n)}, results).vector_flops == logarithm.flops


@pytest.mark.parametrize("n", [1, 2, 5])
def test_what_follows_a_cholesky(n: int) -> None:
    matrix, right = _positive(n), np.random.default_rng(1).normal(size=(2, n))
    lower = np.linalg.cholesky(matrix)
    a = _counted(lower)
    with counting.counting() as solving:
        found = []
        for x in _counted(right):
            for i in range(n):
                for k in range(i):
                    x[i] = x[i] - a[i][k] * x[k]
                x[i] = x[i] / a[i][i]
            for i in reversed(range(n)):
                for k in range(i + 1, n):
                    x[i] = x[i] - a[k][i] * x[k]
                x[i] = x[i] / a[i][i]
            found.append(x)
    assert np.allclose(_values(found), np.linalg.solve(matrix, right.T).T)
    cost = _cost("cholesky_solve", {"input": f32(n, 2), "input2": f32(n, n)}, f32(n, 2))
    assert cost.vector_flops == solving.flops
    with counting.counting() as inverting:
        inverse = _inverted_triangle([[a[j][i] for j in range(n)] for i in range(n)])  # of L^T
        product = [
            [functools.reduce(operator.add, [inverse[i][k] * inverse[j][k] for k in range(i, n)]) for j in range(i + 1)]
            for i in range(n)
        ]
    whole = np.array([[product[max(i, j)][min(i, j)].value for j in range(n)] for i in range(n)])
    assert np.allclose(whole, np.linalg.inv(matrix))
    assert _cost("cholesky_inverse", {"input": f32(n, n)}, f32(n, n)).vector_flops == inverting.flops


@pytest.mark.parametrize("n", [1, 2, 5])
def test_ldl_updates_one_triangle(n: int) -> None:
    matrix = _positive(n)
    a = _counted(matrix)
    with counting.counting() as tally:
        for k in range(n):
            old = [a[i][k] for i in range(n)]
            for i in range(k + 1, n):
                a[i][k] = old[i] / a[k][k]
            for j in range(k + 1, n):
                for i in range(j, n):
                    a[i][j] = a[i][j] - a[i][k] * old[j]
    found = _values(a)
    lower = np.tril(found, -1) + np.eye(n)
    assert np.allclose(lower @ np.diag(np.diag(found)) @ lower.T, matrix)
    assert _cost("linalg_ldl_factor_ex", {"input": f32(n, n)}, (f32(n, n), f32(n), f32())).vector_flops == tally.flops


def _reflect(v: list[Any], tau: Any, columns: list[list[Any]], start: int) -> None:
    """(I - tau v v^T) applied to the rows from ``start`` of columns; v[0] is 1."""
    for column in columns:
        inner = column[start]
        for i in range(1, len(v)):
            inner = inner + v[i] * column[start + i]
        scaled = tau * inner
        column[start] = column[start] - scaled
        for i in range(1, len(v)):
            column[start + i] = column[start + i] - v[i] * scaled


def _householder(columns: list[list[Any]]) -> list[tuple[list[Any], Any]]:
    """R in the place of A's columns, and the reflections."""
    rows, found = len(columns[0]), []
    for k in range(min(rows - 1, len(columns))):
        x = columns[k][k:]
        norm = counting.sqrt(functools.reduce(operator.add, [e * e for e in x]))
        beta = Counted(-norm.value if x[0].value > 0 else norm.value)  # a sign that rides along
        first = x[0] - beta
        v = [1.0, *(e / first for e in x[1:])]
        tau = Counted(-first.value) / beta
        columns[k][k:] = [beta, *([Counted(0.0)] * (len(x) - 1))]
        _reflect(v, tau, columns[k + 1 :], k)
        found.append((v, tau))
    return found


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (5, 5), (6, 3), (3, 6)])
@pytest.mark.parametrize("mode", ["r", "reduced", "complete"])
def test_qr_is_householder_s(rows: int, columns: int, mode: str) -> None:
    matrix = _positive(6)[:rows, :columns]
    wanted = {"r": 0, "reduced": min(rows, columns), "complete": rows}[mode]
    with counting.counting() as tally:
        a = _counted(matrix.T)
        reflections = _householder(a)
        q = [[Counted(float(i == j)) for i in range(rows)] for j in range(wanted)]
        for k in reversed(range(len(reflections) if wanted else 0)):
            v, tau = reflections[k]
            _reflect(v, tau, q[k + 1 :], k)
            q[k][k] = 1 - tau  # its own column was a unit vector
            q[k][k + 1 :] = [Counted(-tau.value) * e for e in v[1:]]
    if wanted:
        r = np.triu(_values(a).T)
        assert np.allclose(_values(q).T @ r[:wanted], matrix)
    results = (f32(rows, wanted), f32(wanted, columns))
    assert _cost("linalg_qr", {"A": f32(4, rows, columns), "mode": mode}, results).vector_flops == 4 * tally.flops


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (4, 4)])
def test_least_squares_reflect_the_right_side_and_solve_r(rows: int, columns: int) -> None:
    matrix, right = _positive(6)[:rows, :columns], np.random.default_rng(1).normal(size=(2, rows))
    with counting.counting() as tally:
        a, b = _counted(matrix.T), _counted(right)
        for k, (v, tau) in enumerate(_householder(a)):
            _reflect(v, tau, b, k)
        for x in b:
            for i in reversed(range(columns)):
                for k in range(i + 1, columns):
                    x[i] = x[i] - a[k][i] * x[k]
                x[i] = x[i] / a[i][i]
    assert np.allclose(_values(b)[:, :columns], np.linalg.lstsq(matrix, right.T, rcond=None)[0].T)
    cost = _cost("linalg_lstsq", {"input": f32(rows, columns), "b": f32(rows, 2)}, (f32(columns, 2), f32(0), f32(0)))
    assert cost.vector_flops == tally.flops


@pytest.mark.parametrize(
    ("name", "arguments", "leading"),
    [
        ("linalg_lu_factor_ex", {"A": (600, 600)}, 2 / 3),
        ("linalg_inv_ex", {"A": (600, 600)}, 2.0),
        ("linalg_cholesky_ex", {"input": (600, 600)}, 1 / 3),
        ("linalg_ldl_factor_ex", {"input": (600, 600)}, 1 / 3),
        ("cholesky_inverse", {"input": (600, 600)}, 2 / 3),
        ("linalg_qr", {"A": (600, 600), "mode": "r"}, 4 / 3),  # 2 n^2 (m - n/3)
        ("linalg_qr", {"A": (600, 600)}, 8 / 3),
        ("_linalg_eigh", {"A": (600, 600)}, 9.0),
        ("_linalg_eigh", {"A": (600, 600), "compute_v": False}, 4 / 3),
        ("_linalg_svd", {"A": (600, 600), "compute_uv": False}, 8 / 3),  # 4 m n^2 - 4/3 n^3
        ("_linalg_svd", {"A": (600, 600)}, 22.0),  # 14 m n^2 + 8 n^3
        ("linalg_eig", {"input": (600, 600)}, 25.0),
        ("linalg_eigvals", {"input": (600, 600)}, 10.0),
    ],
)
def test_leading_terms_are_those_of_golub_and_van_loan(name: str, arguments: dict, leading: float) -> None:
    given = {name: f32(*value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    assert _cost(name, given, f32(600, 600)).flops == pytest.approx(leading * 600**3, rel=5e-3)


def test_tall_singular_values_come_after_a_qr() -> None:
    """Chan's algorithm: 6 m n^2 + 20 n^3 from m > 3 n / 2 on."""
    m, n = 3000, 300
    assert _cost("_linalg_svd", {"A": f32(m, n)}, (f32(m, n), f32(n))).flops == 6 * m * n**2 + 20 * n**3
    assert _cost("_linalg_svd", {"A": f32(n, m)}, (f32(n, n), f32(n))).flops == 6 * m * n**2 + 20 * n**3


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize(
    "name", ["solve", "inv", "det", "slogdet", "qr", "svd", "eigh", "eig", "lstsq", "pinv", "matrix_exp", "cholesky"]
)
def test_every_entry_of_linalg_is_costed_in_both_phases(name: str, phase: str) -> None:
    from costmodel import analyze

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(6, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * self.scale
            found = getattr(torch.linalg, name)(*((x, x) if name in ("solve", "lstsq") else (x,)))
            found = found if isinstance(found, torch.Tensor) else found[0]
            return found.real if found.is_complex() else found

    for hw in ("a100", "epyc-7763"):
        analysis = analyze(Layer(), torch.randn(3, 6, 6), hw=hw, phase=phase)
        assert not analysis.coverage.uncosted and analysis.latency > 0
    waits = [node.op for node in analysis.record.nodes if node.synchronizes]
    asks = name in ("solve", "inv", "cholesky") or (name, phase) == ("eig", "training")
    assert ("aten._linalg_check_errors" in waits) == asks


def test_a_larger_matrix_takes_longer_and_how_long_is_hardly_known() -> None:
    from costmodel import analyze

    class Inverse(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x)

    found = [analyze(Inverse(), torch.randn(1, n, n), hw="a100") for n in (64, 512, 4096)]
    assert found[0].latency < found[1].latency < found[2].latency
    totals = found[2].totals
    assert totals.latency_high_s / totals.latency_low_s > 10
    wide = analyze(Inverse(), torch.randn(1, 4096, 4096, dtype=torch.float64), hw="a100")
    assert wide.latency > 1.3 * found[2].latency  # half the peak, twice the bytes; columns wait alike


def test_symbolic_and_numeric_agree() -> None:
    def at(batch: object):
        return cost_of("aten.linalg_cholesky_ex", {"input": f32(batch, 4, 4)}, (f32(batch, 4, 4), f32(batch)))

    assert at(symbol("batch")).bind({"batch": 7}) == at(7)


@pytest.mark.parametrize(
    ("operator", "argument"),
    [
        *((name, "A") for name in ("linalg_lu_factor_ex", "linalg_qr", "linalg_inv_ex", "_linalg_svd", "_linalg_eigh")),
        *((name, "input") for name in ("cholesky_inverse", "linalg_ldl_factor_ex")),
    ],
)
def test_a_matrix_may_have_symbols_for_sizes(operator: str, argument: str) -> None:
    n = symbol("n")
    for size in (1, 5, 9):
        open_one = _cost(operator, {argument: f32(2, n, n)}, (f32(2, n, n), f32(2, n)))
        closed = _cost(operator, {argument: f32(2, size, size)}, (f32(2, size, size), f32(2, size)))
        assert open_one.bind({"n": size}) == closed
