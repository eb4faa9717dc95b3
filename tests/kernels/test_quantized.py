"""Quantized products: bytes counted by hand, laws of their times, and what PyTorch's operators lower to."""

from __future__ import annotations

import pytest

from costmodel.api import analyze
from costmodel.devices import GpuGeneration, generation, generation_names
from costmodel.hardware import HardwareProfile, load
from costmodel.kernels.quantized import SCHEMES, quantization
from costmodel.timing.gemm import gemm_time
from costmodel.timing.gemm_machine import GemmMachine
from costmodel.timing.gpu import gpu_kernel_time

MACHINES = [load(name) for name in ("h100-sxm-80gb", "l40s", "a100-sxm-80gb")]
CASES = [(hw, record) for hw in MACHINES for record in hw.gpu.quantized_products]
IDS = [f"{hw.name}-{record.name}" for hw, record in CASES]


@pytest.mark.parametrize("name", generation_names())
def test_a_record_multiplies_what_its_generation_has(name: str) -> None:
    of = generation(name)
    if isinstance(of, GpuGeneration):
        assert {record.multiplies for record in of.quantized_products} <= set(of.matrix_dtypes)
        names = [record.name for record in of.quantized_products]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(("hw", "record"), CASES, ids=IDS)
@pytest.mark.parametrize("cold", [True, False])
def test_more_to_do_never_takes_less(hw: HardwareProfile, record, cold: bool) -> None:
    """In n and k; in m within the rows of one choice of tiles, since a library that chooses by rows alone may err."""
    machine = GemmMachine.from_profile(hw)

    def seconds(m: int, n: int, k: int) -> float:
        return gemm_time(m, n, k, dtype=record.name, hw=machine, bytes_cold=cold).seconds

    rows = (2, 16, 48, 200, 4096)
    sizes = (64, 640, 1024, 4096, 8192)
    for m in rows:
        for fixed in sizes:
            over_n = [seconds(m, n, fixed) for n in sizes]
            over_k = [seconds(m, fixed, k) for k in sizes]
            assert over_n == sorted(over_n)
            assert over_k == sorted(over_k)
    many = [seconds(m, 1024, 1024) for m in (512, 1024, 4096, 16384)]
    assert many == sorted(many)


def test_narrow_weights_stream_in_proportion_to_their_bits() -> None:
    """One row against 4 GiB of fp16 weights: the memory time of 8 bits is a half, of 4 bits a quarter."""
    machine = GemmMachine.from_profile(load("a100-sxm-80gb"))
    wide, eight, four = (
        gemm_time(8, 65536, 32768, dtype=dtype, hw=machine).memory_s
        for dtype in ("fp16", "int8_weight_gemm", "int4_weight_gemm")
    )
    assert eight == pytest.approx(wide / 2, rel=1e-2)
    assert four == pytest.approx(wide / 4, rel=1e-2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantization_writes_a_byte_an_element_once(scheme: str) -> None:
    kernels = quantization("aten.linear", scheme, 128, 4096)
    assert sum(kernel.bytes_written for kernel in kernels) == (0 if scheme == "none" else 128 * 4096)
    assert sum(kernel.bytes_read for kernel in kernels) == {"none": 0, "per_tensor": 2}.get(scheme, 1) * 2 * 128 * 4096


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="per_token"):
        quantization("aten.linear", "per_channel", 1, 1)


def test_rows_wait_for_their_own_largest_value() -> None:
    """With 132 rows every unit has one; with 133 one unit has two, and the kernel lasts one row longer."""
    hw = load("h100-sxm-80gb")

    def seconds(rows: int) -> float:
        (kernel,) = quantization("aten.linear", "per_token", rows, 16)
        found = gpu_kernel_time(kernel, hw)
        return found.fixed_s + max(found.compute_s, found.memory_s)

    assert seconds(132) == pytest.approx(seconds(1), rel=1e-2)
    assert seconds(133) - seconds(132) == pytest.approx(1900 / 1.98e9, rel=1e-2)


def test_scaled_mm_runs_as_a_float8_product() -> None:
    import torch

    class Layer(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return torch._scaled_mm(a, b.t(), scale, scale, out_dtype=torch.bfloat16)

    a, b = (torch.empty(64, 256, dtype=torch.float8_e4m3fn), torch.empty(128, 256, dtype=torch.float8_e4m3fn))
    analysis = analyze(Layer(), (a, b, torch.ones(())), hw="h100")
    (kernel,) = [found for found in analysis.plan.kernels if found.matrix_flops]
    assert (kernel.algorithm, kernel.engine, kernel.dtype) == ("fp8_gemm", "matrix", "fp8")
    assert kernel.matrix_flops == 2 * 64 * 128 * 256
    assert (kernel.bytes_read, kernel.bytes_written) == (64 * 256 + 128 * 256, 2 * 64 * 128)


def test_packed_int8_weights_run_as_a_widened_product() -> None:
    import torch

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten._weight_int8pack_mm(x, weight, scales)

    inputs = (
        torch.empty(32, 256, dtype=torch.bfloat16),
        torch.empty(128, 256, dtype=torch.int8),
        torch.empty(128, dtype=torch.bfloat16),
    )
    analysis = analyze(Layer(), inputs, hw="a100")
    (kernel,) = [found for found in analysis.plan.kernels if found.matrix_flops]
    assert (kernel.algorithm, kernel.dtype) == ("int8_weight_gemm", "fp16")
    assert kernel.bytes_read == 2 * 32 * 256 + 128 * 256
