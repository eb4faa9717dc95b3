"""NVIDIA Blackwell for data centers (GB100: B200)."""

from costmodel.devices.attention import FLASH_2
from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import WGMMA

GENERATION = GpuGeneration(
    name="blackwell",
    title="NVIDIA Blackwell, GB100",
    family=CUDA,
    capabilities=("10.0", "10.3"),
    matrix_dtypes=("tf32", "fp16", "bf16", "fp64", "fp8", "int8"),
    dense_fp16_flop_per_clock=8192,
    process="4n",
    dram="HBM",
    l2_bytes_per_clock=35.0,
    multicast=2,
    matrix_products=WGMMA,
    attention=(FLASH_2,),
    assumptions=(
        "matrix products are those of Hopper's kernels",
        "the L2 is read as one",
        "attention is that of the GA100",
    ),
)
