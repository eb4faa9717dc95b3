"""Calibration of a CPU: micro-benchmarks in a shuffled round robin, in bursts spaced in time.

How a micro-benchmark is run matters more than any term of the time model: timed in hot loops, the same equations are
three times less accurate. So one call is timed at a time, all benchmarks in a fresh random order in every round, its
input touched untimed just before; the round includes tensors of many MB; and bursts of rounds are spaced by rounds
over tiny calls alone, which tell how fixed times fall when little data flows between operators.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from costmodel.hardware import HardwareProfile
from costmodel.measure.calibrate_fit import Timed
from costmodel.measure.latency import Clock, round_robin, spread_of
from costmodel.measure.machine_cpu import busy_jiffies
from costmodel.measure.microbench import Entry, kernels_of

__all__ = ["BETWEEN_BYTES", "BURSTS", "Roofs", "Rounds", "measure_roofs", "page_fault_seconds", "time_entries"]

BURSTS = 3
#: Bytes touched ahead of each call in the rounds over tiny benchmarks.
BETWEEN_BYTES = (0, 256 * 2**10, 2**20)
_TINY_ROUNDS = {0: 24, 256 * 2**10: 16, 2**20: 10}  # in a burst
_LOOP_CALLS = 24
_LEAST_ROUNDS = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Timed benchmarks, and how quiet the machine was.

    ``spread``: interquartile range over the median of a benchmark's samples, the median over benchmarks; ``drift``:
    range of the bursts' medians over their mean, likewise; ``steal``: share of the time that the host took away.
    """

    timed: list[Timed]
    samples: int
    spread: float
    drift: float
    steal: float


def time_entries(
    entries: Sequence[Entry],
    hardware: HardwareProfile,
    *,
    seconds: float,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
) -> Rounds:
    """Time all ``entries`` for about ``seconds`` in three bursts, the tiny ones also in warmer surroundings."""
    tell = progress or (lambda phase, done, count: None)
    runs, before = {e.name: e.call for e in entries}, {e.name: e.touch for e in entries}
    kernels = {e.name: kernels_of(e, hardware) if e.arguments else () for e in entries}
    tiny = {e.name: e.call for e in entries if e.tiny}
    stolen = busy_jiffies()
    loops = {name: _loop_seconds(run, clock) for name, run in tiny.items()}
    rounds = _rounds_within(seconds / BURSTS, runs, before, clock)
    full: dict[str, list[tuple[float, ...]]] = {name: [] for name in runs}
    warm: dict[int, dict[str, list[float]]] = {between: {name: [] for name in tiny} for between in BETWEEN_BYTES}
    for burst in range(BURSTS):
        done = burst * rounds
        taken = round_robin(
            runs, rounds=rounds, warm_up_rounds=0, seed=seed + burst, before=lambda name: before[name](), clock=clock,
            progress=lambda n, _, done=done: tell("all operators", done + n, BURSTS * rounds),  # type: ignore[misc]
        )  # fmt: skip
        for name, latency in taken.items():
            full[name].append(latency.samples_s)
        _warm_rounds(tiny, warm, seed + burst, clock)
    steal = _share(stolen, busy_jiffies())
    timed = [_timed(e, kernels[e.name], full[e.name], loops, warm) for e in entries]
    return Rounds(
        timed=timed,
        samples=sum(len(s) for taken in full.values() for s in taken),
        spread=statistics.median(spread_of([s for taken in samples for s in taken]) for samples in full.values()),
        drift=statistics.median(_drift(samples) for samples in full.values()),
        steal=steal,
    )


def _loop_seconds(run: Callable[[], object], clock: Clock) -> float:
    """Median seconds of a call repeated at once, the first third left out."""
    samples = []
    for _ in range(_LOOP_CALLS):
        started = clock()
        run()
        samples.append(clock() - started)
    return statistics.median(samples[_LOOP_CALLS // 3 :])


def _rounds_within(
    seconds: float, runs: Mapping[str, Callable[[], object]], before: Mapping[str, Callable[[], None]], clock: Clock
) -> int:
    """How many rounds fit into a burst, after two rounds that warm up the allocator and the libraries."""
    for _ in range(2):
        started = clock()
        for name, run in runs.items():
            before[name]()
            run()
        taken = clock() - started
    return max(int(seconds / taken), _LEAST_ROUNDS) if taken > 0 else _LEAST_ROUNDS


def _warm_rounds(
    tiny: Mapping[str, Callable[[], object]], warm: dict[int, dict[str, list[float]]], seed: int, clock: Clock
) -> None:
    for between, found in warm.items():
        buffer = torch.zeros(max(between, 4) // 4)

        def touch(name: str, buffer: torch.Tensor = buffer, between: int = between) -> None:
            if between:
                buffer.add_(1)

        rounds = _TINY_ROUNDS[between]
        taken = round_robin(tiny, rounds=rounds, warm_up_rounds=2, seed=seed, before=touch, clock=clock)
        for name, latency in taken.items():
            found[name] += latency.samples_s


def _timed(
    entry: Entry,
    kernels: tuple[object, ...],
    full: list[tuple[float, ...]],
    loops: Mapping[str, float],
    warm: Mapping[int, Mapping[str, list[float]]],
) -> Timed:
    """The median of a benchmark's samples; of the bursts' medians, so that a disturbed burst is outvoted."""
    warmer: tuple[float, ...] = ()
    if entry.tiny:
        warmer = (loops[entry.name], *(statistics.median(warm[between][entry.name]) for between in BETWEEN_BYTES))
    seconds = statistics.median(statistics.median(samples) for samples in full)
    return Timed(kernels=kernels, in_place=entry.in_place, seconds=seconds, warmer_s=warmer)  # type: ignore[arg-type]


def _drift(bursts: Sequence[Sequence[float]]) -> float:
    medians = [statistics.median(samples) for samples in bursts]
    mean = sum(medians) / len(medians)
    return (max(medians) - min(medians)) / mean if mean else 0.0


def _share(before: tuple[int, int], after: tuple[int, int]) -> float:
    return (after[0] - before[0]) / max(after[1] - before[1], 1)


# -- roofs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Roofs:
    """The machine's own roofs. Rates in FLOP/s by dtype (the fastest of several calls), bandwidths in B/s by level."""

    flop_per_s: dict[str, float]
    single_thread_flop_per_s: float
    bytes_per_s: dict[str, float]


#: Working sets of the streaming benchmark as a share of a level's capacity: small enough to fit with its neighbours.
_FILL = 0.4
_GEMM_EDGE = {"fp32": 1024, "fp64": 768, "bf16": 256}
_DTYPE = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16}


def measure_roofs(
    capacities: Mapping[str, float], *, threads: int, clock: Clock = time.perf_counter, repeats: int = 15
) -> Roofs:
    """GEMM rates by dtype, on all threads and on one; streaming bandwidth (add) with working sets of each cache level.

    ``capacities``: B of each level for all cores together; DRAM is measured beyond all of them.
    """
    rates = {dtype: _gemm_rate(dtype, clock, repeats) for dtype in _GEMM_EDGE}
    torch.set_num_threads(1)
    try:
        single = _gemm_rate("fp32", clock, max(repeats // 3, 3))
    finally:
        torch.set_num_threads(threads)
    sets = {level: _FILL * capacity for level, capacity in capacities.items()}
    sets["dram"] = max(4 * max(capacities.values(), default=0.0), 96e6)
    streams = {level: _stream_rate(nbytes, clock, repeats) for level, nbytes in sets.items()}
    return Roofs(flop_per_s=rates, single_thread_flop_per_s=single, bytes_per_s=streams)


def _gemm_rate(dtype: str, clock: Clock, repeats: int) -> float:
    edge = _GEMM_EDGE[dtype]
    x, y = (torch.randn(edge, edge).to(_DTYPE[dtype]) for _ in range(2))
    out = torch.empty(edge, edge, dtype=_DTYPE[dtype])
    return 2 * edge**3 / _fastest(lambda: torch.mm(x, y, out=out), clock, repeats)


def _stream_rate(working_set_bytes: float, clock: Clock, repeats: int) -> float:
    count = max(int(working_set_bytes / 12), 64)  # three arrays of fp32
    x, y, out = torch.ones(count), torch.ones(count), torch.empty(count)
    times = 1 + int(1e6 / count)  # so that one sample is not lost in the clock

    def run() -> None:
        for _ in range(times):
            torch.add(x, y, out=out)

    return times * count * 12 / _fastest(run, clock, repeats)


def _fastest(run: Callable[[], object], clock: Clock, repeats: int) -> float:
    run()
    samples = []
    for _ in range(repeats):
        started = clock()
        run()
        samples.append(clock() - started)
    return statistics.median(sorted(samples)[: max(len(samples) // 2, 1)])


def page_fault_seconds(*, clock: Clock = time.perf_counter, repeats: int = 5, nbytes: int = 2**26) -> float:
    """Elapsed seconds of one 4 KiB page that comes from the system anew: a first fill against a second one."""
    extra = []
    for _ in range(repeats):
        fresh = torch.empty(nbytes, dtype=torch.uint8)  # larger than glibc's largest mmap threshold
        seconds = []
        for _ in range(2):
            started = clock()
            fresh.fill_(1)
            seconds.append(clock() - started)
        extra.append(seconds[0] - seconds[1])
        del fresh
    return max(statistics.median(extra), 0.0) / (nbytes / 4096)
