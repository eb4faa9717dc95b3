"""NVIDIA Ampere for data centers (GA100: A100, A30): TF32 and bf16, and an L2 of two halves."""

from costmodel.devices.attention import FLASH_2, FLASH_2_PAGED, FLASH_3_MMA, FMHA, LATENT, MMHA, XQA
from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import (
    CUBLAS_SIMT_TILES,
    INT4_WEIGHTS,
    INT8,
    INT8_WEIGHTS,
    MARLIN_INT4,
    MARLIN_INT8,
    ProductKernels,
)

GENERATION = GpuGeneration(
    name="ampere",
    title="NVIDIA Ampere, GA100",
    family=CUDA,
    capabilities=("8.0",),
    matrix_dtypes=("tf32", "fp16", "bf16", "fp64", "int8"),
    dense_fp16_flop_per_clock=2048,
    process="n7",
    dram="HBM",
    l2_bytes_per_clock=35.0,
    # Each half of L2 holds copies of the lines that the other half's units read.
    l2_copies=2,
    # Share of the FFMA rate before the feed of large tiles, fitted to NeuSight's linear and bmm on an A100; its bmm
    # shows one kernel for all shapes.
    simt_products=ProductKernels(
        tiles=CUBLAS_SIMT_TILES, batched_tiles=((128, 128),), efficiency=0.93, batched_efficiency=1.03
    ),
    quantized_products=(INT4_WEIGHTS, INT8, INT8_WEIGHTS, MARLIN_INT4, MARLIN_INT8),
    attention=(FLASH_2, FLASH_2_PAGED, FLASH_3_MMA, FMHA, LATENT, XQA, MMHA),
    assumptions=("attention over a latent cache (MLA) takes the constants of plain attention over pages",),
)
