"""A step run through PyTorch's caching allocator: what it hands out and what it holds, in the order of the launches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from costmodel.memory.caching import Block, CachingAllocator
from costmodel.memory.liveness import lifetimes, scratch
from costmodel.memory.resident import resident

if TYPE_CHECKING:
    from costmodel.memory.footprint import Footprint

__all__ = ["Simulated", "after_steps", "course"]

#: Steps of which the reserved memory is that of a steady state: the first, and one that finds its segments.
_STEPS = 2


class Simulated(NamedTuple):
    """What an allocator has held of a device at most, and what it lacked [B]."""

    reserved_bytes: int
    short_bytes: float


def course(memory: Footprint) -> list[int]:
    """B handed out during each launch of a first step, with what lies there throughout.

    Blocks up to 1 MiB are counted and not placed: of theirs no rest is ever given away with them.
    """
    allocator = CachingAllocator(places_small=False)
    _bring(memory, allocator)
    return list(_step(memory, allocator))


def after_steps(memory: Footprint, limit_bytes: float | None) -> Simulated:
    """The allocator after some steps on a device that has ``limit_bytes`` for it (None: any number)."""
    allocator = CachingAllocator(limit_bytes)
    _bring(memory, allocator)
    for _ in range(_STEPS):
        for _ in _step(memory, allocator):
            pass
    return Simulated(allocator.most_reserved_bytes, allocator.short_bytes)


def _bring(memory: Footprint, allocator: CachingAllocator) -> None:
    """Take blocks for what lies there throughout."""
    for one in resident(memory):
        allocator.take(one.nbytes)
    for nbytes in memory.library_blocks:
        allocator.take(nbytes)


def _step(memory: Footprint, allocator: CachingAllocator) -> Iterator[int]:
    """Let a step take its blocks and give them all back; B that are handed out during each launch."""
    plan, nbytes = memory.plan, memory.plan.storage_bytes
    blocks: dict[int, Block] = {}
    beside: list[Block] = []
    wanted: tuple[int, ...] = ()
    before: tuple[int, ...] | None = None
    for launch, (allocated, freed), sizes in zip(
        plan.launches, lifetimes(plan, memory.graph), scratch(plan, memory.graph), strict=True
    ):
        if beside and (sizes[: len(wanted)] != wanted or launch.nodes != before):
            while beside:
                allocator.give_back(beside.pop())
            wanted = ()
        before = launch.nodes
        for storage in allocated:
            if nbytes[storage]:
                blocks[storage] = allocator.take(nbytes[storage])
        if sizes:
            beside += [allocator.take(size) for size in sizes[len(wanted) :]]
        wanted = sizes
        yield allocator.allocated_bytes
        for storage in freed:
            if storage in blocks:
                allocator.give_back(blocks.pop(storage))
    for block in (*beside, *blocks.values()):
        allocator.give_back(block)
