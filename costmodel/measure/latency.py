"""How long a call takes, end to end: warmed up until stable, then median and spread.

One call is timed at a time. On the CPU the clock is read around it, with the number of threads held fixed; on CUDA two
events enclose the work on the stream, and the device is idle when a call begins. ``cache="cold"`` evicts the last
level cache before every call, untimed. Several calls that are to be compared are timed in :func:`round_robin`, in a
new random order in every round, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from costmodel.errors import InputError, librarian

__all__ = [
    "CACHES",
    "Latency",
    "WarmUp",
    "cache_flush",
    "check_device",
    "end_to_end",
    "last_level_cache_bytes",
    "page_faults",
    "pinned_threads",
    "round_robin",
    "spread_of",
    "stopwatch",
    "warm_allocator",
]  # fmt: skip

CACHES = ("warm", "cold")

Run = Callable[[], object]
Clock = Callable[[], float]
Stopwatch = Callable[[Run], float]

#: Assumed size of the last level cache where the system does not tell [B]: that of a large server CPU's slice.
_UNKNOWN_CACHE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Latency:
    """Timed calls, in the order in which they were made.

    ``samples_s``      seconds of each call, warm-up left out.
    ``warm_up_calls``  calls made before, untimed or thrown away.
    ``stable``         whether warm-up ended because calls had settled, not because it had taken long enough.
    """

    samples_s: tuple[float, ...]
    warm_up_calls: int = 0
    stable: bool = True

    @property
    def median_s(self) -> float:
        """Median of the samples, in seconds."""
        return statistics.median(self.samples_s)

    @property
    def minimum_s(self) -> float:
        """The fastest sample, in seconds: what the machine can do when nothing disturbs it."""
        return min(self.samples_s)

    @property
    def spread(self) -> float:
        """Interquartile range of the samples over their median, a share."""
        return spread_of(self.samples_s)


def spread_of(samples: Sequence[float]) -> float:
    """Interquartile range over the median, quartiles interpolated; 0 for a single sample.

    >>> spread_of([1.0, 2.0, 3.0, 4.0, 5.0])    # quartiles 2 and 4
    0.6666666666666666
    """
    if len(samples) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / middle if middle else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """When calls have settled: the medians of the last ``window`` and of the ``window`` before differ by ``tolerance``.

    Warm-up ends after ``most_calls`` or ``most_seconds`` in any case (then :attr:`Latency.stable` is False), and
    not before ``least_calls``.
    """

    window: int = 3
    tolerance: float = 0.05
    least_calls: int = 2
    most_calls: int = 50
    most_seconds: float = 10.0

    def run(self, once: Callable[[], float]) -> tuple[int, bool]:
        """Make calls (each returns its seconds) until they have settled: (calls made, whether they settled)."""
        taken: list[float] = []
        while len(taken) < self.most_calls and (sum(taken) < self.most_seconds or len(taken) < self.least_calls):
            taken.append(once())
            if len(taken) >= self.least_calls and self.settled(taken):
                return len(taken), True
        return len(taken), False

    def settled(self, taken: Sequence[float]) -> bool:
        """Whether the last calls, in seconds, agree with those before them."""
        if len(taken) < 2 * self.window:
            return False
        last = statistics.median(taken[-self.window :])
        before = statistics.median(taken[-2 * self.window : -self.window])
        return abs(last - before) <= self.tolerance * before


def end_to_end(
    run: Run,
    *,
    device: str = "cpu",
    threads: int | None = None,
    repeats: int = 20,
    warm_up: WarmUp | None = None,
    most_seconds: float = 30.0,
    least_repeats: int = 3,
    cache: str = "warm",
    clock: Clock = time.perf_counter,
) -> Latency:
    """Time ``run`` on ``device`` ("cpu", "cuda" or "cuda:N").

    ``threads`` are those of intra-operator parallelism on the CPU, put back afterwards (None: as they are).
    ``repeats`` calls are timed, fewer when they take more than ``most_seconds`` together, never fewer than
    ``least_repeats``. ``cache`` "cold" evicts the caches before each call. ``clock`` gives seconds.
    Raises InputError for a device that is not there, for fewer than 1 thread or repeat, and for an unknown ``cache``.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats}")
    watch, flush = stopwatch(device, clock), cache_flush(device, cache)

    def once() -> float:
        flush()
        return watch(run)

    with pinned_threads(threads):
        calls, stable = (warm_up or WarmUp()).run(once)
        samples = [once()]
        while len(samples) < repeats and (sum(samples) < most_seconds or len(samples) < least_repeats):
            samples.append(once())
    return Latency(tuple(samples), calls, stable)


def round_robin(
    runs: Mapping[str, Run],
    *,
    rounds: int,
    device: str = "cpu",
    threads: int | None = None,
    warm_up_rounds: int = 2,
    seed: int = 0,
    before: Callable[[str], object] | None = None,
    clock: Clock = time.perf_counter,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Latency]:
    """Time every run once a round, in a fresh random order: each call meets what the others left in the caches.

    ``before(name)`` runs untimed before each timed call; ``progress(done, count)`` is told of every round.
    Raises InputError as :func:`end_to_end` does.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, not {rounds}")
    watch, shuffler, order = stopwatch(device, clock), random.Random(seed), list(runs)  # noqa: S311 (no secret)
    samples: dict[str, list[float]] = {name: [] for name in runs}
    with pinned_threads(threads):
        for number in range(warm_up_rounds + rounds):
            shuffler.shuffle(order)
            for name in order:
                if before is not None:
                    before(name)
                seconds = watch(runs[name])
                if number >= warm_up_rounds:
                    samples[name].append(seconds)
            if progress is not None:
                progress(number + 1, warm_up_rounds + rounds)
    return {name: Latency(tuple(taken), warm_up_rounds) for name, taken in samples.items()}


@contextmanager
def pinned_threads(threads: int | None) -> Iterator[int]:
    """``torch.set_num_threads`` inside, as it was afterwards; yields the number in force. None changes nothing.

    Raises InputError for fewer than 1 thread.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be a whole number of at least 1, not {threads}")
    kept = torch.get_num_threads()
    if threads is not None and threads != kept:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != kept:
            torch.set_num_threads(kept)


def warm_allocator() -> None:
    """Bring glibc's allocator to the state of a process that has run for a while.

    It gives blocks back to the system above a threshold, and pays for the next ones in page faults; the threshold
    rises with the largest block that was freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(32 * 2**20 - 2**16, dtype=torch.uint8)


def page_faults() -> int:
    """Pages that this process has got from the system until now; 0 where the system does not count them."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def stopwatch(device: str, clock: Clock = time.perf_counter) -> Stopwatch:
    """What times one call on ``device``, in seconds. Raises InputError for a device that is not there."""
    check_device(device)
    if device.startswith("cuda"):
        return lambda run: _cuda_seconds(run, device)

    def on_cpu(run: Run) -> float:
        started = clock()
        run()
        return clock() - started

    return on_cpu


def check_device(device: str) -> None:
    """Raise InputError where ``device`` cannot run anything here."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise InputError(librarian(f"there is no device {device!r}", there_is=("cpu", "cuda", "cuda:N")))
    if kind == "cuda" and not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA GPU"
        raise InputError(
            librarian(
                f"nothing can be measured on {device}: {why}",
                do="--device cpu measures here; a trace that was recorded elsewhere is read by --from-trace FILE",
            )
        )
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(librarian(f"there is no device {device!r}", there_is=there))


def _cuda_seconds(run: Run, device: str) -> float:
    """Seconds between two events around the call's work on the current stream; the device is idle when it begins."""
    with torch.cuda.device(device):
        started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        started.record()
        run()
        ended.record()
        torch.cuda.synchronize()
        return float(started.elapsed_time(ended)) / 1e3


def cache_flush(device: str, cache: str) -> Run:
    """What to do before each call: nothing for "warm"; for "cold", write twice the last level cache.

    Raises InputError for another ``cache``.
    """
    if cache not in CACHES:
        raise InputError(librarian(f"there is no cache state {cache!r}", there_is=CACHES))
    if cache == "warm":
        return lambda: None
    buffer = torch.zeros(2 * last_level_cache_bytes(device), dtype=torch.uint8, device=device)

    def evict() -> None:
        buffer.add_(1)
        if buffer.is_cuda:
            torch.cuda.synchronize(buffer.device)

    return evict


def last_level_cache_bytes(device: str = "cpu", *, system: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Size of the last level cache [B]: a GPU's L2, or the largest that Linux names for the first CPU."""
    if device.startswith("cuda"):
        properties: Any = torch.cuda.get_device_properties(device)
        return int(getattr(properties, "L2_cache_size", 0)) or _UNKNOWN_CACHE_BYTES
    sizes = [_bytes_of(path.read_text().strip()) for path in system.glob("index*/size")]
    return max(sizes, default=_UNKNOWN_CACHE_BYTES)


def _bytes_of(text: str) -> int:
    """Linux's ``32768K`` in B.

    >>> _bytes_of("32768K"), _bytes_of("1M"), _bytes_of("512")
    (33554432, 1048576, 512)
    """
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * scale
