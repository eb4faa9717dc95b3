"""Kernels that libraries hold, by tiles and shares of the peak; a generation says which are its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = [
    "CUBLAS_MATRIX",
    "CUBLAS_MATRIX_TILES",
    "CUBLAS_SIMT",
    "CUBLAS_SIMT_TILES",
    "CUDNN",
    "CUDNN_BEFORE_AMPERE",
    "CUDNN_SIMT_TILES",
    "FP8_MMA",
    "FP8_MMA_BLOCK",
    "FP8_MMA_CUTLASS",
    "FP8_WGMMA",
    "FP8_WGMMA_BLOCK",
    "FP8_WGMMA_CUTLASS",
    "INT4_WEIGHTS",
    "INT8",
    "INT8_WEIGHTS",
    "MARLIN_INT4",
    "MARLIN_INT8",
    "MIOPEN",
    "OCML_LANE_CYCLES",
    "ONEDNN_AVX2",
    "ONEDNN_AVX512",
    "ROCBLAS_XDLOPS",
    "WGMMA",
    "XDLOPS",
    "XDLOPS_TILES",
    "ConvolutionKernels",
    "CpuConvolutions",
    "ProductKernels",
    "QuantizedProducts",
    "Tiles",
]

#: Tiles (rows, columns) of a kernel's result [elements].
Tiles = tuple[tuple[int, int], ...]


#: Lane cycles of an element in AMD's math library, where they show: pow takes 145 to 175 on an MI100, of a scalar
#: exponent too (66 G elements a second; NeuSight).
OCML_LANE_CYCLES: Mapping[str, float] = {"pow": 160.0}  # a plain table: profiles go to other processes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductKernels:
    """Kernels of matrix products on one kind of unit.

    ``tiles`` and ``batched_tiles`` are what a library can choose from, for one product and for a batch of them;
    ``efficiency`` and ``batched_efficiency`` the share of the peak that the inner loop of a large tile reaches [1]. For
    FMA lanes that is before the feed of tiles through shared memory (7 % for 128x128), which can bring a figure above
    1 below the peak again.

    How a generation's kernels differ from those that the shared constants describe (``GemmConstants`` of
    :mod:`costmodel.timing.gemm`), each over the figure there [1]: ``start`` the fixed time of a kernel
    (``vector_start`` of one for a single row), ``step_latency`` the least time of one element of k, ``operand_rate``
    the rate at which operands come from L2,
    ``result_rate`` the rate at which a unit writes a finished tile, ``stream_rate`` that at which operands come from
    DRAM, ``split_start`` the fixed time of a split. ``tile_start`` is what each tile waits for its first operands, as
    far as no other block of its unit works meanwhile [clock cycles]. ``splits`` says whether the library has kernels
    that split k; ``by_rows`` lists tiles by the most rows of A that they are taken for, in rising order, where a
    library chooses by the rows alone.
    """

    tiles: Tiles
    batched_tiles: Tiles
    efficiency: float = 1.0
    batched_efficiency: float = 1.0
    start: float = 1.0
    step_latency: float = 1.0
    operand_rate: float = 1.0
    result_rate: float = 1.0
    stream_rate: float = 1.0
    split_start: float = 1.0
    tile_start: float = 0.0
    splits: bool = True
    vector_start: float = 1.0
    by_rows: tuple[tuple[float, Tiles], ...] = ()

    def tiles_for(self, rows: int, batch: int = 1) -> Tiles:
        """The tiles that are tried for ``batch`` products of A[rows, k]."""
        by_rows = next((tiles for most, tiles in self.by_rows if rows <= most), None)
        return by_rows or (self.batched_tiles if batch > 1 else self.tiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedProducts:
    """Kernels of matrix products of narrow formats on matrix units.

    ``name`` is the algorithm's; ``multiplies`` the dtype whose peak the units have in them; ``activation_bytes`` and
    ``weight_bytes`` an element's in memory [B].
    """

    name: str
    multiplies: str
    activation_bytes: float
    weight_bytes: float
    kernels: ProductKernels


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionKernels:
    """Kernels of fp32 convolutions on FMA lanes: tiles (output positions, output channels) of implicit GEMM, those of
    the batched products of non-fused Winograd, and the algorithms that the library offers. ``converts_layout`` says
    whether its kernels for matrix units want channels last, so that NCHW operands are converted around them;
    ``keeps_taps`` whether a unit's cache serves all but the first tap of a filter's row that reads a pixel.
    ``matrix_products`` are its kernels on matrix units, where they are not those of the generation's products."""

    tiles: Tiles
    winograd_tiles: Tiles
    matrix_products: ProductKernels | None = None
    converts_layout: bool = True
    keeps_taps: bool = True
    algorithms: tuple[str, ...] = ("implicit_gemm", "winograd", "winograd_nonfused", "fft")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuConvolutions:
    """Shares of the fp32 peak that dense convolutions reach [1]: 1x1 ones, and those of wider windows."""

    pointwise_share: float
    window_share: float


#: With 16 vector registers, on a two-core Milan guest: 0.60 and 0.58 of the peak, the kernels alone up to 0.7.
ONEDNN_AVX2 = CpuConvolutions(pointwise_share=0.62, window_share=0.60)
#: With 32, on an i9-10940X: 0.73 and 0.85 of the peak at its base clock, which it may exceed.
ONEDNN_AVX512 = CpuConvolutions(pointwise_share=0.72, window_share=0.80)
#: Tiles (m, n) [elements] of cuBLAS and CUTLASS for tensor cores; tiles of 16 rows, 192 columns or 256x64 that these
#: libraries also have made the fit no better.
CUBLAS_MATRIX_TILES: Tiles = (
    (256, 128),
    (128, 256),
    (128, 128),
    (128, 64),
    (64, 128),
    (64, 64),
    (32, 128),
    (128, 32),
    (64, 32),
    (32, 64),
    (32, 32),
)
#: Tiles of SGEMM on FMA lanes, by the names of cuBLAS's kernels.
CUBLAS_SIMT_TILES: Tiles = (
    (128, 128),
    (128, 64),
    (64, 128),
    (64, 64),
    (128, 32),
    (32, 128),
    (32, 64),
    (64, 32),
    (32, 32),
)
#: Tiles of cuDNN's fp32 implicit GEMM, by the names of its kernels.
CUDNN_SIMT_TILES: Tiles = ((128, 128), (128, 64), (128, 32))

CUBLAS_MATRIX = ProductKernels(tiles=CUBLAS_MATRIX_TILES, batched_tiles=CUBLAS_MATRIX_TILES)
#: Products by warp groups (wgmma) on Hopper: operands go from L2 into shared memory by TMA, past the registers, and
#: feed the tensor cores from there; barriers in hardware hide the latency of a stage, and TMA writes results.
#: Ratios fitted to 3,000 of 18,034 public bf16 products on an H100 SXM (graph replay); alone they give a start of 5260
#: cycles, 2.4 cycles an element of k, 18.3 B/clock for results. Its tiles add those of 192 and 64x256 to cuBLAS's.
WGMMA = ProductKernels(
    tiles=(*CUBLAS_MATRIX_TILES, (192, 128), (128, 192), (256, 64), (64, 256)),
    batched_tiles=(*CUBLAS_MATRIX_TILES, (192, 128), (128, 192), (256, 64), (64, 256)),
    efficiency=0.965,
    batched_efficiency=0.965,
    start=1.2,
    step_latency=0.355,
    operand_rate=1.88,
    result_rate=1.97,
)
#: Implicit GEMM of MIOpen on CDNA's matrix cores (xdlops kernels). Fitted to 1,500 public rows each of its forward
#: convolutions in fp32, fp16 and bf16 on an MI100: 0.70 of the peak; 11,000 cycles (7 µs) a kernel; 23 cycles an
#: element of k, for blocks that neither load past the registers nor are many to a unit. Two blocks a unit hide the
#: writing of results; k is not split.
XDLOPS_TILES: Tiles = (*CUBLAS_MATRIX_TILES, (64, 16), (16, 64))
XDLOPS = ProductKernels(
    tiles=XDLOPS_TILES,
    batched_tiles=XDLOPS_TILES,
    efficiency=0.70,
    batched_efficiency=0.60,
    start=2.5,
    step_latency=3.44,
    result_rate=10.0,
    splits=False,
)
#: Products of rocBLAS (Tensile) on the same cores, built alike: k is not split (1024 x 1024 x 32768 runs at the 16
#: TFLOP/s of 64 tiles on 120 units). Fitted to NeuSight's fp32 linear and bmm on an MI100. Batched products behave as
#: with one tile, whatever their sizes. Some with two sides of 196 to 512 elements run at a third of the rate of others;
#: which ones follows no rule of sizes that was found (rocBLAS takes the kernel of the nearest sizes it was tuned for).
ROCBLAS_XDLOPS = replace(
    XDLOPS,
    batched_tiles=((64, 64),),
    efficiency=0.72,
    batched_efficiency=0.60,
    start=2.0,
    operand_rate=1.2,
    tile_start=600.0,
)
#: float8 products of cuBLASLt on Hopper. Ratios fitted to 1,954 public rows of TensorRT-LLM on an H100 SXM, whose
#: activations are quantized per tensor first; half the bytes halve the latency of an element of k. ``start`` holds also
#: what the four kernels of that quantization take beyond the start of a plain kernel, which no row tells apart.
FP8_WGMMA = QuantizedProducts(
    name="fp8_gemm",
    multiplies="fp8",
    activation_bytes=1,
    weight_bytes=1,
    kernels=replace(WGMMA, efficiency=0.76, batched_efficiency=0.76, start=1.7, step_latency=0.23, operand_rate=1.8),
)
#: Tiles that vLLM's CUTLASS kernels are compiled for, by the rows of A; no split of k.
_CUTLASS_WGMMA = ((64, ((64, 64),)), (128, ((64, 128),)), (float("inf"), ((128, 128),)))
_CUTLASS_MMA = (
    (16, ((16, 64),)),
    (32, ((32, 64),)),
    (64, ((64, 64),)),
    (128, ((64, 64), (64, 128))),
    (256, ((128, 64), (64, 128))),
    (float("inf"), ((128, 128), (256, 128), (128, 256))),
)
#: The same of CUTLASS in vLLM, whose activations are quantized per token: 1,980 rows.
FP8_WGMMA_CUTLASS = replace(
    FP8_WGMMA,
    name="fp8_gemm_cutlass",
    kernels=replace(
        WGMMA,
        efficiency=0.64,
        batched_efficiency=0.60,
        step_latency=0.206,
        operand_rate=1.8,
        stream_rate=0.9,
        splits=False,
        by_rows=_CUTLASS_WGMMA,
    ),
)
#: float8 products with a scale for each 128 elements of a row and each 128x128 of the weight (DeepGEMM's form):
#: sums are scaled on FMA lanes every 128 elements of k. 1,973 rows of TensorRT-LLM on the H100.
_BLOCK_TILES: Tiles = ((64, 64), (64, 128), (128, 64), (128, 128))
FP8_WGMMA_BLOCK = replace(
    FP8_WGMMA,
    name="fp8_block_gemm",
    kernels=replace(
        WGMMA,
        tiles=_BLOCK_TILES,
        batched_tiles=_BLOCK_TILES,
        efficiency=0.633,
        batched_efficiency=0.633,
        start=1.04,
        step_latency=0.294,
        operand_rate=1.15,
        result_rate=1.14,
        splits=False,
    ),
)
#: The same three on Ada (4,000 rows each on an L40S).
FP8_MMA = replace(
    FP8_WGMMA,
    kernels=replace(
        CUBLAS_MATRIX, efficiency=0.84, batched_efficiency=0.84, start=2.9, step_latency=0.84, operand_rate=0.77
    ),
)
FP8_MMA_CUTLASS = replace(
    FP8_WGMMA_CUTLASS,
    kernels=replace(
        CUBLAS_MATRIX,
        efficiency=0.75,
        batched_efficiency=0.75,
        step_latency=0.44,
        operand_rate=1.33,
        result_rate=0.135,
        stream_rate=0.88,
        splits=False,
        by_rows=_CUTLASS_MMA,
    ),
)
FP8_MMA_BLOCK = replace(
    FP8_WGMMA_BLOCK,
    kernels=replace(
        FP8_WGMMA_BLOCK.kernels,
        efficiency=0.387,
        batched_efficiency=0.387,
        start=0.1,
        step_latency=0.88,
        operand_rate=0.99,
        result_rate=0.355,
    ),
)
#: Weights of 8 or 4 bits that are widened to fp16 on the way into the tensor cores (TensorRT-LLM on an A100, 4,000
#: rows each): the instructions that widen take a share of the issue slots, and parts of a split of k wait for each
#: other in turn. What the two share serves other libraries' kernels of the kind too; by format they differ in how much
#: widening costs and in what a block of threads loads before it begins.
_WIDENING = replace(
    CUBLAS_MATRIX, efficiency=0.857, batched_efficiency=0.857, result_rate=1.72, step_latency=1.02, split_start=4.6
)
INT8_WEIGHTS = QuantizedProducts(
    name="int8_weight_gemm",
    multiplies="fp16",
    activation_bytes=2,
    weight_bytes=1,
    kernels=replace(
        _WIDENING,
        efficiency=0.88,
        batched_efficiency=0.88,
        start=1.8,
        step_latency=0.76,
        operand_rate=1.2,
        result_rate=1.8,
    ),
)
INT4_WEIGHTS = QuantizedProducts(
    name="int4_weight_gemm",
    multiplies="fp16",
    activation_bytes=2,
    weight_bytes=0.5,
    kernels=replace(
        _WIDENING, efficiency=0.82, batched_efficiency=0.82, start=1.75, step_latency=0.95, result_rate=2.1
    ),
)
#: The same by Marlin (vLLM), whose blocks of threads take strips of a weight and add their parts up behind locks: a
#: start of 12 µs, from the public speed of Qwen2.5 with GPTQ and AWQ on an A100 beside that with bf16 weights.
_MARLIN = replace(_WIDENING, start=3.1, vector_start=3.1)
MARLIN_INT4 = replace(INT4_WEIGHTS, name="marlin_int4_gemm", kernels=_MARLIN)
MARLIN_INT8 = replace(INT8_WEIGHTS, name="marlin_int8_gemm", kernels=_MARLIN)
#: int8 products of SmoothQuant (CUTLASS in TensorRT-LLM on an A100, 4,000 rows): scales of rows and columns ride in
#: the epilogue, and a kernel starts twice as long as one of fp16; no split of k.
INT8 = QuantizedProducts(
    name="int8_gemm",
    multiplies="int8",
    activation_bytes=1,
    weight_bytes=1,
    kernels=replace(CUBLAS_MATRIX, start=2.0, step_latency=0.45, operand_rate=1.1, splits=False),
)
#: Where no fp32 product was measured: the means of what the measured generations reach.
CUBLAS_SIMT = ProductKernels(
    tiles=CUBLAS_SIMT_TILES,
    batched_tiles=((128, 128), (128, 64), (64, 128), (64, 64)),
    efficiency=0.95,
    batched_efficiency=0.95,
)
#: Before Ampere the smallest tile edge of batched fp32 products is 64, since then 128.
CUDNN_BEFORE_AMPERE = ConvolutionKernels(tiles=CUDNN_SIMT_TILES, winograd_tiles=((128, 128), (128, 64)))
CUDNN = ConvolutionKernels(tiles=CUDNN_SIMT_TILES, winograd_tiles=((128, 128),))
#: MIOpen takes NCHW as it lies, through an L1 of 16 KiB that keeps no row for the next tap; fp32 lanes are left to
#: what matrix cores do not multiply.
MIOPEN = ConvolutionKernels(
    tiles=CUDNN_SIMT_TILES,
    winograd_tiles=((128, 128),),
    matrix_products=XDLOPS,
    algorithms=("implicit_gemm", "winograd"),
    converts_layout=False,
    keeps_taps=False,
)
