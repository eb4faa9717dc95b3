"""Replayed products find in L2 what fits there, and nothing else."""

from __future__ import annotations

import pytest

from costmodel.hardware import load
from costmodel.kernels import Kernel, KernelPlan, Launch
from costmodel.kernels.shapes import Product
from costmodel.validate.replay import replayed, reuse_bytes

MIB = 2**20


def _product(m: int, n: int, k: int) -> KernelPlan:
    moved = {"bytes_read": 2 * k * (m + n), "bytes_written": 2 * m * n}
    kernel = Kernel(op="aten.linear", algorithm="gemm", dtype="bf16", shape=Product(m, n, k), **moved)
    return KernelPlan(kernels=(kernel,), launches=(Launch(0, (0,)),))


@pytest.mark.parametrize(
    ("size", "share"),
    [
        pytest.param(1024, 0.0, id="five copies of 2 MiB lie in 96 MiB"),
        pytest.param(16384, 1.0, id="512 MiB do not"),
    ],
)
def test_an_l40s_keeps_what_fits_its_96_mib(size: int, share: float) -> None:
    plan = _product(size, size, size)
    kernel = replayed(plan, load("l40s")).kernels[0]
    assert kernel.bytes == share * plan.kernels[0].bytes


def test_copies_fill_l2_once_so_that_weights_miss_while_inputs_hit() -> None:
    weight, other = 40 * MIB, 4 * MIB  # three copies: 124 MiB between two uses of one, 44 MiB between uses of the input
    assert reuse_bytes(weight, other, 96 * MIB) == (44 * MIB, 124 * MIB)
    plan = _product(64, 5120, 4096)  # a weight of 40 MiB
    kernel = replayed(plan, load("l40s")).kernels[0]
    assert kernel.bytes_read == 5120 * 4096 * 2
    assert kernel.bytes_written == 0


def test_other_kernels_stay_as_they_are() -> None:
    plan = KernelPlan(kernels=(Kernel(op="aten.relu", algorithm="elementwise", bytes_read=8),), launches=())
    assert replayed(plan, load("l40s")).kernels == plan.kernels
