"""NVIDIA Maxwell: the last one whose products nobody measured; Pascal's cuDNN."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUDNN_SIMT_TILES, ConvolutionKernels

GENERATION = GpuGeneration(
    name="maxwell",
    title="NVIDIA Maxwell",
    family=CUDA,
    capabilities=("5.0", "5.2", "5.3"),
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    # Before Ampere, the smallest tile edge of batched fp32 products is 64.
    convolutions=ConvolutionKernels(tiles=CUDNN_SIMT_TILES, winograd_tiles=((128, 128), (128, 64))),
    assumptions=("fp32 products reach the mean of the measured generations",),
)
