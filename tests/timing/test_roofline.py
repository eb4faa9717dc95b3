"""The roofline by hand: compute, memory and launch, whichever is longest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.errors import ProfileError
from costmodel.hardware import load
from costmodel.kernels import Kernel
from costmodel.timing import estimate_kernel
from costmodel.timing.roofline import BOUNDS

A100 = load("a100-sxm-40gb")  # 312 TFLOP/s fp16 on tensor cores, 19.5 TFLOP/s fp32, 1555 GB/s

MATRIX = {"engine": "matrix", "dtype": "fp16"}


def kernel(**values):
    return Kernel(op="op", algorithm="gemm", **values)


def test_compute_bound_at_the_peak_of_its_engine():
    found = estimate_kernel(kernel(matrix_flops=312 * 10**12, bytes_read=10**6, **MATRIX), A100)
    assert (found.latency_s, found.bound) == (pytest.approx(1.0), "compute")
    slow = estimate_kernel(kernel(matrix_flops=195 * 10**11), A100)
    assert (slow.latency_s, slow.bound) == (pytest.approx(1.0), "compute")


def test_memory_bound_at_the_pin_rate():
    found = estimate_kernel(kernel(bytes_read=10**12, bytes_written=555 * 10**9, vector_flops=10**9), A100)
    assert found.latency_s == pytest.approx(1.0, rel=1e-3)
    assert found.bound == "memory"


def test_launch_bound_when_there_is_next_to_nothing_to_do():
    found = estimate_kernel(kernel(bytes_read=4, bytes_written=4, count=3), A100)
    assert (found.latency_s, found.bound) == (3 * A100.overheads.dispatch_s, "launch")


def test_nothing_is_free():
    found = estimate_kernel(kernel(inside=True), A100)
    assert (found.latency_s, found.bound) == (0.0, "free")


def test_the_ridge_point_divides_memory_from_compute():
    moved = 10**9
    ridge = A100.ridge_point("matrix", "fp16")
    assert ridge == pytest.approx(312e12 / 1555e9, rel=1e-3)
    below, above = (
        estimate_kernel(kernel(matrix_flops=int(f * ridge * moved), bytes_read=moved, **MATRIX), A100).bound
        for f in (0.99, 1.01)
    )
    assert (below, above) == ("memory", "compute")


work = st.integers(0, 10**13)


@given(work, work, work, st.integers(0, 100))
def test_latency_is_the_longest_part_and_grows_with_work(flops, read, written, count):
    small = estimate_kernel(
        kernel(matrix_flops=flops, bytes_read=read, bytes_written=written, count=count, **MATRIX), A100
    )
    assert small.latency_s == max(small.compute_s, small.memory_s, small.launch_s)
    assert small.bound in BOUNDS
    large = kernel(matrix_flops=2 * flops, bytes_read=2 * read, bytes_written=2 * written, count=2 * count, **MATRIX)
    assert estimate_kernel(large, A100).latency_s == pytest.approx(2 * small.latency_s)


def test_a_dtype_that_the_machine_lacks_is_named():
    with pytest.raises(ProfileError, match="fp8"):
        estimate_kernel(kernel(matrix_flops=1, engine="matrix", dtype="fp8"), load("v100"))
