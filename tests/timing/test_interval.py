"""The interval around a step: what goes together adds, what is independent adds in squares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.kernels import Kernel, KernelPlan, Launch
from costmodel.timing import KernelSeconds, Timeline, step_interval
from costmodel.timing.interval import COVERAGE_SIGMAS, SHAPE_SPREAD, SHARED_SPREAD
from costmodel.timing.timeline import Kind


def plan_of(*algorithms):
    kernels = tuple(Kernel(op="op", algorithm=name, bytes_read=i) for i, name in enumerate(algorithms))
    return KernelPlan(kernels, tuple(Launch(i, (i,)) for i in range(len(kernels))))


def estimate(latency, spread):
    return Kind(KernelSeconds(latency, 0.0, 0.0), latency, 0.0, spread=spread / latency)


def interval(plan, kinds):
    """Of launches that never wait, each of a kind of its own."""
    return step_interval(plan, Timeline(kinds, range(len(kinds)), [0.0] * len(kinds)))


def width(plan, estimates):
    low, high = interval(plan, estimates)
    return high / low


positive = st.floats(1e-6, 1.0)


@given(st.lists(st.tuples(positive, st.floats(0, 0.5)), min_size=1, max_size=8))
def test_the_prediction_lies_inside_at_its_geometric_middle(parts):
    estimates = [estimate(latency, share * latency) for latency, share in parts]
    low, high = interval(plan_of(*(f"kind{i % 3}" for i in range(len(parts)))), estimates)
    whole = sum(latency for latency, _ in parts)
    assert 0 < low < whole < high
    assert math.sqrt(low * high) == pytest.approx(whole)


def test_errors_of_one_algorithm_go_together_and_those_of_several_partly_cancel():
    parts = [estimate(1.0, 0.2)] * 4
    assert width(plan_of(*"aaaa"), parts) > width(plan_of(*"aabb"), parts) > width(plan_of(*"abcd"), parts)


def test_half_width_by_hand():
    """Two kernels of 1 s with 0.3 and 0.4 s: together 0.5 s, with what is shared and what is each shape's, of 2 s."""
    _, high = interval(plan_of("a", "b"), [estimate(1.0, 0.3), estimate(1.0, 0.4)])
    spread = math.sqrt(0.5**2 + (2 * SHARED_SPREAD) ** 2 + 2 * SHAPE_SPREAD**2) / 2
    assert high == pytest.approx(2 * math.exp(COVERAGE_SIGMAS * spread))


def test_many_shapes_average_out_what_each_has_for_itself():
    def spread(count):
        algorithms, estimates = ["a"] * count, [estimate(1.0, 0.0)] * count
        return math.log(width(plan_of(*algorithms), estimates)) / (2 * COVERAGE_SIGMAS)

    assert spread(1) == pytest.approx(math.hypot(SHAPE_SPREAD, SHARED_SPREAD))
    assert spread(100) == pytest.approx(math.hypot(SHAPE_SPREAD / 10, SHARED_SPREAD))


def test_ninety_percent_of_a_normal_distribution_lie_inside():
    assert math.erf(COVERAGE_SIGMAS / math.sqrt(2)) == pytest.approx(0.9, abs=1e-3)


def test_a_rarer_algorithm_widens_the_interval():
    from costmodel.timing.step import SPREAD

    assert SPREAD["unknown"] == max(SPREAD.values())
    sure, unsure = ([estimate(1.0, SPREAD[name])] for name in ("gemm", "grouped_implicit_gemm"))
    assert width(plan_of("gemm"), sure) < width(plan_of("grouped_implicit_gemm"), unsure)


def test_a_step_of_views_takes_no_time():
    assert interval(KernelPlan((), ()), []) == (0.0, 0.0)


def test_kernels_of_one_shape_are_one_shape_whatever_calls_made_them():
    alike = (Kernel(op="op", algorithm="a"),) * 2
    parts = [estimate(1.0, 0.1)] * 2
    twice = KernelPlan(alike[:1], (Launch(0, (0,)), Launch(0, (1,))))
    assert interval(KernelPlan(alike, (Launch(0, (0,)), Launch(1, (1,)))), parts) == interval(twice, parts)
