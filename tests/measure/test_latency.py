"""Timing calls, with a clock that the test turns: no test here measures anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from costmodel.errors import InputError

torch = pytest.importorskip("torch")

from costmodel.measure.latency import (  # noqa: E402
    Latency,
    WarmUp,
    cache_flush,
    end_to_end,
    last_level_cache_bytes,
    pinned_threads,
    round_robin,
    spread_of,
)


class FakeClock:
    """Stands still unless a call moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def calls_that_take(self, *seconds: float) -> Callable[[], None]:
        """A call that takes each of these times in turn, then the last one for ever."""
        left = list(seconds)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


NO_WARM_UP = WarmUp(window=1, least_calls=0, most_calls=0)


def test_samples_are_the_seconds_of_each_call_in_order() -> None:
    clock = FakeClock()
    timed = end_to_end(clock.calls_that_take(4, 1, 2), repeats=3, warm_up=NO_WARM_UP, clock=clock)
    assert timed.samples_s == (4, 1, 2)
    assert timed.median_s == 2 and timed.minimum_s == 1


def test_warm_up_goes_on_until_calls_agree_and_is_not_counted() -> None:
    clock = FakeClock()
    timed = end_to_end(
        clock.calls_that_take(9, 5, 3, 2, 2), repeats=2, warm_up=WarmUp(window=1, most_seconds=99), clock=clock
    )
    assert (timed.warm_up_calls, timed.stable) == (5, True)
    assert timed.samples_s == (2, 2)


def test_warm_up_ends_although_calls_never_settle_and_says_so() -> None:
    clock = FakeClock()
    growing = clock.calls_that_take(*(2.0**i for i in range(40)))
    timed = end_to_end(growing, repeats=1, warm_up=WarmUp(most_calls=12, most_seconds=1e9), clock=clock)
    assert (timed.warm_up_calls, timed.stable) == (12, False)
    assert timed.samples_s == (2.0**12,)


def test_warm_up_ends_after_its_seconds() -> None:
    clock = FakeClock()
    calls, stable = WarmUp(most_seconds=10, least_calls=1).run(iter([4.0, 8.0, 16.0]).__next__)
    assert (calls, stable, clock.now) == (2, False, 0.0)


def test_slow_calls_are_repeated_less_often_but_not_below_the_least() -> None:
    clock = FakeClock()
    timed = end_to_end(clock.calls_that_take(10), repeats=20, most_seconds=45, warm_up=NO_WARM_UP, clock=clock)
    assert len(timed.samples_s) == 5
    timed = end_to_end(clock.calls_that_take(100), repeats=20, most_seconds=45, warm_up=NO_WARM_UP, clock=clock)
    assert len(timed.samples_s) == 3


def test_spread_is_the_interquartile_range_over_the_median() -> None:
    assert spread_of(range(1, 10)) == pytest.approx((7 - 3) / 5)  # quartiles of 1..9 are 3, 5 and 7
    assert spread_of([3.0]) == 0.0
    assert Latency((2.0, 2.0, 2.0)).spread == 0.0


def test_threads_are_fixed_for_the_calls_and_put_back() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    end_to_end(lambda: seen.append(torch.get_num_threads()), threads=1, repeats=2)
    assert set(seen) == {1} and torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), pinned_threads(1):
        assert 1 / 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 0}, "at least 1, not 0"),
        ({"repeats": 0}, "at least 1, not 0"),
        ({"cache": "tepid"}, "warm, cold"),
        ({"device": "tpu"}, "cpu, cuda"),
    ],
)
def test_what_cannot_be_measured_is_said(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        end_to_end(lambda: None, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where no GPU is")
def test_a_missing_gpu_is_said_with_what_can_be_done() -> None:
    with pytest.raises(InputError, match=r"(?s)CUDA.*--device cpu"):
        end_to_end(lambda: None, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_cuda_calls_are_timed_by_events_until_their_work_has_ended() -> None:
    busy = torch.randn(4096, 4096, device="cuda")
    work = end_to_end(lambda: [busy @ busy for _ in range(20)], device="cuda", repeats=5)
    alone = end_to_end(lambda: None, device="cuda", repeats=5)
    flops_per_s = 20 * 2 * 4096**3 / work.median_s
    assert work.median_s > alone.median_s
    assert flops_per_s < 5e15  # had only the launches been timed, the rate would be beyond any GPU's
    assert end_to_end(lambda: busy.sum(), device="cuda", repeats=2, cache="cold").minimum_s > 0


def test_round_robin_times_every_run_once_a_round_in_a_new_order() -> None:
    clock, order = FakeClock(), []

    def call(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            clock.now += seconds

        return run

    runs = {name: call(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 8.0))}
    timed = round_robin(runs, rounds=6, warm_up_rounds=1, clock=clock)
    rounds = [tuple(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert len(rounds) == 7 and all(sorted(r) == ["a", "b", "c", "d"] for r in rounds)
    assert len(set(rounds)) > 1
    assert timed["c"].samples_s == (4.0,) * 6 and list(timed) == ["a", "b", "c", "d"]


def test_round_robin_prepares_each_call_untimed() -> None:
    clock, prepared = FakeClock(), []

    def before(name: str) -> None:
        prepared.append(name)
        clock.now += 100

    timed = round_robin({"a": clock.calls_that_take(1)}, rounds=2, warm_up_rounds=1, before=before, clock=clock)
    assert timed["a"].samples_s == (1, 1) and prepared == ["a"] * 3


def test_a_cold_cache_is_made_by_writing_more_than_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, size in enumerate(("32K", "512K", "32768K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    assert last_level_cache_bytes("cpu", system=tmp_path) == 32 * 1024 * 1024
    monkeypatch.setattr("costmodel.measure.latency.last_level_cache_bytes", lambda device: 1 << 10)
    made: list[int] = []
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: made.append(a[0]) or zeros(*a, **k))
    cache_flush("cpu", "cold")()
    assert made == [2 << 10]
