"""NVIDIA Hopper (GH100: H100, H200): thread block clusters, whose units share reads, and products by warp groups."""

from costmodel.devices.attention import FLASH_2_HOPPER, FLASH_3, LATENT_HOPPER
from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import (
    FP8_WGMMA,
    FP8_WGMMA_BLOCK,
    FP8_WGMMA_CUTLASS,
    INT4_WEIGHTS,
    INT8_WEIGHTS,
    MARLIN_INT4,
    MARLIN_INT8,
    WGMMA,
)

GENERATION = GpuGeneration(
    name="hopper",
    title="NVIDIA Hopper",
    family=CUDA,
    capabilities=("9.0",),
    matrix_dtypes=("tf32", "fp16", "bf16", "fp64", "fp8", "int8"),
    dense_fp16_flop_per_clock=4096,
    process="4n",
    dram="HBM",
    l2_bytes_per_clock=35.0,
    l2_copies=2,
    multicast=2,
    matrix_products=WGMMA,
    quantized_products=(
        FP8_WGMMA,
        FP8_WGMMA_BLOCK,
        FP8_WGMMA_CUTLASS,
        INT4_WEIGHTS,
        INT8_WEIGHTS,
        MARLIN_INT4,
        MARLIN_INT8,
    ),
    attention=(FLASH_2_HOPPER, FLASH_3, LATENT_HOPPER),
    assumptions=(
        "products with widened weights are those of the GA100",
        "attention over a latent cache (MLA) reaches what the authors of FlashMLA state for an H800",
    ),
)
