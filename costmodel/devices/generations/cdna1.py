"""AMD CDNA (MI100): matrix cores, fp32 among their dtypes."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import MIOPEN, OCML_LANE_CYCLES, ROCBLAS_XDLOPS

GENERATION = GpuGeneration(
    name="cdna1",
    title="AMD CDNA",
    family=ROCM,
    capabilities=("gfx908",),
    matrix_dtypes=("fp32", "fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="n7",
    dram="HBM",
    schedulers_per_unit=2,  # 64 lanes a clock
    lane_cycles=OCML_LANE_CYCLES,
    l2_bytes_per_clock=35.0,
    # NeuSight's fp32 linear on an MI100: rows of 65,536 elements; rows of 50,272 are no slower than short ones.
    channel_period_bytes=256 * 1024,
    matrix_products=ROCBLAS_XDLOPS,
    convolutions=MIOPEN,
    assumptions=(
        "rocBLAS's fp16 and bf16 products have the tiles of its fp32 ones; MIOpen's Winograd runs as implicit GEMM",
        "L2 is fed as on NVIDIA's GPUs with HBM",
    ),
)
