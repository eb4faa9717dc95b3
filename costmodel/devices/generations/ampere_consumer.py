"""NVIDIA Ampere with GDDR (GA102 to GA107: RTX 3090, A10, A40)."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.generations.ampere import GENERATION as AMPERE

GENERATION = GpuGeneration(
    name="ampere_consumer",
    title="NVIDIA Ampere, GA102 to GA107",
    family=CUDA,
    capabilities=("8.6",),
    matrix_dtypes=("tf32", "fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="8n",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    simt_products=AMPERE.simt_products,
    quantized_products=AMPERE.quantized_products,
    attention=AMPERE.attention,
    assumptions=("fp32, int8 and widened products and attention are those of the GA100",),
)
