"""Verdict: whether a step fits a machine, read from the intervals of its need and of what a process can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel.memory.machine import Range

if TYPE_CHECKING:
    from costmodel.memory.footprint import Footprint

__all__ = ["WORDS", "Verdict", "verdict_of"]

#: From the best to the worst; "unknown" where the memory of the machine is not known.
WORDS = ("fits", "tight", "likely out of memory", "certainly out of memory", "unknown")

#: How far the step's own bytes may be off, of their size: see benchmarks/memory_rows.py for what is left on a GPU.
_DOUBT = 0.08


@dataclass(frozen=True, slots=True)
class Verdict:
    """``word`` is one of :data:`WORDS`; ``need`` [B] is what the process takes, ``have`` [B] what it can have.

    The least need is what is allocated at once, since the allocator gives back what it caches before it fails; the
    usual one is what it reserves in a steady state. Where the best estimate fits and the interval does not, it is
    tight.
    """

    word: str
    need: Range
    have: Range | None

    @property
    def fits(self) -> bool | None:
        """Whether the best estimate fits; None where the memory of the machine is not known."""
        return None if self.have is None else self.word in ("fits", "tight")


def verdict_of(memory: Footprint) -> Verdict:
    """Hold what a process takes against what the machine has."""
    context, certain = memory.context_bytes, memory.certain_bytes
    need = Range(
        (1 - _DOUBT) * (memory.allocated_bytes - certain) + certain + context.low,
        memory.reserved_bytes + context.usual,
        (1 + _DOUBT) * (memory.reserved_bytes - certain) + certain + context.high,
    )
    return Verdict(_word(need, memory.short_bytes, memory.usable_bytes), need, memory.usable_bytes)


def _word(need: Range, short_bytes: float, have: Range | None) -> str:
    """``short_bytes`` is what the machine lacks by the best estimate [B]."""
    if have is None:
        return "unknown"
    if need.high <= have.low:
        return "fits"
    if short_bytes <= 0:
        return "tight"
    return "likely out of memory" if need.low <= have.high else "certainly out of memory"
