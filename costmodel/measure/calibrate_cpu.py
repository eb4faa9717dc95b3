"""Calibration of a CPU: micro-benchmarks in a shuffled round robin, in bursts spaced in time.

How a micro-benchmark is run matters more than any term of the time model: timed in hot loops, the same equations are
three times less accurate. So one call is timed at a time, all benchmarks in a fresh random order in every round, its
input touched untimed just before; the round includes tensors of many MB; and bursts of rounds are spaced by rounds
over small operators alone, which tell how fixed times fall when little data flows between operators.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from costmodel.hardware import HardwareProfile
from costmodel.measure.calibrate_fit import Timed
from costmodel.measure.latency import Clock, round_robin, spread_of
from costmodel.measure.machine_cpu import busy_seconds
from costmodel.measure.microbench import Entry, kernels_of

__all__ = [
    "BURSTS",
    "REPEATS",
    "SMALL_ROUNDS",
    "Roofs",
    "Rounds",
    "measure_roofs",
    "page_fault_seconds",
    "time_entries",
]

#: Parts that the rounds fall into, spread over the run, so that a machine whose speed drifts shows.
BURSTS = 3
#: Further parts, where timings scatter: of each benchmark the calmest ``BURSTS`` count.
REPEATS = 2
#: Rounds over small operators alone: most bytes of an operator, and rounds of each in a burst.
SMALL_ROUNDS = {2**14: 24, 2**18: 16, 2**20: 12, 2**22: 8}
#: Calls in a hot loop, whose median is the hot fixed time, and fewest undisturbed rounds before a burst may end.
_LOOP_CALLS = 24
_LEAST_ROUNDS = 4
#: How much longer a burst may take to collect undisturbed rounds [1]: the whole stays below three minutes.
_LONGER = 1.3
#: Share of all cores [1] that other processes may use in a round that counts.
_MOST_OTHERS = 0.05

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Timed benchmarks, and how quiet the machine was.

    ``spread``: interquartile range over the median of a benchmark's samples, the median over benchmarks; ``drift``:
    range of the bursts' medians over their mean, likewise; both of the calmest bursts; ``repeats``: bursts that were
    made besides because timings scattered; ``steal``: share of the time that the host took away;
    ``disturbed``: share of the rounds left out because other processes used the cores.
    """

    timed: list[Timed]
    samples: int
    spread: float
    drift: float
    steal: float
    disturbed: float = 0.0
    repeats: int = 0


def time_entries(
    entries: Sequence[Entry],
    hardware: HardwareProfile,
    *,
    seconds: float,
    most_spread: float = math.inf,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
) -> Rounds:
    """Time all ``entries`` for about ``seconds`` in three bursts, the tiny ones also in warmer surroundings.

    Where timings scatter by more than ``most_spread``, up to :data:`REPEATS` further bursts are made over all entries
    (a round over some of them would find caches warmer), and of each entry the bursts that scatter least count.
    """
    tell = progress or (lambda phase, done, count: None)
    runs = [e.name for e in entries]
    kernels = {e.name: kernels_of(e, hardware) if e.arguments else () for e in entries}
    tiny = {e.name: e for e in entries if e.tiny}
    nbytes = {name: sum(kernel.bytes for kernel in kernels[name]) for name in runs}
    full: dict[str, list[list[float]]] = {name: [] for name in runs}
    small: dict[int, dict[str, list[float]]] = {most: {name: [] for name in tiny} for most in SMALL_ROUNDS}
    watch = _Watch(seed, clock)
    loops = {name: _loop_seconds(e.call, clock) for name, e in tiny.items()}
    for _ in range(2):  # the allocator and the libraries warm up
        watch.round(entries, into=None)
    made = 0
    while made < BURSTS or (made < BURSTS + REPEATS and _spread(full) > most_spread):
        for samples in full.values():
            samples.append([])
        watch.rounds(entries, {name: samples[-1] for name, samples in full.items()}, seconds / BURSTS, made, tell)
        made += 1
        for most, rounds in SMALL_ROUNDS.items():
            members = [e for e in entries if e.tiny or nbytes[e.name] <= most]
            watch.round(members, into=small[most], rounds=rounds)
    full = {name: _calmest(bursts) for name, bursts in full.items()}
    timed = [_timed(e, kernels[e.name], full[e.name], loops, small) for e in entries]
    return Rounds(
        timed=timed,
        samples=sum(len(samples) for bursts in full.values() for samples in bursts),
        spread=_spread(full),
        drift=statistics.median(_drift(bursts) for bursts in full.values()),
        steal=watch.steal,
        disturbed=watch.disturbed / max(watch.made, 1),
        repeats=made - BURSTS,
    )


def _calmest(bursts: Sequence[list[float]]) -> list[list[float]]:
    """The :data:`BURSTS` bursts of a benchmark that scatter least, in the order in which they were made."""
    order = sorted(range(len(bursts)), key=lambda i: spread_of(bursts[i]) if bursts[i] else math.inf)
    return [bursts[i] for i in sorted(order[:BURSTS])]


def _spread(full: Mapping[str, Sequence[list[float]]]) -> float:
    """Interquartile range over the median of what counts of a benchmark, the median over benchmarks."""
    return statistics.median(spread_of([s for burst in _calmest(bursts) for s in burst]) for bursts in full.values())


class _Watch:
    """Makes rounds, and leaves out those in which other processes used the cores."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.seed, self.clock = seed, clock
        self.made = self.disturbed = 0
        self.began = busy_seconds()

    def rounds(
        self, entries: Sequence[Entry], into: dict[str, list[float]], seconds: float, burst: int, tell: Progress
    ) -> None:
        """Rounds for about ``seconds``, at least a few; a little longer where many are disturbed."""
        began, kept = self.clock(), 0
        while True:
            kept += self.round(entries, into=into)
            elapsed = self.clock() - began
            phase = "all operators" if burst < BURSTS else "timings scatter: once more"
            tell(phase, round(100 * (burst + min(elapsed / seconds, 1.0))), 100 * max(BURSTS, burst + 1))
            if (elapsed >= seconds and kept >= _LEAST_ROUNDS) or elapsed >= _LONGER * seconds:
                break
        if not kept:
            self.round(entries, into=into, anyway=True)

    def round(
        self, entries: Sequence[Entry], *, into: dict[str, list[float]] | None, rounds: int = 1, anyway: bool = False
    ) -> bool:
        """Time every entry once, or ``rounds`` times, in a new random order each; whether the samples count."""
        touch = {e.name: e.touch for e in entries}
        runs = {e.name: e.call for e in entries}
        before = busy_seconds()
        taken = round_robin(
            runs, rounds=rounds, warm_up_rounds=0, seed=self.seed, before=lambda name: touch[name](), clock=self.clock
        )
        self.seed += 1
        others = before.others_until(busy_seconds())
        if into is None:
            return True
        self.made += rounds
        if others > _MOST_OTHERS and not anyway:
            self.disturbed += rounds
            return False
        for name, samples in into.items():
            samples.extend(taken[name].samples_s)
        return True

    @property
    def steal(self) -> float:
        """Share of the time that the host took away since the beginning."""
        return self.began.stolen_until(busy_seconds())


def _loop_seconds(run: Callable[[], object], clock: Clock) -> float:
    """Median seconds of a call repeated at once, the first third left out."""
    samples = []
    for _ in range(_LOOP_CALLS):
        started = clock()
        run()
        samples.append(clock() - started)
    return statistics.median(samples[_LOOP_CALLS // 3 :])


def _timed(
    entry: Entry,
    kernels: tuple[object, ...],
    full: Sequence[Sequence[float]],
    loops: Mapping[str, float],
    small: Mapping[int, Mapping[str, list[float]]],
) -> Timed:
    """The median of a benchmark's samples; of the bursts' medians, so that a disturbed burst is outvoted."""
    warmer: tuple[float, ...] = ()
    if entry.tiny:
        warmer = (loops[entry.name], *(_median(small[most][entry.name], loops[entry.name]) for most in SMALL_ROUNDS))
    seconds = statistics.median(statistics.median(samples) for samples in full if samples)
    return Timed(kernels=kernels, in_place=entry.in_place, seconds=seconds, warmer_s=warmer, host=entry.host)  # type: ignore[arg-type]


def _median(samples: Sequence[float], otherwise: float) -> float:
    return statistics.median(samples) if samples else otherwise


def _drift(bursts: Sequence[Sequence[float]]) -> float:
    medians = [statistics.median(samples) for samples in bursts if samples]
    mean = sum(medians) / len(medians)
    return (max(medians) - min(medians)) / mean if mean else 0.0


# -- roofs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Roofs:
    """The machine's own roofs. Rates in FLOP/s by dtype (the fastest of several calls), bandwidths in B/s by level."""

    flop_per_s: dict[str, float]
    single_thread_flop_per_s: float
    bytes_per_s: dict[str, float]


#: Working sets of the streaming benchmark as a share of a level's capacity: small enough to fit with its neighbours.
_FILL = 0.4
#: Below this a call of torch.add takes longer than its traffic, and says nothing of the cache [B].
_LEAST_STREAM_BYTES = 2**20
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
    sets = {level: _FILL * size for level, size in capacities.items() if _FILL * size >= _LEAST_STREAM_BYTES}
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
