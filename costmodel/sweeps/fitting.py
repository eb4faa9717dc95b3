"""Whether a step fits into the memory of its machine, asked of many points."""

from __future__ import annotations

from costmodel.analysis import Analysis

__all__ = ["fits"]


def fits(analysis: Analysis) -> bool | None:
    """Whether the step fits by the best estimate (:attr:`costmodel.memory.Footprint.fits`); None where nobody knows
    the memory of the machine.

    A step that takes less than half of it needs no simulation of what the allocator holds besides, in fragments.
    """
    memory = analysis.memory
    if memory.usable_bytes is None:
        return None
    if 2 * memory.allocated_bytes + memory.context_bytes.high <= memory.usable_bytes.low:
        return True
    return memory.fits
