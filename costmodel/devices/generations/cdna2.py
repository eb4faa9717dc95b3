"""AMD CDNA 2 (MI210, MI250): two dies a package, one of them a device."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import MIOPEN, OCML_LANE_CYCLES, ROCBLAS_XDLOPS

GENERATION = GpuGeneration(
    name="cdna2",
    title="AMD CDNA 2",
    family=ROCM,
    capabilities=("gfx90a",),
    matrix_dtypes=("fp64", "fp32", "fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="n7",
    dram="HBM",
    schedulers_per_unit=2,  # 64 lanes a clock
    lane_cycles=OCML_LANE_CYCLES,
    l2_bytes_per_clock=35.0,
    matrix_products=ROCBLAS_XDLOPS,
    convolutions=MIOPEN,
    assumptions=(
        "rocBLAS's and MIOpen's kernels are those of CDNA 1",
        "L2 is fed as on NVIDIA's GPUs with HBM",
    ),
)
