"""Timeline: when every launch of a step is issued, starts and ends, and what its time is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, overload

__all__ = ["KernelSeconds", "Slot", "Timeline"]


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
        return self.bounded[0]

    @property
    def bounded(self) -> tuple[str, float]:
        """(:attr:`bound`, :attr:`latency_s`), read at once: there are many slots."""
        _, _, _, waited_s, busy_s, launch_s, parts, share, _, _, _ = self
        seconds = waited_s + busy_s
        if not seconds:
            return "free", seconds
        compute_s, memory_s = parts.compute_s, (parts.memory_s + parts.serial_s) * share
        longest = memory_s if memory_s >= compute_s else compute_s
        if longest < launch_s:
            return "launch", seconds
        return ("memory" if memory_s == longest else "compute"), seconds


class Timeline(Sequence[Slot]):
    """The slots of one step, one a launch in program order. Their latencies add up to the step."""

    def __init__(self, slots: Iterable[Slot], latency_s: float | None = None) -> None:
        """``slots`` are run through when one is first asked for. ``latency_s``: their sum, where it is known."""
        self._made, self._latency_s = slots, latency_s

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """All of them."""
        return tuple(self._made)

    @overload
    def __getitem__(self, index: int) -> Slot: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Slot, ...]: ...
    def __getitem__(self, index: int | slice) -> Slot | tuple[Slot, ...]:
        return self.slots[index]

    def __len__(self) -> int:
        return len(self.slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    @cached_property
    def latency_s(self) -> float:
        """Seconds from the start of the step to the end of its last launch."""
        if self._latency_s is not None:
            return self._latency_s
        return sum(slot.waited_s + slot.busy_s for slot in self.slots)

    @cached_property
    def busy_s(self) -> float:
        """Seconds that the device is busy."""
        return math.fsum(slot.busy_s for slot in self.slots)

    @cached_property
    def energy_j(self) -> float:
        """What the step draws [J]; NaN where the machine's energy is not modelled."""
        return math.fsum(slot.energy_j for slot in self.slots)

    @property
    def power_w(self) -> float:
        """Average power over the step [W]; NaN where it is not modelled, or nothing runs."""
        return self.energy_j / self.latency_s if self.latency_s else math.nan

    @property
    def waited_s(self) -> float:
        """Seconds that the device idles until the host has issued the next launch."""
        return math.fsum(slot.waited_s for slot in self.slots)

    def latency_if_issued(self, issued_s: Sequence[float]) -> float:
        """Seconds of the same launches under another host, who has issued launch i at ``issued_s[i]``.

        A step ends no earlier than any launch is issued and all work from it on is done.
        """
        latest, rest = 0.0, 0.0
        for slot, issued in zip(reversed(self.slots), reversed(issued_s), strict=True):
            rest += slot.busy_s
            latest = max(latest, issued + rest)
        return latest

    @classmethod
    def in_sequence(cls, parts: Sequence[KernelSeconds], spread: float, power_w: float = math.nan) -> Timeline:
        """Launches of a device that issues its own work: each begins as the one before it ends.

        ``power_w`` is what it draws all the time [W].
        """
        slots, ended = [], 0.0
        for part in parts:
            busy = part.seconds()
            slots.append(Slot(ended, ended, ended + busy, 0.0, busy, part.fixed_s, part, 1.0, spread, power_w * busy))
            ended += busy
        return cls(tuple(slots))
