"""AMD CDNA (MI100): matrix cores, fp32 among their dtypes."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import MIOPEN, XDLOPS

GENERATION = GpuGeneration(
    name="cdna1",
    title="AMD CDNA",
    family=ROCM,
    capabilities=("gfx908",),
    matrix_dtypes=("fp32", "fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="n7",
    dram="HBM",
    l2_bytes_per_clock=35.0,
    matrix_products=XDLOPS,
    convolutions=MIOPEN,
    assumptions=(
        "rocBLAS's batched products run as its single ones and MIOpen's Winograd as implicit GEMM, on matrix cores",
        "L2 is fed as on NVIDIA's GPUs with HBM",
    ),
)
