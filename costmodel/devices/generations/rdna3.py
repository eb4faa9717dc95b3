"""AMD RDNA 3 (RX 7900 XTX): matrix instructions on the vector lanes."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.generations.rdna1 import GENERATION as RDNA1
from costmodel.devices.libraries import OCML_LANE_CYCLES

GENERATION = GpuGeneration(
    name="rdna3",
    title="AMD RDNA 3",
    family=ROCM,
    capabilities=("gfx1100", "gfx1101", "gfx1102"),
    matrix_dtypes=("fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=512,
    process="4n",
    dram="GDDR",
    schedulers_per_unit=2,  # 64 lanes a clock
    lane_cycles=OCML_LANE_CYCLES,
    l2_bytes_per_clock=15.0,
    assumptions=RDNA1.assumptions,
)
