"""The caching allocator's rules, walked by hand after c10/cuda/CUDACachingAllocator.cpp."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

import costmodel
from costmodel.memory import CachingAllocator

KIB, MIB = 2**10, 2**20


@pytest.mark.parametrize(
    ("nbytes", "block", "segment"),
    [
        (1, 512, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # the largest of the small pool
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),  # from here on in steps of 2 MiB; the rest of 1 MiB or less is not split off
        (11 * MIB, 12 * MIB, 12 * MIB),
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),  # a rest of more than 1 MiB is
    ],
)
def test_a_first_block_and_its_segment(nbytes, block, segment):
    memory = CachingAllocator()
    assert memory.take(nbytes).size == block
    assert (memory.allocated_bytes, memory.reserved_bytes) == (block, segment)


def test_a_block_is_the_smallest_that_holds_the_request():
    """Two cached blocks, of 40 and of 24 MiB: 22 MiB are taken of the smaller, what is left of it serves 2 MiB."""
    memory = CachingAllocator()
    large, small = memory.take(40 * MIB), memory.take(24 * MIB)
    for block in (large, small):
        memory.give_back(block)
    assert memory.take(22 * MIB).address == small.address
    assert memory.take(2 * MIB).address == small.address + 22 * MIB
    assert memory.reserved_bytes == 64 * MIB


def test_neighbours_that_are_free_are_one_block_again():
    memory = CachingAllocator()
    parts = [memory.take(5 * MIB) for _ in range(4)]
    assert memory.reserved_bytes == 20 * MIB
    for place in (1, 3, 0, 2):
        memory.give_back(parts[place])
    assert memory.take(20 * MIB).size == 20 * MIB
    assert memory.reserved_bytes == 20 * MIB


def test_a_hole_is_fragmentation():
    """Four blocks of 5 MiB fill a segment; two that are not neighbours hold no 10 MiB."""
    memory = CachingAllocator()
    parts = [memory.take(5 * MIB) for _ in range(4)]
    memory.give_back(parts[0])
    memory.give_back(parts[2])
    memory.take(10 * MIB)
    assert (memory.allocated_bytes, memory.reserved_bytes) == (20 * MIB, 30 * MIB)


def test_small_and_large_blocks_share_no_segment():
    memory = CachingAllocator()
    memory.give_back(memory.take(5 * MIB))
    memory.take(512 * KIB)
    assert memory.reserved_bytes == 22 * MIB


def test_what_comes_back_is_all_there_and_blocks_never_overlap():
    chance = random.Random(0)  # noqa: S311 - no secret
    memory, held = CachingAllocator(), []
    for _ in range(2000):
        if held and chance.random() < 0.5:
            memory.give_back(held.pop(chance.randrange(len(held))))
        else:
            held.append(memory.take(int(2 ** chance.uniform(0, 26))))
        assert memory.allocated_bytes == sum(block.size for block in held) <= memory.reserved_bytes
    ordered = sorted(held, key=lambda block: block.address)
    assert all(a.address + a.size <= b.address for a, b in pairwise(ordered))
    for block in held:
        memory.give_back(block)
    assert memory.allocated_bytes == 0
    reserved = memory.reserved_bytes
    again = [memory.take(block.size) for block in held]
    assert memory.allocated_bytes == sum(block.size for block in again)
    assert reserved <= memory.reserved_bytes <= 1.2 * reserved


def test_without_room_for_a_segment_those_that_are_free_go_back():
    """60 MiB in all, 20 of them in use: a cached block of 40 serves 30 MiB, and goes back where 42 are asked for."""
    memory = CachingAllocator(limit_bytes=60 * MIB)
    kept = memory.take(5 * MIB + 512 * KIB)  # a segment of 20 MiB, in use
    memory.give_back(memory.take(40 * MIB))
    assert memory.reserved_bytes == 60 * MIB
    memory.take(30 * MIB)
    assert (memory.reserved_bytes, memory.short_bytes, memory.most_reserved_bytes) == (60 * MIB, 0, 60 * MIB)
    fresh = CachingAllocator(limit_bytes=60 * MIB)
    fresh.take(5 * MIB)
    fresh.give_back(fresh.take(40 * MIB))
    fresh.take(42 * MIB)
    assert (fresh.reserved_bytes, fresh.short_bytes) == (62 * MIB, 2 * MIB)
    assert kept.size == 5 * MIB + 512 * KIB


def test_what_counts_as_allocated_is_blocks_and_not_what_was_asked_for():
    """A weight of 43 MiB is all but 1 MiB of its segment of 44, and gets the whole of it; cuBLAS takes two buffers of
    4 MiB and eight of 16 KiB."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(*(torch.nn.Linear(a, b, bias=False) for a, b in ((2048, 11008), (11008, 2048)) * 2))
    memory = costmodel.analyze(model, torch.empty(1, 2048), hw="a100", dtype="bf16").memory
    workspace = 2 * 4 * MIB + 8 * 16 * KIB
    assert memory.parameter_bytes == 4 * 43 * MIB
    # in the last product: what it reads (22,016 B: 43 blocks of 512) and writes, and the input
    assert memory.allocated_bytes == 4 * 44 * MIB + workspace + 43 * 512 + 2 * 4 * KIB
    assert memory.moment.by_kind["parameters"] == memory.parameter_bytes


@pytest.mark.parametrize("seed", range(5))
def test_small_blocks_count_alike_whether_they_are_placed_or_not(seed):
    """Where small blocks lie changes nothing of what is handed out: their rests are split off to the last 512 B."""
    draw = random.Random(seed)  # noqa: S311
    both = CachingAllocator(), CachingAllocator(places_small=False)
    held = []
    for _ in range(400):
        if held and draw.random() < 0.5:
            for memory, block in zip(both, held.pop(draw.randrange(len(held))), strict=True):
                memory.give_back(block)
        else:
            nbytes = draw.choice([draw.randrange(1, MIB), draw.randrange(MIB, 50 * MIB)])
            held.append(tuple(memory.take(nbytes) for memory in both))
        assert both[0].allocated_bytes == both[1].allocated_bytes
    assert both[0].peak_bytes == both[1].peak_bytes
