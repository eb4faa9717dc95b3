"""AMD CDNA 3 (MI300X)."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.generations.cdna2 import GENERATION as CDNA2
from costmodel.devices.libraries import MIOPEN, OCML_LANE_CYCLES, ROCBLAS_XDLOPS

GENERATION = GpuGeneration(
    name="cdna3",
    title="AMD CDNA 3",
    family=ROCM,
    capabilities=("gfx942", "gfx940"),
    matrix_dtypes=("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8"),
    dense_fp16_flop_per_clock=2048,
    process="4n",
    dram="HBM",
    schedulers_per_unit=2,  # 64 lanes a clock
    lane_cycles=OCML_LANE_CYCLES,
    l2_bytes_per_clock=35.0,
    matrix_products=ROCBLAS_XDLOPS,
    convolutions=MIOPEN,
    assumptions=CDNA2.assumptions,
)
