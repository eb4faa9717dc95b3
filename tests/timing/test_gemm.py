"""Laws of the time of a matrix product: they hold for every machine and need no measurement."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costmodel.devices.libraries import CUBLAS_MATRIX, CUBLAS_MATRIX_TILES, CUBLAS_SIMT, CUBLAS_SIMT_TILES
from costmodel.errors import ProfileError
from costmodel.hardware import load, names
from costmodel.timing.gemm import gemm_time
from costmodel.timing.gemm_machine import ELEMENT_BYTES, GemmEngine, GemmMachine

MATRIX = GemmEngine(flop_per_clock=2048, clock_hz=1.4e9, matrix=True, element_bytes=2, kernels=CUBLAS_MATRIX)
LANES = GemmEngine(flop_per_clock=128, clock_hz=1.4e9, matrix=False, element_bytes=4, kernels=CUBLAS_SIMT)
BIG = GemmMachine(
    unit_count=100,
    clock_hz=1.4e9,
    dram_bytes_per_s=2e12,
    l2_bytes=40e6,
    l2_bytes_per_s=5e12,
    engines={"bf16": MATRIX, "fp32": LANES},
)
GPUS = sorted(name for name in names() if load(name).is_gpu)

sizes = st.integers(2, 9000)
dtypes = st.sampled_from(["bf16", "fp32"])


def larger(machine: GemmMachine, times: int) -> GemmMachine:
    """The same design with more units and the L2 slices that feed them."""
    return dataclasses.replace(
        machine, unit_count=times * machine.unit_count, l2_bytes_per_s=times * machine.l2_bytes_per_s
    )


@given(sizes, sizes, st.integers(1, 9000), st.integers(0, 9000), dtypes)
@settings(max_examples=300, deadline=None, derandomize=True)
@example(2, 2, 281, 39, "fp32")  # where another part of a split k becomes possible
def test_longer_k_never_takes_less_time(m: int, n: int, k: int, more: int, dtype: str) -> None:
    assert gemm_time(m, n, k + more, dtype=dtype, hw=BIG).seconds >= gemm_time(m, n, k, dtype=dtype, hw=BIG).seconds


@given(sizes, sizes, sizes, dtypes)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_more_rows_never_take_less_time(m: int, n: int, k: int, dtype: str) -> None:
    assert gemm_time(2 * m, n, k, dtype=dtype, hw=BIG).seconds >= gemm_time(m, n, k, dtype=dtype, hw=BIG).seconds


@given(sizes, sizes, sizes, st.booleans(), dtypes)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_transposed_product_takes_the_same_time(m: int, n: int, k: int, cold: bool, dtype: str) -> None:
    one = gemm_time(m, n, k, dtype=dtype, hw=BIG, bytes_cold=cold)
    other = gemm_time(n, m, k, dtype=dtype, hw=BIG, bytes_cold=cold)
    assert one.seconds == pytest.approx(other.seconds, rel=1e-12)
    assert one.split_k == other.split_k


@given(sizes, sizes, sizes, st.integers(2, 4), dtypes)
@settings(max_examples=200, deadline=None, derandomize=True)
@example(2, 353, 281, 3, "fp32")  # more units than parts of k worth having
def test_a_chip_with_more_units_is_not_slower(m: int, n: int, k: int, times: int, dtype: str) -> None:
    more = gemm_time(m, n, k, dtype=dtype, hw=larger(BIG, times)).seconds
    assert more <= gemm_time(m, n, k, dtype=dtype, hw=BIG).seconds


@given(st.integers(1, 9000), st.integers(1, 9000), sizes, st.integers(1, 64), dtypes)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_never_faster_than_the_roofline(m: int, n: int, k: int, batch: int, dtype: str) -> None:
    engine = BIG.engine(dtype)
    flop_s = 2 * m * n * k * batch / (engine.flop_per_clock * engine.clock_hz * BIG.unit_count)
    bytes_s = engine.element_bytes * batch * (m * k + k * n + m * n) / BIG.dram_bytes_per_s
    time = gemm_time(m, n, k, batch, dtype=dtype, hw=BIG)
    assert time.seconds > max(flop_s, bytes_s)
    assert time.efficiency == pytest.approx(flop_s / time.seconds)
    assert max(time.compute_s, time.memory_s) + time.fixed_s <= time.seconds * (1 + 1e-12)
    assert time.seconds <= time.compute_s + time.memory_s + time.fixed_s


@given(sizes, sizes, sizes, dtypes)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_operands_in_cache_are_not_slower(m: int, n: int, k: int, dtype: str) -> None:
    warm = gemm_time(m, n, k, dtype=dtype, hw=BIG, bytes_cold=False)
    cold = gemm_time(m, n, k, dtype=dtype, hw=BIG)
    assert warm.seconds <= cold.seconds
    fits = BIG.engine(dtype).element_bytes * (m * k + k * n + m * n) < 0.9 * BIG.l2_bytes
    assert not fits or warm.memory_s == 0


def test_reuse_at_a_distance_lies_between_cache_and_memory() -> None:
    inside, outside = BIG.l2_bytes / 2, 2 * BIG.l2_bytes
    times = [
        gemm_time(64, 4096, 4096, hw=BIG, reuse_bytes=pair).seconds
        for pair in ((inside, inside), (outside, inside), (outside, outside))
    ]
    assert times == sorted(times) and times[0] < times[-1]
    assert times[-1] == gemm_time(64, 4096, 4096, hw=BIG, bytes_cold=True).seconds


def test_k_is_split_when_tiles_are_few_and_only_then() -> None:
    few = gemm_time(64, 64, 16384, hw=BIG)
    assert few.split_k > 4
    assert gemm_time(8192, 8192, 16384, hw=BIG).split_k == 1  # 2048 tiles of 256x128 for 100 units
    assert gemm_time(64, 64, 256, hw=BIG).split_k == 1  # nothing to gain for a second kernel
    assert gemm_time(64, 64, 16384, 2, hw=BIG).split_k == 1  # batched kernels do not split


def test_a_batch_is_more_tiles() -> None:
    """Where whole tiles fit and memory plays no part, a batch is a taller product."""
    roomy = dataclasses.replace(BIG, l2_bytes=1e12)
    stacked = gemm_time(8 * 256, 1024, 512, hw=roomy, bytes_cold=False)
    assert stacked.split_k == 1
    batched = gemm_time(256, 1024, 512, 8, hw=roomy, bytes_cold=False)
    assert batched.seconds == pytest.approx(stacked.seconds, rel=1e-12)


def test_a_tile_beyond_a_full_wave_costs() -> None:
    """100 units hold 100 tiles of 256x128 at a time; a product of 10x10 of them leaves none idle."""
    full = gemm_time(10 * 256, 10 * 128, 8192, hw=BIG)
    assert (full.tile, full.waves) in (((256, 128), 1), ((128, 256), 1))
    assert full.efficiency > gemm_time(11 * 256, 10 * 128, 8192, hw=BIG).efficiency


def test_long_products_grow_in_proportion_to_k() -> None:
    long, twice = (gemm_time(4096, 4096, k, hw=BIG).seconds for k in (1 << 18, 1 << 19))
    assert twice / long == pytest.approx(2, rel=1e-3)


def test_the_smallest_product_takes_the_fixed_time() -> None:
    tiny = gemm_time(2, 2, 1, hw=BIG)
    assert tiny.bound == "fixed"
    assert tiny.seconds < 2 * tiny.fixed_s
    quicker = dataclasses.replace(BIG, clock_hz=2 * BIG.clock_hz)  # fixed time is counted in cycles
    assert gemm_time(2, 2, 1, hw=quicker).fixed_s == pytest.approx(tiny.fixed_s / 2)


def test_one_row_streams_the_matrix() -> None:
    vector = gemm_time(1, 16384, 16384, hw=BIG)
    assert vector.bound == "memory" and vector.tile == (0, 0)
    assert vector.seconds == gemm_time(16384, 1, 16384, hw=BIG).seconds
    assert vector.seconds > 2 * 16384**2 / BIG.dram_bytes_per_s


def test_shared_reads_of_a_cluster_speed_up_products_that_l2_feeds() -> None:
    """With a quarter of the L2 rate, operands cannot come fast enough; two units that share them need less."""
    starved = dataclasses.replace(BIG, l2_bytes_per_s=BIG.l2_bytes_per_s / 4)
    alone = gemm_time(8192, 8192, 8192, hw=starved)
    shared = gemm_time(8192, 8192, 8192, hw=dataclasses.replace(starved, multicast=2))
    assert shared.seconds < alone.seconds < gemm_time(8192, 8192, 8192, hw=BIG).seconds * 4


def test_rows_on_one_channel_multiply_slower_and_their_neighbours_do_not() -> None:
    """Rows 2**16 fp32 elements apart are 256 KiB apart; with 64 more they are not."""
    period = dataclasses.replace(BIG, channel_period_bytes=2**18)

    def slower(k: int) -> float:
        one, other = (gemm_time(4096, 4096, k, dtype="fp32", hw=hw).compute_s for hw in (period, BIG))
        return one / other

    assert 2.5 < slower(2**16) <= 3.0
    assert 1.2 < slower(2**15) < slower(2**16)
    assert slower(2**16 + 64) == pytest.approx(1.0, abs=0.01)
    assert slower(2**10) == pytest.approx(1.0, abs=0.01)


def test_a_tile_that_waits_for_its_operands_waits_once_a_round() -> None:
    engine = BIG.engine("fp32")
    plain = dataclasses.replace(engine.kernels, batched_tiles=((64, 64),))
    rounds = 5

    def seconds(tile_start: float) -> float:
        kernels = dataclasses.replace(plain, tile_start=tile_start)
        machine = dataclasses.replace(BIG, engines={"fp32": dataclasses.replace(engine, kernels=kernels)})
        return gemm_time(64, 64, 64, rounds * BIG.unit_count, dtype="fp32", hw=machine).compute_s

    assert seconds(1000.0) - seconds(0.0) == pytest.approx(rounds * 1000 / engine.clock_hz)


def test_tiles_are_symmetric() -> None:
    """The transposed product is as fast only because every tile has its transpose."""
    for tiles in (CUBLAS_MATRIX_TILES, CUBLAS_SIMT_TILES):
        assert {(b, a) for a, b in tiles} == set(tiles)


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_profile_multiplies(name: str) -> None:
    """All dtypes a profile knows: half a wave at least of a large product, and nothing above the peak."""
    machine = GemmMachine.from_profile(load(name))
    assert "fp32" in machine.engines
    for dtype in machine.engines:
        time = gemm_time(8192, 8192, 8192, dtype=dtype, hw=machine)
        assert math.isfinite(time.seconds)
        assert 0.25 < time.efficiency <= 1


def test_wider_elements_take_longer_in_memory() -> None:
    assert ELEMENT_BYTES["fp32"] == 2 * ELEMENT_BYTES["bf16"] == 4 * ELEMENT_BYTES["fp8"]


def test_what_cannot_be_multiplied_is_told() -> None:
    with pytest.raises(ProfileError, match="fp8") as caught:
        gemm_time(64, 64, 64, dtype="fp8", hw=BIG)
    assert "bf16" in str(caught.value)
    with pytest.raises(ValueError, match="at least 1"):
        gemm_time(0, 64, 64, hw=BIG)


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(32, 4096), st.floats(1.0, 7.0))
def test_reuse_in_the_units_cache_never_costs_time(m: int, n: int, k: int, reuse: float) -> None:
    machine = GemmMachine.from_profile(load("a100-sxm-80gb"))
    plain, reused = (gemm_time(m, n, k, hw=machine, row_reuse=r).seconds for r in (1.0, reuse))
    assert reused <= plain * (1 + 1e-9)
