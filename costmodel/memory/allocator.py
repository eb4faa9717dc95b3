"""What a storage takes of the device's memory: policies that one can be exchanged for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Allocator", "ExactBytes", "SmallBlocks"]


class Allocator(Protocol):
    """Hands out blocks for storages and takes them back; ``allocated_bytes`` are those handed out."""

    allocated_bytes: float

    def take(self, nbytes: float) -> None:
        """Hand out a block for a storage of ``nbytes``."""

    def give_back(self, nbytes: float) -> None:
        """Take back the block of a storage of ``nbytes``."""


@dataclass(slots=True)
class ExactBytes:
    """Every storage takes its own bytes: no rounding, no fragments.

    >>> memory = ExactBytes()
    >>> memory.take(100), memory.take(28), memory.give_back(100)
    (None, None, None)
    >>> memory.allocated_bytes
    28.0
    """

    allocated_bytes: float = 0.0

    def take(self, nbytes: float) -> None:
        """Its bytes more."""
        self.allocated_bytes += nbytes

    def give_back(self, nbytes: float) -> None:
        """Its bytes less."""
        self.allocated_bytes -= nbytes


@dataclass(slots=True)
class SmallBlocks:
    """The heap of a C library: blocks above ``threshold_bytes`` come from the system by themselves, not from it.

    >>> heap = SmallBlocks(threshold_bytes=64)
    >>> heap.take(100), heap.take(28)
    (None, None)
    >>> heap.allocated_bytes
    28.0
    """

    threshold_bytes: float
    allocated_bytes: float = 0.0

    def take(self, nbytes: float) -> None:
        """Its bytes more, where it is small enough."""
        self.allocated_bytes += nbytes if nbytes <= self.threshold_bytes else 0.0

    def give_back(self, nbytes: float) -> None:
        """Its bytes less, where it is small enough."""
        self.allocated_bytes -= nbytes if nbytes <= self.threshold_bytes else 0.0
