"""Laws of streaming kernels: none of the expected values comes from a measurement or from the model itself."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.timing.machine import GpuMachine
from costmodel.timing.streaming import KINDS, STREAMING, streaming_time

GPU = GpuMachine(
    unit_count=80,
    clock_hz=1.4e9,
    sustained_clock_hz=1.3e9,
    vector_flop_per_clock=128,
    dram_bytes_per_s=900e9,
    l2_bytes=6 * 2**20,
    dram_fraction=0.9,
)
bytes_moved = st.floats(1e3, 1e10)
row_lengths = st.integers(1, 60_000)


def row_kernel(kind: str, rows: int, length: int, machine: GpuMachine = GPU, element_bytes: int = 4) -> float:
    n = rows * length
    return streaming_time(
        element_bytes * n, element_bytes * n, elements=n, rows=rows, row_length=length, kind=kind, machine=machine
    ).seconds


@given(read=bytes_moved, written=bytes_moved, kind=st.sampled_from(["elementwise", "copy", "cat", "strided"]))
def test_no_kernel_beats_the_pins(read: float, written: float, kind: str) -> None:
    time = streaming_time(read, written, elements=written / 4, machine=GPU, kind=kind)
    assert time.seconds > (read + written) / GPU.dram_bytes_per_s


@given(read=bytes_moved, written=bytes_moved, factor=st.floats(1, 1e3))
def test_memory_time_is_linear_in_bytes(read: float, written: float, factor: float) -> None:
    one = streaming_time(read, written, elements=0, machine=GPU)
    many = streaming_time(factor * read, factor * written, elements=0, machine=GPU)
    assert many.memory_s == pytest.approx(factor * one.memory_s)
    assert many.fixed_s == one.fixed_s


def test_dram_fraction_is_what_two_reads_for_one_write_reach() -> None:
    add = streaming_time(800e6, 400e6, elements=100e6, machine=GPU)
    assert 1200e6 / add.memory_s == pytest.approx(0.9 * 900e9)


@given(total=bytes_moved, share=st.floats(0, 0.9))
def test_a_written_byte_costs_at_least_a_read_byte(total: float, share: float) -> None:
    few = streaming_time(total * (1 - share), total * share, elements=0, machine=GPU)
    more = streaming_time(total * (0.9 - share), total * (share + 0.1), elements=0, machine=GPU)
    assert more.memory_s >= few.memory_s * (1 - 1e-12)


def test_twice_the_bandwidth_halves_the_memory_time_and_leaves_the_rest() -> None:
    wide = dataclasses.replace(GPU, dram_bytes_per_s=2 * GPU.dram_bytes_per_s)
    slow = streaming_time(1e8, 1e8, elements=25e6, machine=GPU)
    fast = streaming_time(1e8, 1e8, elements=25e6, machine=wide)
    assert fast.memory_s == pytest.approx(slow.memory_s / 2)
    assert (fast.compute_s, fast.fixed_s) == (slow.compute_s, slow.fixed_s)


def test_an_empty_tensor_takes_the_fixed_time() -> None:
    time = streaming_time(0, 0, elements=0, machine=GPU)
    assert time.seconds == time.fixed_s == pytest.approx(GPU.kernel_fixed_cycles / GPU.clock_hz)


def test_arithmetic_binds_once_it_outweighs_the_bytes() -> None:
    lanes_per_s = 80 * 64 * GPU.sustained_clock_hz
    heavy = streaming_time(4e8, 4e8, elements=1e8, machine=GPU, lane_cycles=1000)
    assert heavy.bound == "compute"
    assert heavy.seconds - heavy.fixed_s == pytest.approx(1e8 * 1000 / lanes_per_s)
    assert streaming_time(4e8, 4e8, elements=1e8, machine=GPU, lane_cycles=1).bound == "memory"


@pytest.mark.parametrize("kind", ["softmax", "layer_norm"])
@given(rows=st.integers(1, 100_000), length=row_lengths)
def test_a_row_kernel_is_no_faster_than_a_copy_of_its_tensor(kind: str, rows: int, length: int) -> None:
    n = rows * length
    assert row_kernel(kind, rows, length) >= streaming_time(4 * n, 4 * n, elements=n, machine=GPU, kind="copy").seconds


@pytest.mark.parametrize("kind", ["softmax", "layer_norm"])
@given(rows=st.integers(1, 50_000), length=row_lengths, more=st.integers(1, 50_000))
def test_more_rows_never_take_less(kind: str, rows: int, length: int, more: int) -> None:
    assert row_kernel(kind, rows + more, length) >= row_kernel(kind, rows, length) * (1 - 1e-9)


def test_layer_norm_reads_twice_where_the_rows_in_flight_outgrow_the_cache() -> None:
    """128 000 rows of 16 KiB: 80 units hold hundreds of them, more than 6 MiB; a vast L2 keeps them all."""
    roomy = dataclasses.replace(GPU, l2_bytes=1e12)
    n = 128_000 * 4096
    times = [
        streaming_time(4 * n, 4 * n, elements=n, row_length=4096, kind="layer_norm", machine=m) for m in (GPU, roomy)
    ]
    second_read = streaming_time(4 * n, 0, elements=0, machine=GPU).memory_s
    assert times[0].memory_s - times[1].memory_s == pytest.approx(second_read)


def test_layer_norm_without_vector_loads_reads_twice_whatever_the_cache() -> None:
    roomy = dataclasses.replace(GPU, l2_bytes=1e12)
    n = 1_000_000
    aligned, odd = (
        streaming_time(4 * n, 4 * n, elements=n, rows=1000, row_length=r, kind="layer_norm", machine=roomy).memory_s
        for r in (1000, 1001)
    )
    assert odd - aligned == pytest.approx(streaming_time(4 * n, 0, elements=0, machine=roomy).memory_s)


def test_layer_norm_reads_twice_where_its_unrolled_loop_is_ragged() -> None:
    """128 threads load four elements at a time, four times in a turn: 2048 elements are one turn of all threads,
    2040 leave two threads outside it, 1536 leave all outside."""
    roomy = dataclasses.replace(GPU, l2_bytes=1e12)
    per_element = {
        length: streaming_time(4e9, 4e9, elements=1e9, row_length=length, kind="layer_norm", machine=roomy).memory_s
        for length in (1536, 2040, 2048)
    }
    assert per_element[1536] == per_element[2048]
    second_read = streaming_time(4e9, 0, elements=0, machine=roomy).memory_s
    assert per_element[2040] - per_element[2048] == pytest.approx(second_read)


def test_long_softmax_rows_leave_the_registers_of_a_warp() -> None:
    limit = STREAMING.warp_row_limit
    assert row_kernel("softmax", 20_000, limit + 8) > row_kernel("softmax", 20_000, limit) * (limit + 8) / limit


def test_half_the_schedulers_double_the_arithmetic_of_rows() -> None:
    narrow = dataclasses.replace(GPU, schedulers_per_unit=2)
    n = 8000 * 2048
    for kind in ("softmax", "layer_norm"):
        four, two = (
            streaming_time(4 * n, 4 * n, elements=n, row_length=2048, kind=kind, machine=m) for m in (GPU, narrow)
        )
        assert two.compute_s == pytest.approx(2 * four.compute_s)


def test_few_rows_leave_units_idle() -> None:
    """81 rows on 80 units take two rounds, as 160 do."""
    n81, n160 = (
        streaming_time(0, 0, elements=rows * 4096, rows=rows, row_length=4096, kind="softmax", machine=GPU).compute_s
        for rows in (81, 160)
    )
    assert n81 == pytest.approx(n160)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"softmax", "layer_norm", "quantize_rows", "cache_write"}))
def test_a_copy_in_order_is_the_fastest_way_to_move_bytes(kind: str) -> None:
    copy = streaming_time(1e8, 1e8, elements=25e6, machine=GPU, kind="copy")
    assert streaming_time(1e8, 1e8, elements=25e6, machine=GPU, kind=kind).seconds >= copy.seconds


def test_a_token_written_to_a_cache_takes_its_cycles_or_its_bytes() -> None:
    def seconds(tokens: int, length: int) -> float:
        moved = 2.0 * tokens * length
        return streaming_time(
            moved, moved, elements=tokens * length, machine=GPU, kind="cache_write", row_length=length
        ).seconds

    fixed = seconds(1, 1)
    assert seconds(10**6, 8) - fixed == pytest.approx(seconds(10**6, 4) - fixed)  # blocks of threads alone
    assert seconds(10**5, 16384) > 1.9 * seconds(10**5, 8192) - fixed  # bytes


def test_unknown_kinds_and_missing_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="strided"):
        streaming_time(1, 1, elements=1, machine=GPU, kind="teleport")
    with pytest.raises(ValueError, match="row_length"):
        streaming_time(1, 1, elements=1, machine=GPU, kind="softmax")
