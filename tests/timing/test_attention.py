"""The time of attention from its tiles: counts by doing it, and laws."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel.devices.attention import (
    FLASH_2,
    FLASH_2_PAGED,
    FLASH_3,
    FLASH_3_MMA,
    LATENT_HOPPER,
    AttentionKernels,
    Splits,
)
from costmodel.kernels.shapes import Attention
from costmodel.timing.attention import AttentionMachine, _split, _walk, attention_time, parts_of

#: Round figures: 100 units at 1 GHz, 2048 FLOP a clock, 1 TB/s.
MACHINE = AttentionMachine(
    unit_count=100, clock_hz=1e9, flop_per_clock=2048, dram_bytes_per_s=1e12, l2_bytes_per_s=5e12, fixed_s=3e-6
)
NO_TRAFFIC = 0.0


def steps_by_mask(queries: int, keys: int, group: int, rows: int, columns: int, causal: bool) -> list[int]:
    """Steps of each tile, by looking at every pair of query and key that the mask lets through."""
    found = []
    for first in range(0, queries * group, rows):
        tile = {row // group for row in range(first, min(first + rows, queries * group))}
        seen = {k // columns for q in tile for k in range(keys) if not causal or k <= q + keys - queries}
        found.append(max(seen) + 1)
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys", "group"), [(1, 1, 1), (7, 7, 3), (33, 33, 1), (16, 40, 2), (64, 64, 4)])
def test_steps_are_those_that_the_mask_lets_through(queries: int, keys: int, group: int, causal: bool) -> None:
    for rows, columns in ((8, 16), (16, 8), (64, 64)):
        expected = steps_by_mask(queries, keys, group, rows, columns, causal)
        assert _walk(queries, keys, group, rows, columns, causal) == (len(expected), sum(expected), max(expected))


def test_a_causal_mask_halves_the_time_of_a_long_sequence() -> None:
    kernels = replace(FLASH_2, causal_tiles=())
    full, causal = (
        attention_time(Attention(16384, 16384, 128, 64, causal=mask), kernels, MACHINE, NO_TRAFFIC).compute_s
        for mask in (False, True)
    )
    assert causal / full == pytest.approx(0.5, rel=0.03)


def test_long_attention_takes_its_products_and_its_exponentials() -> None:
    """At heads of 128: 4 * 128 FLOP a score at a share of 2048 a clock, and a 16th of a clock for its exponential."""
    shape = Attention(32768, 32768, 128, 100)
    found = attention_time(shape, FLASH_2, MACHINE, NO_TRAFFIC).compute_s
    by_hand = 32768**2 * (4 * 128 / (2048 * FLASH_2.efficiency) + FLASH_2.exponentials / 16) / 1e9
    assert found == pytest.approx(by_hand, rel=0.02)


def test_heads_that_share_keys_are_packed_into_one_tile() -> None:
    apart = Attention(1, 65536, 128, 64, shared_by=1)
    shared = Attention(1, 65536, 128, 64, shared_by=8)
    packed, alone = (attention_time(s, FLASH_3, MACHINE, NO_TRAFFIC).compute_s for s in (shared, apart))
    assert packed < alone / 4


def test_one_query_is_split_over_idle_units_unless_the_library_does_not() -> None:
    shape = Attention(1, 131072, 128, 8, shared_by=8)
    whole = replace(FLASH_2_PAGED, splits=None)
    split, alone = (attention_time(shape, k, MACHINE, NO_TRAFFIC) for k in (FLASH_2_PAGED, whole))
    assert split.compute_s < alone.compute_s / 20
    assert split.fixed_s > alone.fixed_s + MACHINE.fixed_s  # the kernel that adds the parts up
    # vLLM's FlashAttention 2 splits only heads that share keys and values.
    unshared = replace(shape, shared_by=1)
    assert attention_time(unshared, FLASH_2_PAGED, MACHINE, NO_TRAFFIC).fixed_s == alone.fixed_s


@pytest.mark.parametrize("blocks", [1, 3, 50, 79, 80, 81, 400])
@pytest.mark.parametrize("steps", [1, 2, 5, 64, 1000])
def test_parts_fill_the_units_and_never_outnumber_the_steps(blocks: int, steps: int) -> None:
    parts = parts_of(Splits(), blocks, steps, 100)
    assert 1 <= parts <= min(steps, 128)
    assert parts == 1 or blocks < 80


def test_traffic_bounds_the_decoding_of_a_large_batch() -> None:
    shape = Attention(1, 8192, 128, 64 * 8, shared_by=1)
    traffic = 64 * 8 * 8192 * 128 * 2 * 2
    found = attention_time(shape, FLASH_3, MACHINE, traffic)
    assert found.memory_s == pytest.approx(traffic / 1e12 / FLASH_3.dram_share)
    assert found.memory_s > found.compute_s


def test_heads_are_padded_to_the_width_that_the_kernel_was_compiled_for() -> None:
    times = [
        attention_time(Attention(4096, 4096, w, 100), FLASH_2, MACHINE, NO_TRAFFIC).compute_s for w in (72, 80, 96)
    ]
    assert times[0] == times[1] == times[2]


def test_flash_3_shares_steps_out_over_the_units_sequences_counted() -> None:
    """By hand, 8 sequences of 8 shared heads, 512 keys, 108 units: 8 steps of 64 keys are more than 4, so the kernel
    with splits runs, of 5 steps of 112 keys; 64 blocks * 5 steps * 1.1 / 108 units are 4 steps a unit: two parts."""
    shape = Attention(1, 512, 128, 8 * 32, shared_by=4, sequences=8)
    found = _split(shape, FLASH_3_MMA, 4, FLASH_3_MMA.tile(128, one_query=True), 108)
    assert (found.by_split_kernel, found.parts, found.tile) == (True, 2, (128, 128, 112))
    # 256 keys are 4 steps, which are never split.
    short = replace(shape, keys=256)
    assert _split(short, FLASH_3_MMA, 4, FLASH_3_MMA.tile(128, one_query=True), 108).parts == 1
    # Many sequences fill the units: the kernel with splits runs, in one part.
    many = replace(shape, heads=256 * 32, sequences=256)
    found = _split(many, FLASH_3_MMA, 4, FLASH_3_MMA.tile(128, one_query=True), 108)
    assert (found.by_split_kernel, found.parts) == (True, 1)


@pytest.mark.parametrize(("kernels", "splits"), [(FLASH_3, True), (FLASH_2, True), (FLASH_2_PAGED, False)])
def test_few_prompts_are_split_where_the_library_does(kernels: AttentionKernels, splits: bool) -> None:
    shape = Attention(2048, 2048, 128, 1, causal=True)
    found, whole = (attention_time(shape, k, MACHINE, NO_TRAFFIC) for k in (kernels, replace(kernels, splits=None)))
    assert (found.compute_s < 0.8 * whole.compute_s) == splits


def test_keys_and_values_come_no_faster_than_from_l2() -> None:
    """One query a sequence, 50 MB of cache that all lies in L2."""
    shape = Attention(1, 8192, 128, 24, sequences=24)
    cache = 2 * 24 * 8192 * 128 * 2
    found = attention_time(shape, FLASH_3, MACHINE, NO_TRAFFIC)
    assert found.compute_s >= cache / MACHINE.l2_bytes_per_s


def test_nothing_hides_the_start_of_a_block_that_a_unit_holds_alone() -> None:
    """8 rounds of short blocks: their starts add to the traffic, and overlap with it where a unit holds several."""
    shape = Attention(1, 256, 128, 800, sequences=800)
    traffic = 2 * 800 * 256 * 128 * 2
    alone, several = (replace(FLASH_3, splits=None, one_block=one) for one in (True, False))
    starts = 8 * FLASH_3.block_cycles / MACHINE.clock_hz
    found = attention_time(shape, alone, MACHINE, traffic)
    assert found.seconds() > starts + traffic / (MACHINE.dram_bytes_per_s * FLASH_3.dram_share)
    assert found.seconds() > attention_time(shape, several, MACHINE, traffic).seconds()


def test_one_query_takes_a_short_tile_of_narrow_heads() -> None:
    assert FLASH_3.tile(128)[1] == 128
    assert FLASH_3.tile(128, one_query=True)[1] == 64
    assert FLASH_3.tile(256, one_query=True) == FLASH_3.tile(256)


@pytest.mark.parametrize(("heads", "queries"), [(128, 2), (16, 1)])
def test_latent_attention_on_hopper_reaches_what_its_authors_state(heads: int, queries: int) -> None:
    """FlashMLA, H800: 660 TFLOP/s where arithmetic binds (128 heads, two tokens), 3000 GB/s where traffic does."""
    machine = AttentionMachine(
        unit_count=132, clock_hz=1.83e9, flop_per_clock=4096, dram_bytes_per_s=3134e9, l2_bytes_per_s=9804e9,
        fixed_s=2.3e-6,
    )  # fmt: skip
    sequences, keys = 132, 32768
    shape = Attention(queries, keys, 576, heads * sequences, shared_by=heads, values=512, sequences=sequences)
    traffic = sequences * keys * 576 * 2
    seconds = attention_time(shape, LATENT_HOPPER, machine, traffic).seconds()
    if queries > 1:
        assert 2 * queries * sequences * heads * keys * (576 + 512) / seconds == pytest.approx(660e12, rel=0.1)
    else:
        assert traffic / seconds == pytest.approx(3000e9, rel=0.1)
