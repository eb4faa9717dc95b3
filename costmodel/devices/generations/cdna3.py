"""AMD CDNA 3 (MI300X)."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration

GENERATION = GpuGeneration(
    name="cdna3",
    title="AMD CDNA 3",
    family=ROCM,
    capabilities=("gfx942", "gfx940"),
    matrix_dtypes=("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8"),
    dense_fp16_flop_per_clock=2048,
    dram="HBM",
    l2_bytes_per_clock=35.0,
    assumptions=(
        "tiles, efficiencies and convolution algorithms are cuBLAS's and cuDNN's, not yet rocBLAS's and MIOpen's",
        "L2 is fed as on NVIDIA's GPUs with HBM",
    ),
)
