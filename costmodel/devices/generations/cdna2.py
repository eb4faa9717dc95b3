"""AMD CDNA 2 (MI210, MI250): two dies a package, one of them a device."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration

GENERATION = GpuGeneration(
    name="cdna2",
    title="AMD CDNA 2",
    family=ROCM,
    capabilities=("gfx90a",),
    matrix_dtypes=("fp64", "fp32", "fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=1024,
    dram="HBM",
    l2_bytes_per_clock=35.0,
    assumptions=(
        "tiles, efficiencies and convolution algorithms are cuBLAS's and cuDNN's, not yet rocBLAS's and MIOpen's",
        "L2 is fed as on NVIDIA's GPUs with HBM",
    ),
)
