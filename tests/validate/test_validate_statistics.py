"""Scores: laws, and definitions recomputed another way."""

from __future__ import annotations

import math
import random
import statistics as stdlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.validate.statistics import fitted_scale, quantile, ranks, score, spearman

TIMES = st.lists(st.integers(1, 10**6), min_size=2, max_size=40, unique=True)


@given(TIMES)
def test_perfect_predictions_err_nowhere(measured: list[int]) -> None:
    found = score(measured, measured)
    assert (found.n, found.median_ape, found.p90_ape, found.bias) == (len(measured), 0, 0, 0)
    assert found.spearman == pytest.approx(1)


@given(TIMES, st.floats(0.125, 8))
def test_a_common_factor_is_bias_and_leaves_ranks_alone(measured: list[int], factor: float) -> None:
    found = score([factor * value for value in measured], measured)
    assert found.bias == pytest.approx(factor - 1)
    assert found.median_ape == pytest.approx(abs(factor - 1))
    assert found.spearman == pytest.approx(1)


@given(TIMES, st.randoms())
def test_spearman_sees_ranks_only(values: list[int], generator: random.Random) -> None:
    other = values.copy()
    generator.shuffle(other)
    logs = [math.log(value) for value in values]
    assert ranks(logs) == ranks(values)
    assert spearman(logs, other) == pytest.approx(spearman(values, other))


def test_spearman_of_distinct_values_is_the_textbook_formula() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 5.0, 3.0]
    squares = 1 + 1 + 1 + 1 + 4  # squared differences of ranks
    assert spearman(x, y) == pytest.approx(1 - 6 * squares / (5 * (25 - 1)))


@pytest.mark.parametrize(("x", "y"), [([1.0], [2.0]), ([3.0, 3.0], [1.0, 2.0]), ([1.0, 2.0], [5.0, 5.0])])
def test_spearman_is_none_where_it_is_not_defined(x: list[float], y: list[float]) -> None:
    assert spearman(x, y) is None


def test_reversed_order_is_minus_one() -> None:
    assert spearman([1, 2, 3, 4], [8, 6, 4, 2]) == pytest.approx(-1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_ranks_count_smaller_values_and_half_of_equal_ones(values: list[int]) -> None:
    expected = [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]
    assert ranks(values) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_fitted_scale_has_the_least_median_log_error(seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311
    work = [generator.lognormvariate(0, 2) for _ in range(11)]  # odd, so that the median is one of the errors
    measured = [value * generator.lognormvariate(1, 1) for value in work]
    logs = [math.log(m / w) for m, w in zip(measured, work, strict=True)]

    def median_error(log_scale: float) -> float:
        return stdlib.median(abs(value - log_scale) for value in logs)

    midpoints = [(a + b) / 2 for a in logs for b in logs]  # the least lies at one of them
    assert median_error(math.log(fitted_scale(work, measured))) == pytest.approx(min(map(median_error, midpoints)))


def test_rows_without_work_do_not_fit_a_scale() -> None:
    assert fitted_scale([0, 2, 2], [5.0, 6.0, 6.0]) == pytest.approx(3)
    assert fitted_scale([0], [5.0]) == 0


def test_median_and_p90_of_known_errors() -> None:
    measured = [100.0] * 11
    predicted = [100.0 + 10 * i for i in range(11)]  # errors 0, 10, ..., 100 %
    found = score(predicted, measured)
    assert found.median_ape == pytest.approx(0.5)
    assert found.p90_ape == pytest.approx(0.9)
