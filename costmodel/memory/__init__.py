"""Memory of a step: which storages live when, and how much of the device's memory they take."""

from __future__ import annotations

from costmodel.memory.allocator import Allocator, ExactBytes, SmallBlocks
from costmodel.memory.caching import CachingAllocator
from costmodel.memory.footprint import Footprint, footprint, run_bytes
from costmodel.memory.largest import largest_batch
from costmodel.memory.liveness import Lifetime, lifetimes, occupancy
from costmodel.memory.machine import Range
from costmodel.memory.moment import Holding, Moment
from costmodel.memory.verdict import Verdict

__all__ = [
    "Allocator",
    "CachingAllocator",
    "ExactBytes",
    "Footprint",
    "Holding",
    "Lifetime",
    "Moment",
    "Range",
    "SmallBlocks",
    "Verdict",
    "footprint",
    "largest_batch",
    "lifetimes",
    "occupancy",
    "run_bytes",
]
