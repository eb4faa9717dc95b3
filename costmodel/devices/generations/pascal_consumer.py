"""NVIDIA Pascal with GDDR (GP102, GP104: GTX 1080 Ti, P4)."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.generations.pascal import GENERATION as PASCAL
from costmodel.devices.libraries import CUDNN_BEFORE_AMPERE

GENERATION = GpuGeneration(
    name="pascal_consumer",
    title="NVIDIA Pascal, GP102 to GP108",
    family=CUDA,
    capabilities=("6.1", "6.2"),
    process="12ffn",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    row_reach_bytes=PASCAL.row_reach_bytes,
    simt_products=PASCAL.simt_products,
    convolutions=CUDNN_BEFORE_AMPERE,
    assumptions=("fp32 products and the toll of far rows are those of the GP100",),
)
