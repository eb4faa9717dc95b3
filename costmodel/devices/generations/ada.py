"""NVIDIA Ada (AD102 to AD107: RTX 4090, L4, L40S): fp8, and a large L2."""

from costmodel.devices.attention import FLASH_2_ADA, FLASH_2_PAGED_ADA, FLASH_2_VARLEN_ADA, LATENT_ADA
from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.generations.ampere import GENERATION as AMPERE
from costmodel.devices.libraries import FP8_MMA, FP8_MMA_BLOCK, FP8_MMA_CUTLASS

GENERATION = GpuGeneration(
    name="ada",
    title="NVIDIA Ada",
    family=CUDA,
    capabilities=("8.9",),
    matrix_dtypes=("tf32", "fp16", "bf16", "fp8", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="4n",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    simt_products=AMPERE.simt_products,
    quantized_products=(FP8_MMA, FP8_MMA_BLOCK, FP8_MMA_CUTLASS, *AMPERE.quantized_products),
    attention=(FLASH_2_ADA, FLASH_2_PAGED_ADA, FLASH_2_VARLEN_ADA, LATENT_ADA),
    assumptions=(
        "fp32, int8 and widened products are those of the GA100",
        "attention over a latent cache (MLA) takes the constants of plain attention over pages",
    ),
)
