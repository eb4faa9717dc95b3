"""Rows of quantized layers: what ran is read off the file's words, and judged as quantization plus product."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.hardware import load
from costmodel.validate import read_measured, validate
from costmodel.validate.cells import RowError
from costmodel.validate.judged import judge_operator
from costmodel.validate.quantized import layer_of
from costmodel.validate.rows import OperatorRow

HEADER = "device,op,dtype,input,other,latency_us,timing,framework,kernel\n"
ROWS = (
    "h100-sxm-80gb,linear_no_bias,fp8,4096x4096,4096x4096,150,graph_replay,trtllm 1.3.0,torch_flow\n"
    "h100-sxm-80gb,linear_no_bias,fp8_block,64x4096,4096x4096,90,graph_replay,vllm 0.24,DeepGemmFp8Block\n"
    "a100-sxm-80gb,linear_no_bias,int4_wo,8x4096,4096x4096,20,graph_replay,trtllm 1.0,flow_/matmul_L7/PLUGIN_0\n"
    "h100-sxm-80gb,linear_no_bias,fp8,0x4096,4096x4096,1,graph_replay,trtllm 1.3.0,torch_flow\n"
    "h100-sxm-80gb,linear_no_bias,fp8,16x4096,4096x4096,9,graph_replay,unheard 1,of\n"
    "v100-sxm-32gb,linear_no_bias,fp8,16x4096,4096x4096,9,graph_replay,trtllm 1.3.0,torch_flow\n"
)


def test_rows_name_their_kernels_and_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    path = tmp_path / "quant.csv"
    path.write_text(HEADER + ROWS)
    measured = read_measured([path])
    assert [row.algorithm for row in measured.rows] == ["fp8_gemm", "fp8_block_gemm", "int4_weight_gemm", "fp8_gemm"]
    assert [row.timing for row in measured.rows][:3] == ["graph_replay", "eager_call", "eager_call"]
    found = validate(measured, trace=None)  # type: ignore[arg-type]
    assert len(found.judged) == 3
    reasons = [row.reason for row in found.unusable]
    assert len(reasons) == 3
    assert any("unheard" in reason for reason in reasons)
    assert any("NVIDIA Volta" in reason for reason in reasons)


def test_a_layer_is_its_quantization_and_its_product() -> None:
    """Three kernels and the product, against the product alone of activations that are narrow already."""
    row = OperatorRow(
        file="", line=2, device="h100-sxm-80gb", op="linear_no_bias", dtype="fp8", input=(16, 256), other=(256, 256),
        latency_s=12e-6, timing="graph_replay", algorithm="fp8_gemm", library="trtllm 1 torch_flow",
    )  # fmt: skip
    whole = judge_operator(row, load("h100-sxm-80gb")).predicted_s
    assert 4 * 4500 / 1.98e9 < whole < 20e-6


def test_a_library_without_a_name_is_refused() -> None:
    with pytest.raises(RowError, match="without a name"):
        layer_of("fp8", "")
