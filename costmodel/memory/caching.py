"""PyTorch's caching allocator for CUDA and ROCm, as it hands out blocks: c10/cuda/CUDACachingAllocator.cpp, torch 2.x.

What is simulated: sizes rounded up to 512 B; a pool of small blocks in segments of 2 MiB and one of large blocks, in
segments of 20 MiB below 10 MiB and of multiples of 2 MiB above; best fit by size and then address; splitting; merging
of neighbours when a block comes back. Segments stay reserved until the device has no room for a new one: then those of
which nothing is in use go back, and it is tried again. What is not: several streams, expandable segments,
``max_split_size_mb``.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

__all__ = ["Block", "CachingAllocator", "rounded"]

#: kMinBlockSize, kSmallSize, kSmallBuffer, kLargeBuffer, kMinLargeAlloc, kRoundLarge [B].
_BLOCK = 512
_SMALL = 1 << 20
_SMALL_SEGMENT = 2 << 20
_LARGE_SEGMENT = 20 << 20
_LARGE = 10 << 20
_LARGE_STEP = 2 << 20
#: Address of a block that is counted and not placed.
_NOWHERE = -1


def rounded(nbytes: float) -> int:
    """B of the block that an allocation of ``nbytes`` takes.

    >>> rounded(1), rounded(512), rounded(513)
    (512, 512, 1024)
    """
    return max(_BLOCK, -(-int(nbytes) // _BLOCK) * _BLOCK)


def _segment(nbytes: int) -> int:
    """B that are asked of the driver for a block of ``nbytes``."""
    if nbytes <= _SMALL:
        return _SMALL_SEGMENT
    return _LARGE_SEGMENT if nbytes < _LARGE else -(-nbytes // _LARGE_STEP) * _LARGE_STEP


@dataclass(slots=True, eq=False)
class Block:
    """A stretch of a segment: its size [B], address [B], and the stretches beside it."""

    size: int
    address: int
    is_small: bool
    before: Block | None = None
    after: Block | None = None
    is_free: bool = False


@dataclass(slots=True)
class CachingAllocator:
    """Blocks in use and in reserve, of at most ``limit_bytes`` (None: of any number).

    ``peak_bytes`` is the most that was ever in use, ``most_reserved_bytes`` the most in reserve; ``short_bytes`` is by
    how much a request went beyond the limit when nothing could be given back any more: PyTorch would have raised
    OutOfMemoryError, here it goes on. Where small blocks are not placed (``places_small``), they are only counted: the
    rest of a block is split off to the last 512 B, so that where they lie changes nothing of what is handed out.

    >>> memory = CachingAllocator()
    >>> block = memory.take(3 << 20)
    >>> memory.allocated_bytes, memory.reserved_bytes           # 3 MiB of a segment of 20 MiB
    (3145728, 20971520)
    >>> memory.give_back(block)
    >>> memory.allocated_bytes, memory.reserved_bytes
    (0, 20971520)
    """

    limit_bytes: float | None = None
    places_small: bool = True
    allocated_bytes: int = 0
    reserved_bytes: int = 0
    peak_bytes: int = 0
    most_reserved_bytes: int = 0
    short_bytes: float = 0
    _next_address: int = 0
    _free: dict[bool, list[tuple[int, int]]] = field(default_factory=lambda: {True: [], False: []})
    _at: dict[int, Block] = field(default_factory=dict)  # free blocks by address

    def take(self, nbytes: float) -> Block:
        """A block for ``nbytes``: the smallest free one that holds them, or a part of a new segment."""
        size = rounded(nbytes)
        is_small = size <= _SMALL
        if is_small and not self.places_small:
            self._hand_out(size)
            return Block(size, _NOWHERE, True)
        free = self._free[is_small]
        place = bisect_left(free, (size, 0))
        if place < len(free):
            _, address = free.pop(place)
            block = self._at.pop(address)
        else:
            block = self._new_segment(_segment(size), is_small)
        rest = block.size - size
        if rest >= _BLOCK if is_small else rest > _SMALL:
            tail = Block(rest, block.address + size, is_small, block, block.after, True)
            if block.after is not None:
                block.after.before = tail
            block.after, block.size = tail, size
            self._shelve(tail)
        block.is_free = False
        self._hand_out(block.size)
        return block

    def _hand_out(self, size: int) -> None:
        self.allocated_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)

    def _new_segment(self, size: int, is_small: bool) -> Block:
        if self.limit_bytes is not None and self.reserved_bytes + size > self.limit_bytes:
            self._release()
            self.short_bytes = max(self.short_bytes, self.reserved_bytes + size - self.limit_bytes)
        block = Block(size, self._next_address, is_small)
        self._next_address += size
        self.reserved_bytes += size
        self.most_reserved_bytes = max(self.most_reserved_bytes, self.reserved_bytes)
        return block

    def _release(self) -> None:
        """Give back the segments of which nothing is in use."""
        for block in [b for b in self._at.values() if b.before is None and b.after is None]:
            self._unshelve(block)
            self.reserved_bytes -= block.size

    def give_back(self, block: Block) -> None:
        """Free a block, merged with free neighbours."""
        self.allocated_bytes -= block.size
        if block.address == _NOWHERE:
            return
        before, after = block.before, block.after
        if before is not None and before.is_free:
            self._unshelve(before)
            before.size += block.size
            before.after = after
            if after is not None:
                after.before = before
            block = before
        if after is not None and after.is_free:
            self._unshelve(after)
            block.size += after.size
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        block.is_free = True
        self._shelve(block)

    def _shelve(self, block: Block) -> None:
        insort(self._free[block.is_small], (block.size, block.address))
        self._at[block.address] = block

    def _unshelve(self, block: Block) -> None:
        free = self._free[block.is_small]
        free.pop(bisect_left(free, (block.size, block.address)))
        del self._at[block.address]
