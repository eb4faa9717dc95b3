"""NVIDIA Maxwell: the last one whose products nobody measured; Pascal's cuDNN."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUDNN_BEFORE_AMPERE

GENERATION = GpuGeneration(
    name="maxwell",
    title="NVIDIA Maxwell",
    family=CUDA,
    capabilities=("5.0", "5.2", "5.3"),
    process="12ffn",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    convolutions=CUDNN_BEFORE_AMPERE,
    assumptions=("fp32 products reach the mean of the measured generations",),
)
