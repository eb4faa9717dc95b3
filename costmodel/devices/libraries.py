"""Kernels that libraries hold, by tiles and shares of the peak; a generation says which are its own."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CUBLAS_MATRIX",
    "CUBLAS_MATRIX_TILES",
    "CUBLAS_SIMT",
    "CUBLAS_SIMT_TILES",
    "CUDNN",
    "CUDNN_BEFORE_AMPERE",
    "CUDNN_SIMT_TILES",
    "ONEDNN_AVX2",
    "ONEDNN_AVX512",
    "WGMMA",
    "ConvolutionKernels",
    "CpuConvolutions",
    "ProductKernels",
    "Tiles",
]

#: Tiles (rows, columns) of a kernel's result [elements].
Tiles = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductKernels:
    """Kernels of matrix products on one kind of unit.

    ``tiles`` and ``batched_tiles`` are what a library can choose from, for one product and for a batch of them;
    ``efficiency`` and ``batched_efficiency`` the share of the peak that the inner loop of a large tile reaches [1]. For
    FMA lanes that is before the feed of tiles through shared memory (7 % for 128x128), which can bring a figure above
    1 below the peak again.

    How a generation's kernels differ from those that the shared constants describe (``GemmConstants`` of
    :mod:`costmodel.timing.gemm`), each over the figure there [1]: ``start`` the fixed time of a kernel,
    ``step_latency`` the least time of one element of k, ``operand_rate`` the rate at which operands come from L2,
    ``result_rate`` the rate at which a unit writes a finished tile.
    """

    tiles: Tiles
    batched_tiles: Tiles
    efficiency: float = 1.0
    batched_efficiency: float = 1.0
    start: float = 1.0
    step_latency: float = 1.0
    operand_rate: float = 1.0
    result_rate: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionKernels:
    """Kernels of fp32 convolutions on FMA lanes: tiles (output positions, output channels) of implicit GEMM, those of
    the batched products of non-fused Winograd, and the algorithms that the library offers."""

    tiles: Tiles
    winograd_tiles: Tiles
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
