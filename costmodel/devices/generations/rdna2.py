"""AMD RDNA 2 (RX 6800, RX 6900 XT)."""

from costmodel.devices.family import ROCM
from costmodel.devices.generation import GpuGeneration

GENERATION = GpuGeneration(
    name="rdna2",
    title="AMD RDNA 2",
    family=ROCM,
    capabilities=("gfx1030", "gfx1031", "gfx1032"),
    process="n7",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    assumptions=(
        "tiles, efficiencies and convolution algorithms are cuBLAS's and cuDNN's, not yet rocBLAS's and MIOpen's",
        "L2 is fed as on NVIDIA's GPUs with GDDR",
    ),
)
