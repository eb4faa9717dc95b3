"""NVIDIA Turing (TU102, TU104: RTX 2080 Ti, T4)."""

from costmodel.devices.family import CUDA
from costmodel.devices.generation import GpuGeneration
from costmodel.devices.libraries import CUBLAS_SIMT_TILES, CUDNN_BEFORE_AMPERE, ProductKernels

GENERATION = GpuGeneration(
    name="turing",
    title="NVIDIA Turing",
    family=CUDA,
    capabilities=("7.5",),
    matrix_dtypes=("fp16", "int8"),
    dense_fp16_flop_per_clock=1024,
    process="12ffn",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    # NeuSight's linear and bmm on a T4; its bmm behaves as with Pascal's one kernel. GDDR6 serves the short rows of
    # tiles at 0.85 of the rate of long streams.
    simt_products=ProductKernels(
        tiles=CUBLAS_SIMT_TILES,
        batched_tiles=((64, 128),),
        efficiency=0.96,
        batched_efficiency=1.05,
        operand_rate=0.9,
        stream_rate=0.85,
        tile_start=400.0,
    ),
    convolutions=CUDNN_BEFORE_AMPERE,
)
