"""Timeline: when every launch of a step is issued, starts and ends, and what its time is made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, overload

__all__ = ["KernelSeconds", "Kind", "Slot", "Timeline"]


class KernelSeconds(NamedTuple):
    """Device seconds of a kernel: arithmetic and memory traffic, which overlap, and what depends on neither.

    ``overlap`` is the exponent p of their sum (compute^p + memory^p)^(1/p): infinite where the longer hides
    the other. ``serial_s`` is the part of the memory traffic that no arithmetic hides (the transforms of Winograd and
    FFT are kernels before and after); ``memory_s`` does not hold it.
    """

    compute_s: float
    memory_s: float
    fixed_s: float
    overlap: float = math.inf
    serial_s: float = 0.0

    def seconds(self, memory_share: float = 1.0) -> float:
        """The whole, when only ``memory_share`` of the memory time is needed (the rest came from L2)."""
        memory = self.memory_s * memory_share
        compute = self.compute_s
        longer, shorter = (compute, memory) if compute > memory else (memory, compute)
        if longer > 0 and self.overlap != math.inf:
            longer *= (1 + (shorter / longer) ** self.overlap) ** (1 / self.overlap)
        return self.fixed_s + longer + self.serial_s * memory_share


class Slot(NamedTuple):
    """One launch on the timeline; seconds, the first three since the step began.

    ``issued_s``      when the host has issued it
    ``start_s``, ``end_s``   when the device begins and has ended it
    ``waited_s``      how long the device idled before it, for the host
    ``busy_s``        how long the device is busy with it
    ``launch_s``      what depends on neither arithmetic nor traffic: waiting for the host, start and drain
    ``parts``         what its kernel would take with every operand from device memory
    ``memory_share``  share of its memory time that device memory serves, the rest being hits in a cache [1]
    ``spread``        one standard deviation of its time, over its time [1]
    ``energy_j``      what the machine draws from the end of the launch before it to its own [J]; NaN where the energy
                      of the machine is not modelled
    ``held_hz``       the clock that the power limit holds it down to; None where the limit does not slow it
    """

    issued_s: float
    start_s: float
    end_s: float
    waited_s: float
    busy_s: float
    launch_s: float
    parts: KernelSeconds
    memory_share: float = 1.0
    spread: float = 0.0
    energy_j: float = math.nan
    held_hz: float | None = None

    @property
    def latency_s(self) -> float:
        """What the launch adds to the end of the step: waiting and work."""
        return self.waited_s + self.busy_s

    @property
    def compute_s(self) -> float:
        """Arithmetic alone."""
        return self.parts.compute_s

    @property
    def memory_s(self) -> float:
        """Traffic alone, what the caches serve left out."""
        return (self.parts.memory_s + self.parts.serial_s) * self.memory_share

    @property
    def spread_s(self) -> float:
        """One standard deviation of :attr:`latency_s`."""
        return self.spread * self.latency_s

    @property
    def bound(self) -> str:
        """The largest part: compute, memory, launch; free where it takes no time."""
        if not self.latency_s:
            return "free"
        return _largest(self.compute_s, self.memory_s, self.launch_s)


def _largest(compute_s: float, memory_s: float, launch_s: float) -> str:
    """The largest part of a time."""
    if memory_s >= compute_s:
        return "memory" if memory_s >= launch_s else "launch"
    return "compute" if compute_s >= launch_s else "launch"


class Kind(NamedTuple):
    """What launches that are alike have in common, whenever each of them is issued; seconds of one launch.

    ``parts``, ``memory_share``, ``busy_s``, ``spread``, ``held_hz``   as in :class:`Slot`
    ``launch_s``    what of its time depends on neither arithmetic nor traffic, beside waiting for the host
    ``busy_j``      what the machine draws while it is busy [J], ``waiting_w`` while it waits for the host [W]; NaN
                    where the energy of the machine is not modelled
    """

    parts: KernelSeconds
    busy_s: float
    launch_s: float
    memory_share: float = 1.0
    spread: float = 0.0
    busy_j: float = math.nan
    waiting_w: float = math.nan
    held_hz: float | None = None

    def bound(self, waited_s: float) -> str:
        """:attr:`Slot.bound` of a launch that waits so long for the host."""
        (compute_s, memory_s, _, _, serial_s), busy_s, launch_s, share, _, _, _, _ = self
        if not waited_s + busy_s:
            return "free"
        return _largest(compute_s, (memory_s + serial_s) * share, waited_s + launch_s)


class Timeline(Sequence[Slot]):
    """The slots of one step, one a launch in program order: two queues, the host's and the device's.

    ``issued`` says when the host has issued each launch [s]; a launch starts when it has been issued and the one before
    it has ended. What it adds to the end of the step is its latency, so that latencies add up to the step. A step has
    many launches of few ``kinds`` (``of_launch[i]`` is that of the i-th), so that sums are taken over kinds, and slots
    are made when somebody asks for one.
    """

    def __init__(self, kinds: Sequence[Kind], of_launch: Sequence[int], issued: Sequence[float]) -> None:
        self.kinds, self.of_launch, self.issued = kinds, of_launch, issued

    # -- the queues ------------------------------------------------------------------------------

    @cached_property
    def _queued(self) -> tuple[float, dict[int, float]]:
        """(when the last launch has ended [s], how long the device idles before launches that it waits for [s])."""
        busy = [kind.busy_s for kind in self.kinds]
        ended, waits = 0.0, {}
        for position, (kind, issued_s) in enumerate(zip(self.of_launch, self.issued, strict=True)):
            if issued_s > ended:
                waits[position] = issued_s - ended
                ended = issued_s
            ended += busy[kind]
        return ended, waits

    @property
    def latency_s(self) -> float:
        """Seconds from the start of the step to the end of its last launch."""
        return self._queued[0]

    @property
    def waits(self) -> dict[int, float]:
        """For launches that the device waits for, by position: how long it idles before them [s]."""
        return self._queued[1]

    def latency_if_issued(self, issued: Sequence[float]) -> float:
        """Seconds of the same launches under another host, who has issued launch i at ``issued[i]``."""
        return Timeline(self.kinds, self.of_launch, issued).latency_s

    # -- sums ------------------------------------------------------------------------------------

    @cached_property
    def counts(self) -> dict[int, int]:
        """How many launches there are of each kind."""
        return Counter(self.of_launch)

    @cached_property
    def waited_by_kind(self) -> dict[int, float]:
        """How long the device idles before the launches of a kind [s]; kinds that it never waits for are left out."""
        found: dict[int, float] = {}
        for position, waited_s in self.waits.items():
            kind = self.of_launch[position]
            found[kind] = found.get(kind, 0.0) + waited_s
        return found

    @cached_property
    def busy_s(self) -> float:
        """Seconds that the device is busy."""
        return math.fsum(count * self.kinds[kind].busy_s for kind, count in self.counts.items())

    @cached_property
    def waited_s(self) -> float:
        """Seconds that the device idles until the host has issued the next launch."""
        return math.fsum(self.waits.values())

    @cached_property
    def energy_j(self) -> float:
        """What the step draws [J]; NaN where the machine's energy is not modelled."""
        busy = math.fsum(count * self.kinds[kind].busy_j for kind, count in self.counts.items())
        return busy + math.fsum(waited * self.kinds[kind].waiting_w for kind, waited in self.waited_by_kind.items())

    @property
    def power_w(self) -> float:
        """Average power over the step [W]; NaN where it is not modelled, or nothing runs."""
        return self.energy_j / self.latency_s if self.latency_s else math.nan

    @property
    def of_kinds(self) -> Iterator[tuple[int, float]]:
        """(kind, seconds that its launches add to the end of the step), waiting and work."""
        waited = self.waited_by_kind
        for kind, count in self.counts.items():
            yield kind, count * self.kinds[kind].busy_s + waited.get(kind, 0.0)

    # -- launch by launch ------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """All of them."""
        return tuple(self._slots())

    def _slots(self) -> Iterator[Slot]:
        ended, waits = 0.0, self.waits
        for position, (which, issued_s) in enumerate(zip(self.of_launch, self.issued, strict=True)):
            kind, waited = self.kinds[which], waits.get(position, 0.0)
            start = issued_s if waited else ended
            ended = start + kind.busy_s
            drawn = kind.busy_j + waited * kind.waiting_w if waited else kind.busy_j
            yield Slot(
                issued_s, start, ended, waited, kind.busy_s, waited + kind.launch_s, kind.parts, kind.memory_share,
                kind.spread, drawn, kind.held_hz,
            )  # fmt: skip

    @overload
    def __getitem__(self, index: int) -> Slot: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Slot, ...]: ...
    def __getitem__(self, index: int | slice) -> Slot | tuple[Slot, ...]:
        return self.slots[index]

    def __len__(self) -> int:
        return len(self.of_launch)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    @classmethod
    def in_sequence(
        cls, parts: Sequence[KernelSeconds], spreads: Sequence[float], power_w: float = math.nan
    ) -> Timeline:
        """Launches of a device that issues its own work: each begins as the one before it ends.

        ``spreads`` are theirs, ``power_w`` is what it draws all the time [W].
        """
        kinds = []
        for part, spread in zip(parts, spreads, strict=True):
            busy = part.seconds()
            kinds.append(Kind(part, busy, part.fixed_s, 1.0, spread, power_w * busy, power_w))
        return cls(kinds, range(len(kinds)), [0.0, *accumulate(kind.busy_s for kind in kinds[:-1])][: len(kinds)])
