"""How an operator's work is done: the algorithm's name, and the units that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.formulas import lookup
from costmodel.hardware import HardwareProfile
from costmodel.tensor import TensorSpec

__all__ = ["algorithm_of", "engine_for"]

#: Sheets of formulas whose operators all work alike.
_BY_SHEET = {
    "pointwise": "elementwise",
    "reduction": "reduction",
    "movement": "copy",
    "pooling": "pool",
    "resampling": "resample",
    "normalization": "normalization",
    "recurrent": "gemm",
    "contraction": "gemm",
    "attention": "fused_attention",
    "eigenvalues": "factorization",
    "backward_pointwise": "elementwise",
    "backward_reduction": "reduction",
    "backward_movement": "copy",
    "backward_normalization": "normalization",
    "backward_recurrent": "gemm",
    "backward_attention": "fused_attention",
}


def algorithm_of(op: str, arguments: Mapping[str, Any]) -> str:
    """Name of the algorithm that runs an operator on a machine with a mature library.

    1x1 convolutions of stride 1 are plain matrix products: their input already is the im2col matrix.
    Other dense convolutions run as implicit GEMM (the matrix is formed in on-chip memory, never stored).
    """
    weight = arguments.get("weight")
    if "conv" in op and isinstance(weight, TensorSpec):
        return _convolution(op, arguments, weight)
    formula = lookup(op)
    sheet = "" if formula is None else formula.__module__.rpartition(".")[2]
    return _BY_SHEET.get(sheet, sheet or "unknown")


def _convolution(op: str, arguments: Mapping[str, Any], weight: TensorSpec) -> str:
    groups = arguments.get("groups", 1)
    if groups != 1:
        channels = arguments["input"].shape[1]
        return "direct_depthwise" if groups == channels else "grouped_implicit_gemm"
    kernel = weight.shape[2:]
    if (
        all(k == 1 for k in kernel)
        and "transpose" not in op
        and _all(arguments.get("stride", 1), 1)
        and _all(arguments.get("padding", 0), 0)
    ):
        return "gemm"
    return "implicit_gemm"


def _all(value: Any, wanted: int) -> bool:
    return all(v == wanted for v in value) if isinstance(value, (list, tuple)) else value in (wanted, "valid")


def engine_for(algorithm: str, dtype: str, hardware: HardwareProfile) -> tuple[str, str, str]:
    """(engine, dtype, accumulate) that a contraction runs on: matrix units where the machine has them for this dtype.

    Direct depthwise convolutions reduce over too few elements to feed a matrix unit and run on the
    vector lanes, in fp32 (fp64 stays what it is). So does every dtype that the machine has no peak
    for, and the half precision of lanes that would add it up in half precision (Pascal): PyTorch
    asks cuBLAS and cuDNN for sums in fp32.
    """
    if algorithm != "direct_depthwise" or dtype == "fp64":
        for engine in ("matrix", "vector"):
            peak = hardware.find_peak(engine, dtype)
            if peak is not None and not (engine == "vector" and peak.accumulate in ("fp16", "bf16")):
                return engine, dtype, peak.accumulate
    return "vector", "fp32", "fp32"
