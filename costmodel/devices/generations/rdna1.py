"""AMD RDNA (RX 5700 XT)."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import OCML_LANE_CYCLES

GENERATION = GpuGeneration(
    name="rdna1",
    title="AMD RDNA",
    family=ROCM,
    capabilities=("gfx1010", "gfx1011", "gfx1012"),
    process="n7",
    dram="GDDR",
    schedulers_per_unit=2,  # 64 lanes a clock
    lane_cycles=OCML_LANE_CYCLES,
    l2_bytes_per_clock=15.0,
    assumptions=(
        "tiles, efficiencies and convolution algorithms are cuBLAS's and cuDNN's, not yet rocBLAS's and MIOpen's",
        "L2 is fed as on NVIDIA's GPUs with GDDR",
    ),
)
