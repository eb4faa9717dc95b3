"""AMD RDNA 2 (RX 6800, RX 6900 XT)."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.generations.rdna1 import GENERATION as RDNA1
from costmodel.devices.libraries import OCML_LANE_CYCLES

GENERATION = GpuGeneration(
    name="rdna2",
    title="AMD RDNA 2",
    family=ROCM,
    capabilities=("gfx1030", "gfx1031", "gfx1032"),
    process="n7",
    dram="GDDR",
    schedulers_per_unit=2,  # 64 lanes a clock
    lane_cycles=OCML_LANE_CYCLES,
    l2_bytes_per_clock=15.0,
    assumptions=RDNA1.assumptions,
)
