"""Eager calls: the floor read off the smallest operators, and what a call shows of its kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel.validate.host_time import AFTER_LAUNCH_S, call_time, with_floors
from costmodel.validate.rows import OperatorRow


def call(size: int, latency_us: float, **options: object) -> OperatorRow:
    values = {"file": "a", "line": 2, "device": "t4", "dtype": "fp32", "timing": "eager_call", **options}
    return OperatorRow(op="relu", input=(size,), latency_s=latency_us * 1e-6, **values)  # type: ignore[arg-type]


def test_the_floor_is_that_of_the_smallest_calls() -> None:
    small, large = [call(10, 30.0)] * 10, [call(1000 + i, 500.0) for i in range(90)]
    rows = with_floors([*large, *small])
    assert {round(row.floor_s * 1e6, 6) for row in rows} == {30.0}
    assert [row.at_floor for row in rows] == [False] * 90 + [True] * 10
    assert [row.group[-1] for row in rows[89:91]] == ["", "at the floor"]


def test_files_devices_and_operators_have_floors_of_their_own() -> None:
    rows = [call(10, 30.0), call(10, 60.0, device="a100"), call(10, 90.0, file="b")]
    assert [round(row.floor_s * 1e6, 6) for row in with_floors(rows)] == [30, 60, 90]


@pytest.mark.parametrize("timing", ["kernel", "graph_replay"])
def test_kernel_times_have_no_floor_and_show_the_kernel(timing: str) -> None:
    (row,) = with_floors([call(10, 30.0, timing=timing)])
    assert (row.floor_s, row.at_floor) == (0.0, False)
    assert call_time(row, 7e-6) == 7e-6


def test_a_host_that_slows_down_gives_a_line() -> None:
    """Every second call is tiny and takes 50 µs at first, 150 µs at last; the others are kernels of 2 ms."""
    count = 4000
    rows = [call(1, 50 + 100 * i / count) if i % 2 else call(1000 + i, 2000.0) for i in range(count)]
    floors = [row.floor_s * 1e6 for row in with_floors(rows)]
    assert floors[0] == pytest.approx(50, abs=2)
    assert floors[count // 2] == pytest.approx(100, abs=6)
    assert floors[-1] == pytest.approx(150, abs=8)


def test_what_a_call_shows() -> None:
    (row,) = with_floors([call(10, 30.0)])
    lead = 30e-6 - AFTER_LAUNCH_S
    assert call_time(row, 0.0) == pytest.approx(30e-6)
    assert call_time(row, AFTER_LAUNCH_S) == pytest.approx(30e-6)
    assert call_time(row, 100e-6) == pytest.approx(lead + 100e-6)
    faster_host = replace(row, floor_s=5e-6, lead_s=0.0)
    assert call_time(faster_host, 100e-6) == pytest.approx(100e-6)
