"""NVIDIA Turing (TU102, TU104: RTX 2080 Ti, T4)."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUDNN_SIMT_TILES, ConvolutionKernels

GENERATION = GpuGeneration(
    name="turing",
    title="NVIDIA Turing",
    family=CUDA,
    capabilities=("7.5",),
    matrix_dtypes=("fp16", "int8"),
    dense_fp16_flop_per_clock=1024,
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    # Before Ampere, the smallest tile edge of batched fp32 products is 64.
    convolutions=ConvolutionKernels(tiles=CUDNN_SIMT_TILES, winograd_tiles=((128, 128), (128, 64))),
)
