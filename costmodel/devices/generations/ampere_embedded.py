"""NVIDIA Ampere in Jetson Orin (GA10B): tensor cores of the GA100 beside LPDDR5."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.generations.ampere import GENERATION as AMPERE

GENERATION = GpuGeneration(
    name="ampere_embedded",
    title="NVIDIA Ampere, GA10B",
    family=CUDA,
    capabilities=("8.7",),
    matrix_dtypes=("tf32", "fp16", "bf16", "int8"),
    dense_fp16_flop_per_clock=2048,
    process="8n",
    dram="LPDDR",
    l2_bytes_per_clock=15.0,
    simt_products=AMPERE.simt_products,
    quantized_products=AMPERE.quantized_products,
    attention=AMPERE.attention,
    assumptions=("fp32, int8 and widened products and attention are those of the GA100",),
)
