"""Eager calls: the floor read off the smallest operators, and what a call shows of its kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel.validate.host_time import AFTER_SHARE, call_time, with_floors
from costmodel.validate.rows import OperatorRow


def no_kernel(row: OperatorRow) -> float:
    return 0.0


def call(size: int, latency_us: float, **options: object) -> OperatorRow:
    values = {"file": "a", "line": 2, "device": "t4", "dtype": "fp32", "timing": "eager_call", "op": "relu", **options}
    return OperatorRow(input=(size,), latency_s=latency_us * 1e-6, **values)  # type: ignore[arg-type]


def test_the_floor_is_that_of_the_smallest_calls() -> None:
    small, large = [call(10, 30.0)] * 10, [call(1000 + i, 500.0) for i in range(90)]
    rows = with_floors([*large, *small], no_kernel)
    assert {round(row.floor_s * 1e6, 6) for row in rows} == {30.0}
    assert [row.at_floor for row in rows] == [False] * 90 + [True] * 10
    assert [row.group[-1] for row in rows[89:91]] == ["", "at the floor"]


def test_files_devices_and_operators_have_floors_of_their_own() -> None:
    rows = [call(10, 30.0), call(10, 60.0, device="a100"), call(10, 90.0, file="b")]
    assert [round(row.floor_s * 1e6, 6) for row in with_floors(rows, no_kernel)] == [30, 60, 90]


@pytest.mark.parametrize("timing", ["kernel", "graph_replay"])
def test_kernel_times_have_no_floor_and_show_the_kernel(timing: str) -> None:
    (row,) = with_floors([call(10, 30.0, timing=timing)], no_kernel)
    assert (row.floor_s, row.at_floor) == (0.0, False)
    assert call_time(row, 7e-6) == 7e-6


def test_a_host_that_slows_down_gives_a_line() -> None:
    """Every second call is tiny and takes 50 µs at first, 150 µs at last; the others are kernels of 2 ms."""
    count = 4000
    rows = [call(1, 50 + 100 * i / count) if i % 2 else call(1000 + i, 2000.0) for i in range(count)]
    floors = [row.floor_s * 1e6 for row in with_floors(rows, no_kernel)]
    assert floors[0] == pytest.approx(50, abs=2)
    assert floors[count // 2] == pytest.approx(100, abs=6)
    assert floors[-1] == pytest.approx(150, abs=8)


def test_what_shows_of_a_kernel_is_no_floor() -> None:
    """A call of 30 µs whose kernel takes 0.2 µs more than stays hidden: 29.8 µs are the host's."""
    kernel = 0.2e-6 + AFTER_SHARE * 30e-6
    (row,) = with_floors([call(10, 30.0)], lambda row: kernel)
    assert row.floor_s == pytest.approx(29.8e-6)
    assert call_time(row, kernel) == pytest.approx(30e-6)


def test_a_kernel_starts_while_the_host_returns() -> None:
    """What a kernel takes to start is not seen again in the call's time."""
    (plain,) = with_floors([call(10, 30.0)], no_kernel)
    (started,) = with_floors([call(10, 30.0)], no_kernel, lambda row: 3e-6)
    assert started.lead_s == pytest.approx(plain.lead_s - 3e-6)
    assert started.floor_s == plain.floor_s


def test_slow_operators_show_their_kernels_behind_their_own_floor() -> None:
    """A convolution's host time lies before its launch: only the quick operators tell what lies behind one."""
    quick, slow = with_floors([call(10, 30.0), call(10, 150.0, op="conv2d")], no_kernel)
    assert quick.lead_s == pytest.approx((1 - AFTER_SHARE) * 30e-6)
    assert slow.lead_s == pytest.approx(150e-6)


def test_large_calls_alone_do_not_tell_the_floor() -> None:
    rows = [call(10**6, 1000.0), call(10, 30.0, op="tanh"), call(10**6, 1000.0, device="a100")]
    kernel = {1000.0: 900e-6, 30.0: 0.0}
    found = with_floors(rows, lambda row: kernel[round(row.latency_s * 1e6, 6)], default_s=7e-6)
    assert found[0].floor_s == pytest.approx(30e-6)  # that of the other operator on the same device
    assert found[2].lead_s == pytest.approx(7e-6)


def test_what_a_call_shows() -> None:
    (row,) = with_floors([call(10, 30.0)], no_kernel)
    after = AFTER_SHARE * 30e-6
    lead = 30e-6 - after
    assert call_time(row, 0.0) == pytest.approx(30e-6)
    assert call_time(row, after) == pytest.approx(30e-6)
    assert call_time(row, 100e-6) == pytest.approx(lead + 100e-6)
    faster_host = replace(row, floor_s=5e-6, lead_s=0.0)
    assert call_time(faster_host, 100e-6) == pytest.approx(100e-6)
