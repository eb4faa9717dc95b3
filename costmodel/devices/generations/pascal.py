"""NVIDIA Pascal for data centers (GP100, P100): HBM, and units of half the size, with two schedulers."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUBLAS_SIMT_TILES, CUDNN_BEFORE_AMPERE, ProductKernels

GENERATION = GpuGeneration(
    name="pascal",
    title="NVIDIA Pascal, GP100",
    family=CUDA,
    capabilities=("6.0",),
    process="12ffn",
    dram="HBM",
    l2_bytes_per_clock=35.0,
    schedulers_per_unit=2,
    # Rows far apart cost a toll of address translation: NeuSight's fp32 linear on a P100.
    row_reach_bytes=76e3,
    # Share of the FFMA rate before the feed of large tiles, fitted to NeuSight's linear (weight read transposed) and
    # bmm (not transposed) on a P100. Its bmm (row-major) shows one kernel for all shapes; cuBLAS, which counts columns
    # first, calls it 128x64.
    simt_products=ProductKernels(
        tiles=CUBLAS_SIMT_TILES,
        batched_tiles=((64, 128),),
        efficiency=0.78,
        batched_efficiency=1.0,
        tile_start=1000.0,
    ),
    convolutions=CUDNN_BEFORE_AMPERE,
)
