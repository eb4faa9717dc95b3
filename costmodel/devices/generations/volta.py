"""NVIDIA Volta (GV100): the first tensor cores, fp16 alone."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUBLAS_SIMT_TILES, CUDNN_BEFORE_AMPERE, ProductKernels

GENERATION = GpuGeneration(
    name="volta",
    title="NVIDIA Volta",
    family=CUDA,
    capabilities=("7.0",),
    matrix_dtypes=("fp16",),
    dense_fp16_flop_per_clock=1024,
    process="12ffn",
    dram="HBM",
    l2_bytes_per_clock=35.0,
    # NeuSight's linear and bmm on a V100; its bmm behaves as with tiles of 64x64 alone.
    simt_products=ProductKernels(
        tiles=CUBLAS_SIMT_TILES,
        batched_tiles=((128, 128), (128, 64), (64, 128), (64, 64)),
        efficiency=1.0,
        batched_efficiency=1.0,
        tile_start=500.0,
    ),
    convolutions=CUDNN_BEFORE_AMPERE,
)
