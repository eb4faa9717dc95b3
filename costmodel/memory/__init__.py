"""Memory of a step: which storages live when, and how much of the device's memory they take."""

from __future__ import annotations

from costmodel.memory.allocator import Allocator, ExactBytes, SmallBlocks
from costmodel.memory.footprint import Footprint, footprint, run_bytes
from costmodel.memory.liveness import Lifetime, lifetimes, occupancy

__all__ = [
    "Allocator",
    "ExactBytes",
    "Footprint",
    "Lifetime",
    "SmallBlocks",
    "footprint",
    "lifetimes",
    "occupancy",
    "run_bytes",
]
