"""NVIDIA Turing (TU102, TU104: RTX 2080 Ti, T4)."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUDNN_BEFORE_AMPERE

GENERATION = GpuGeneration(
    name="turing",
    title="NVIDIA Turing",
    family=CUDA,
    capabilities=("7.5",),
    matrix_dtypes=("fp16", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="12ffn",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    convolutions=CUDNN_BEFORE_AMPERE,
)
