"""Time of attention whose scores stay on chip, from its tiles.

A block of threads keeps a tile of queries and walks the keys in steps. A step costs the two products at a share of the
matrix peak, whether the tile is full or not, and the exponentials of its scores on the units that have them; a causal
mask ends the walk at the tile's last query, so that half of the steps of a long sequence are never made. Heads that
share keys and values may lie in one tile. Blocks of threads are spread over the units; where one query leaves most of
them idle the keys are split, and another kernel adds the parts up. Beside all that stands the traffic:

    seconds = fixed + (compute^p + memory^p)^(1/p)

Every constant is in :class:`~costmodel.devices.attention.AttentionKernels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from costmodel.devices.attention import AttentionKernels, Splits
from costmodel.kernels.shapes import Attention
from costmodel.timing.timeline import KernelSeconds

__all__ = ["EXPONENTIALS_PER_CLOCK", "OVERLAP", "AttentionMachine", "attention_time", "parts_of"]

#: Exponentials a clock of one unit: the rate of its special function units (CUDA C++ Programming Guide, "Throughput of
#: Native Arithmetic Instructions"), the same on Volta to Hopper.
EXPONENTIALS_PER_CLOCK = 16
#: Exponent of the sum of compute and DRAM time [1]; set, as fitted for products.
OVERLAP = 3.0
#: B of an element of the parts of a split, which are summed in fp32.
_PART_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMachine:
    """One GPU for the time of attention.

    ``flop_per_clock`` is the dense peak of one unit in the dtype of the operands [FLOP/clock] at ``clock_hz``;
    ``fixed_s`` the start of a plain kernel; ``dram_bytes_per_s`` what long element-wise kernels reach, and
    ``l2_bytes_per_s`` reads from L2 by micro-benchmark; ``item_bytes`` those of an operand's element.
    """

    unit_count: int
    clock_hz: float
    flop_per_clock: float
    dram_bytes_per_s: float
    l2_bytes_per_s: float
    fixed_s: float
    item_bytes: float = 2


class _Walk(NamedTuple):
    """Tiles of one head or group of heads: how many, the steps of all, and those of the longest."""

    tiles: int
    steps: int
    longest: int


@lru_cache(maxsize=4096)
def _walk(queries: int, keys: int, group: int, rows: int, columns: int, causal: bool) -> _Walk:
    """Steps over the keys of the tiles of ``group`` heads with ``queries`` each; the mask ends at the last query."""
    tiles = -(-queries * group // rows)
    if not causal:
        steps = -(-keys // columns)
        return _Walk(tiles, tiles * steps, steps)
    seen = (
        min(keys, (min((tile + 1) * rows, queries * group) - 1) // group + 1 + keys - queries) for tile in range(tiles)
    )
    steps_of = [-(-max(count, 1) // columns) for count in seen]
    return _Walk(tiles, sum(steps_of), max(steps_of))


@lru_cache(maxsize=4096)
def parts_of(splits: Splits, blocks: int, steps: int, unit_count: int) -> int:
    """Parts that the keys are split into, for ``blocks`` blocks of threads of ``steps`` steps each.

    The fewest parts that fill the last round of the units to 85 % of what the best number of parts does
    (``num_splits_heuristic`` of FlashAttention).

    >>> parts_of(Splits(), 8, 64, 108), parts_of(Splits(), 100, 64, 108)
    (13, 1)
    """
    slots = unit_count * splits.blocks_a_unit
    if blocks >= 0.8 * slots or steps <= splits.fewest_steps:
        return 1
    filled = {}
    for parts in range(1, min(splits.most, slots, steps) + 1):
        if parts == 1 or -(-steps // parts) != -(-steps // (parts - 1)):
            rounds = blocks * parts / slots
            filled[parts] = rounds / -(-blocks * parts // slots)
    best = max(filled.values())
    return next(parts for parts, share in filled.items() if share >= 0.85 * best)


class _Split(NamedTuple):
    """How keys are split: whether by the kernel with splits, in how many parts, and the tile that it has."""

    by_split_kernel: bool
    parts: int
    tile: tuple[int, int, int]


def _split(
    shape: Attention, kernels: AttentionKernels, group: int, tile: tuple[int, int, int], unit_count: int
) -> _Split:
    """What the library decides before it launches, from sizes alone."""
    splits = kernels.splits
    if splits is None or (shape.queries > 1 and not splits.prompts) or (group == 1 and splits.shared_only):
        return _Split(False, 1, tile)
    one_query = shape.queries == 1
    own = kernels.split_tile(max(shape.width, shape.value_width), causal=shape.causal, one_query=one_query)
    heads, rows = shape.heads // group, shape.queries * group
    steps, blocks = -(-shape.keys // own[2]), heads * -(-rows // own[1])
    if not splits.by_sequence:
        parts = parts_of(splits, blocks, steps, unit_count)
        return _Split(parts > 1, parts, own if parts > 1 else tile)
    most = parts_of(splits, heads // shape.sequences * -(-rows // tile[1]), -(-shape.keys // tile[2]), unit_count)
    if most == 1:
        return _Split(False, 1, tile)
    return _Split(True, min(most, -(-steps // -(-11 * blocks * steps // (10 * unit_count)))), own)


def attention_time(
    shape: Attention, kernels: AttentionKernels, machine: AttentionMachine, traffic_bytes: float
) -> KernelSeconds:
    """Device seconds of an attention on a machine with these kernels; ``traffic_bytes`` are those of DRAM."""
    one_query = shape.queries == 1
    tile = kernels.tile(max(shape.width, shape.value_width), causal=shape.causal, one_query=one_query)
    packed = kernels.packs == "always" or (kernels.packs == "one query" and one_query)
    group = shape.heads // shape.kv_heads if packed else 1
    split = _split(shape, kernels, group, tile, machine.unit_count)
    width, rows, columns = split.tile
    if kernels.row_step is not None:
        rows = min(rows, -(-shape.queries * group // kernels.row_step) * kernels.row_step)
    walk = _walk(shape.queries, shape.keys, group, rows, columns, shape.causal and not one_query)
    longest = -(-walk.longest // split.parts)
    parts = -(-walk.longest // longest)
    blocks = shape.heads // group * walk.tiles * parts
    steps = max(walk.steps * (shape.heads // group), blocks * longest if one_query else 0)
    deep = shape.value_width if kernels.values_in_keys else width
    step_cycles = (
        rows
        * columns
        * (
            2 * (width + deep) / (machine.flop_per_clock * kernels.efficiency)
            + kernels.exponentials / EXPONENTIALS_PER_CLOCK
        )
    )
    # Keys and values come from L2 in every step. Where a unit holds one block of threads, nothing hides its start and
    # its end, in which queries and results are moved.
    l2_bytes_per_s = machine.l2_bytes_per_s * kernels.l2_share
    row_bytes = (shape.width + (0 if kernels.values_in_keys else shape.value_width)) * machine.item_bytes
    moved_s = steps * min(columns, shape.keys) * row_bytes / l2_bytes_per_s
    block_cycles = kernels.block_cycles
    if kernels.one_block:
        moved_rows = min(rows, shape.queries * group)
        block_cycles += moved_rows * row_bytes * machine.unit_count * machine.clock_hz / l2_bytes_per_s
    shared = blocks > machine.unit_count
    rounds = blocks / machine.unit_count + kernels.tail if shared else kernels.alone
    walked = steps / machine.unit_count + kernels.tail * longest if shared else kernels.alone * longest
    if shared and kernels.alone * (longest * step_cycles + block_cycles) > walked * step_cycles + rounds * block_cycles:
        rounds, walked = kernels.alone, kernels.alone * longest
    fixed_s = kernels.start * machine.fixed_s
    if split.by_split_kernel and kernels.splits is not None:
        fixed_s += machine.fixed_s
    if parts > 1 and kernels.splits is not None:
        summed = 2 * _PART_BYTES * parts * shape.queries * shape.heads * shape.value_width / machine.l2_bytes_per_s
        fixed_s += parts * kernels.splits.part_cycles / machine.clock_hz + summed
    memory_s = traffic_bytes / (machine.dram_bytes_per_s * kernels.dram_share)
    bare_s = rounds * block_cycles / machine.clock_hz
    compute_s = walked * step_cycles / machine.clock_hz
    if kernels.one_block:
        return KernelSeconds(max(compute_s, moved_s), memory_s, fixed_s + bare_s, OVERLAP)
    return KernelSeconds(max(compute_s + bare_s, moved_s), memory_s, fixed_s, OVERLAP)
