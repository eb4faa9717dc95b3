"""NVIDIA Blackwell with GDDR7 (GB202 to GB207: RTX 5090, RTX PRO 6000)."""

from costmodel.devices.attention import FLASH_2
from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration

GENERATION = GpuGeneration(
    name="blackwell_consumer",
    title="NVIDIA Blackwell, GB202 to GB207",
    family=CUDA,
    capabilities=("12.0", "12.1"),
    matrix_dtypes=("tf32", "fp16", "bf16", "fp8", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="4n",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    attention=(FLASH_2,),
    assumptions=("matrix products and attention have the tiles of Ampere's kernels",),
)
