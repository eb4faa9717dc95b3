"""NVIDIA Ada (AD102 to AD107: RTX 4090, L4, L40S): fp8, and a large L2."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUBLAS_SIMT_TILES, ProductKernels

GENERATION = GpuGeneration(
    name="ada",
    title="NVIDIA Ada",
    family=CUDA,
    capabilities=("8.9",),
    matrix_dtypes=("tf32", "fp16", "bf16", "fp8", "int8"),
    dense_fp16_flop_per_clock=1024,
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    # Share of the FFMA rate before the feed of large tiles, fitted to NeuSight's linear and bmm on an A100; its bmm
    # shows one kernel for all shapes.
    simt_products=ProductKernels(
        tiles=CUBLAS_SIMT_TILES, batched_tiles=((128, 128),), efficiency=0.93, batched_efficiency=1.03
    ),
    assumptions=("fp32 products are those of the GA100",),
)
