"""AMD CDNA (MI100): matrix cores, fp32 among their dtypes."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration

GENERATION = GpuGeneration(
    name="cdna1",
    title="AMD CDNA",
    family=ROCM,
    capabilities=("gfx908",),
    matrix_dtypes=("fp32", "fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=1024,
    dram="HBM",
    l2_bytes_per_clock=35.0,
    assumptions=(
        "tiles, efficiencies and convolution algorithms are cuBLAS's and cuDNN's, not yet rocBLAS's and MIOpen's",
        "L2 is fed as on NVIDIA's GPUs with HBM",
    ),
)
