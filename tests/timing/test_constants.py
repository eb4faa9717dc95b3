"""One bundle of constants, which every model reads and nobody patches."""

from __future__ import annotations

import dataclasses

import pytest

from costmodel.hardware import load
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Product
from costmodel.timing import CONSTANTS, Constants
from costmodel.timing.cpu import cpu_kernel_time
from costmodel.timing.gpu import gpu_kernel_time

GPU, CPU = load("rtx3090"), load("i9-10940x")
COPY = Kernel(
    op="aten.clone", algorithm="copy", access="strided", bytes_read=10**8, bytes_written=10**8, elements=10**7
)
PRODUCT = Kernel(op="aten.mm", algorithm="gemm", engine="matrix", dtype="fp16", matrix_flops=2 * 4096**3,
                 shape=Product(4096, 4096, 4096), bytes_read=2 * 4096**2, bytes_written=4096**2)  # fmt: skip


def names(constants: Constants) -> list[str]:
    """The dotted names of all numbers in a bundle."""
    return [name.removeprefix(".") for name in below(constants, "")]


def below(held: object, name: str) -> list[str]:
    """The names of numbers in a record or a table, each behind ``name``."""
    if dataclasses.is_dataclass(held):
        parts = {field.name: getattr(held, field.name) for field in dataclasses.fields(held)}
    elif hasattr(held, "items"):
        parts = dict(held.items())
    else:
        return [name] if isinstance(held, (int, float)) else []
    return [found for key, part in parts.items() for found in below(part, f"{name}.{key}")]


@pytest.mark.parametrize("name", names(CONSTANTS))
def test_every_constant_can_be_varied_by_its_name_and_only_it_changes(name: str) -> None:
    varied = CONSTANTS.scaled(name, 2.0)
    changed = [n for n in names(CONSTANTS) if varied.value(n) != CONSTANTS.value(n)]
    assert changed == [name]
    assert varied.value(name) == 2 * CONSTANTS.value(name)


def test_a_kernel_takes_the_constants_that_it_is_given() -> None:
    """Strided copies twice as slow, or the boards' clock a fifth higher: nothing else moves, nothing stays behind."""
    slow, fast = CONSTANTS.scaled("streaming.rates.strided", 2.0), CONSTANTS.scaled("clock.least_clock_gain", 1.2)
    usual = gpu_kernel_time(COPY, GPU)
    assert gpu_kernel_time(COPY, GPU, slow).memory_s == pytest.approx(2 * usual.memory_s)
    assert gpu_kernel_time(PRODUCT, GPU, slow) == gpu_kernel_time(PRODUCT, GPU)
    assert gpu_kernel_time(PRODUCT, GPU, fast).compute_s < gpu_kernel_time(PRODUCT, GPU).compute_s
    assert gpu_kernel_time(COPY, GPU, fast) == usual == gpu_kernel_time(COPY, GPU)


def test_a_cpus_kernel_takes_the_constants_that_it_is_given() -> None:
    product = dataclasses.replace(PRODUCT, engine="vector", dtype="fp32")
    half = CONSTANTS.scaled("cpu.gemm_share", 0.5)
    assert cpu_kernel_time(product, CPU, half).compute_s == pytest.approx(2 * cpu_kernel_time(product, CPU).compute_s)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="geforce"):
        CONSTANTS.scaled("clock.geforce", 2.0)
