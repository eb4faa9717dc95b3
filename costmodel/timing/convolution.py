"""Time of dense 2-d convolutions: implicit GEMM, Winograd and FFT; the fastest eligible algorithm wins.

Each algorithm is a kernel of known geometry: how many blocks its tiles make, how they fill the units (SM), how deep
a block goes, and what it moves through memory. What no shape can tell is in :class:`ConvolutionConstants`.
``engine`` says who multiplies: by default the fp32 lanes (CUDA cores); a tensor core is another rate and tile list
for the same implicit GEMM.

Fitted to public measurements (NeuSight, 3x3 at stride 1) on A100, V100, T4 and P100. DeepBench's real networks
(V100, P100, T4, GTX 1080Ti; all strides and filter sizes) settled one rule, that batches of up to 8 are padded to 8
images and not to 16 by non-fused Winograd; no constant was fitted to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from costmodel.devices.libraries import CUDNN, CUDNN_SIMT_TILES, Tiles
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Convolution, Window
from costmodel.timing.machine import GpuMachine
from costmodel.timing.streaming import Bound

__all__ = [
    "ALGORITHMS",
    "CONVOLUTION",
    "ConvTime",
    "ConvolutionConstants",
    "Engine",
    "convolution_time",
    "eligible",
    "executed_share",
    "simt_engine",
    "window_on_lanes",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionConstants:
    """Constants shared by all GPUs; ``benchmarks/fit_ops.py`` reproduces them.

    Efficiencies are fractions of FLOP/s at the sustained clock of the vector lanes; above 1 the board held a clock
    above that mean. ``lead`` is the time of a block's first, uncovered part in steps of the reduction (pipeline
    fill, epilogue); ``exposed`` the share of one block's time that no other block of the unit hides.

    Errors by GPU and algorithm, with constants of the others, and on DeepBench's networks: reports/fitted_constants.md.
    """

    #: Implicit GEMM: block of tile ``m x n``, depth channels x filter taps.
    gemm_efficiency: float = 1.03
    gemm_lead: float = 33.0
    gemm_exposed: float = 0.70
    #: Fused Winograd F(2x2, 3x3): 32 tiles (4 high, 8 wide, of one image: "tile148" in cuDNN's kernel names) by 32
    #: output channels a block, 16 products each.
    fused_efficiency: float = 0.91
    fused_lead: float = 19.0
    fused_exposed: float = 0.24
    #: Non-fused Winograd F(4x4): transforms through memory around a batched GEMM, batch padded to 16 images.
    #: ``feed`` [elements]: a tile ``m x n`` runs at ``h / (h + feed)`` of the rate, ``h = m n / (m + n)``.
    batched_efficiency: float = 1.0
    batched_lead: float = 21.0
    batched_exposed: float = 0.46
    batched_feed: float = 4.2
    #: Time of the transforms over that of their traffic [1].
    transform_cost: float = 1.06
    #: FFT: efficiency of the complex GEMM, and traffic of the transforms over the least possible [1].
    fft_efficiency: float = 0.90
    fft_transform_cost: float = 1.5


CONVOLUTION = ConvolutionConstants()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Who multiplies: FLOP a clock and unit, bytes of an operand, the tiles its implicit GEMM can choose from.

    ``feed`` [elements] slows small tiles as in :class:`ConvolutionConstants`; none is seen with fp32 lanes.
    """

    flop_per_clock: float
    clock_hz: float
    element_bytes: int = 4
    tiles: Tiles = CUDNN_SIMT_TILES
    feed: float = 0.0


@lru_cache(maxsize=256)  # more than there are profiles
def simt_engine(machine: GpuMachine) -> Engine:
    """The fp32 lanes of ``machine`` at its sustained clock."""
    return Engine(
        flop_per_clock=machine.vector_flop_per_clock,
        clock_hz=machine.sustained_clock_hz,
        tiles=machine.convolutions.tiles,
    )


class ConvTime(NamedTuple):
    """Seconds of a convolution on the device: the winner's, its parts, and what every candidate would take.

    ``seconds`` is the larger of ``compute_s`` and ``memory_s``, then ``transform_s`` and ``fixed_s``. ``tile`` is the
    part of the winner's products that one block makes, in elements: rows by columns.
    """

    algorithm: str
    seconds: float
    memory_s: float
    transform_s: float
    compute_s: float
    fixed_s: float
    bound: Bound
    candidates: Mapping[str, float]
    tile: tuple[int, int] = (0, 0)


class _Parts(NamedTuple):
    """One algorithm: the larger of ``compute_s`` and ``memory_s``, then ``transform_s``, over ``kernels`` launches."""

    compute_s: float
    memory_s: float
    tile: tuple[int, int]
    transform_s: float = 0.0
    kernels: int = 1


class _Problem:
    """A convolution on an engine of a machine: what every algorithm asks of the two."""

    __slots__ = ("byte_s", "c", "compulsory_s", "engine", "height", "machine", "shape", "unit_flop_per_s", "width")

    def __init__(self, shape: Window, machine: GpuMachine, engine: Engine, constants: ConvolutionConstants) -> None:
        self.shape, self.machine, self.engine, self.c = shape, machine, engine, constants
        self.height, self.width = shape.out_size
        self.unit_flop_per_s = engine.flop_per_clock * engine.clock_hz
        self.byte_s = engine.element_bytes / (machine.dram_fraction * machine.dram_bytes_per_s)  # of one element
        image = shape.in_channels * shape.height * shape.width + shape.out_channels * self.height * self.width
        filters = shape.out_channels * shape.in_channels // shape.groups * shape.kernel[0] * shape.kernel[1]
        self.compulsory_s = self.byte_s * (shape.batch * image + filters)

    def gemm_s(
        self, rows: int, columns: int, depth: float, batch: int, tiles: Tiles, feed: float, exposed: float
    ) -> tuple[float, tuple[int, int]]:
        """Seconds at full rate of ``batch`` products (rows x depth) by (depth x columns), with the best tile."""
        units, best, tile = self.machine.unit_count, math.inf, (0, 0)
        for m, n in tiles:
            blocks = batch * -(-rows // m) * -(-columns // n)
            work = (-(-blocks // units) + exposed) * (m * n + feed * (m + n))
            if work < best:
                best, tile = work, (m, n)
        return best * 2 * depth / self.unit_flop_per_s, tile

    def transformed(self, compute_s: float, tile: tuple[int, int], points: int, tiles: int, cost: float) -> _Parts:
        """``points`` GEMMs of (tiles x in) by (in x out), whose operands and results pass through memory.

        The transforms of input, filters and output are kernels before and after.
        """
        channels = self.shape.in_channels + self.shape.out_channels
        filters = self.shape.in_channels * self.shape.out_channels
        through_s = self.byte_s * points * (tiles * channels + filters)
        return _Parts(compute_s, through_s, tile, cost * (through_s + self.compulsory_s), kernels=4)


def _implicit_gemm(p: _Problem) -> _Parts:
    """One GEMM: N P Q output positions by output channels, over input channels x taps, gathered on the fly."""
    shape, c = p.shape, p.c
    depth = shape.in_channels // shape.groups * shape.kernel[0] * shape.kernel[1] + c.gemm_lead
    positions, columns = shape.batch * p.height * p.width, shape.out_channels // shape.groups
    compute, tile = p.gemm_s(positions, columns, depth, shape.groups, p.engine.tiles, p.engine.feed, c.gemm_exposed)
    return _Parts(compute / c.gemm_efficiency, p.compulsory_s, tile)


def _winograd(p: _Problem) -> _Parts:
    """Fused F(2x2, 3x3): 16 multiplications for 4 outputs; transforms stay in the block.

    A block covers 4 by 8 tiles, 8 by 16 output positions, of one image: small maps leave most of it empty.
    """
    shape, c = p.shape, p.c
    blocks = shape.batch * -(-p.height // 8) * -(-p.width // 16) * -(-shape.out_channels // 32)
    flop = 2 * 16 * 32 * 32 * (shape.in_channels + c.fused_lead)
    rounds = -(-blocks // p.machine.unit_count) + c.fused_exposed
    return _Parts(rounds * flop / (p.unit_flop_per_s * c.fused_efficiency), p.compulsory_s, (32, 32))


def _winograd_nonfused(p: _Problem) -> _Parts:
    """F(4x4, r x r): transform input and filters, (4 + r - 1)^2 GEMMs in one batch, transform the output."""
    shape, c = p.shape, p.c
    points = (shape.kernel[0] + 3) ** 2
    gemm_tiles = p.machine.convolutions.winograd_tiles
    images = 8 if shape.batch <= 8 else 16 * -(-shape.batch // 16)
    tiles = images * -(-p.height // 4) * -(-p.width // 4)
    depth = shape.in_channels + c.batched_lead
    compute, tile = p.gemm_s(tiles, shape.out_channels, depth, points, gemm_tiles, c.batched_feed, c.batched_exposed)
    return p.transformed(compute / c.batched_efficiency, tile, points, tiles, c.transform_cost)


def _fft(p: _Problem) -> _Parts:
    """Real FFT of 16x16 (whole images only) or overlapping 32x32 tiles, a complex GEMM for each frequency."""
    shape, c = p.shape, p.c
    halo_h, halo_w = shape.kernel[0] - 1, shape.kernel[1] - 1
    size = 16 if max(p.height + halo_h, p.width + halo_w) <= 16 else 32
    tiles = shape.batch * -(-p.height // (size - halo_h)) * -(-p.width // (size - halo_w))
    frequencies = size * (size // 2 + 1)
    blocks = frequencies * -(-tiles // 32) * -(-shape.out_channels // 32)
    flop = 8 * 32 * 32 * shape.in_channels  # a complex multiply-add is four real ones
    compute = -(-blocks // p.machine.unit_count) * flop / (p.unit_flop_per_s * c.fft_efficiency)
    return p.transformed(compute, (32, 32), 2 * frequencies, tiles, c.fft_transform_cost)


ALGORITHMS: Mapping[str, Callable[[_Problem], _Parts]] = MappingProxyType(
    {
        "implicit_gemm": _implicit_gemm,
        "winograd": _winograd,
        "winograd_nonfused": _winograd_nonfused,
        "fft": _fft,
    }
)


def executed_share(algorithm: str, shape: Window) -> float:
    """FLOP that an algorithm multiplies and adds, over those of the convolution that it stands for [1].

    F(2x2, 3x3) takes 16 products for 4 outputs of 9 taps, F(4x4, r x r) (r + 3)^2 for 16 outputs of r^2; of a Fourier
    transform of 32 x 32 points, 17 x 32 complex products (4 each) for the outputs that it leaves.

    >>> conv = Window(batch=8, in_channels=64, height=56, width=56, out_channels=64, kernel=(3, 3), padding=(1, 1))
    >>> [round(executed_share(name, conv), 3) for name in ("winograd", "winograd_nonfused", "implicit_gemm")]
    [0.444, 0.25, 1.0]
    """
    height, width = shape.kernel
    if algorithm == "winograd":
        return 16 / 36
    if algorithm == "winograd_nonfused":
        return (height + 3) ** 2 / (16 * height * width)
    if algorithm == "fft":
        return 4 * 32 * 17 / ((33 - height) * (33 - width) * height * width)
    return 1.0


def window_on_lanes(kernel: Kernel) -> Window | None:
    """The window of a convolution that runs on vector lanes by one of these algorithms; None for what runs as a matrix
    product, on matrix units or in double precision."""
    shape = kernel.shape
    product = kernel.engine == "matrix" or kernel.dtype == "fp64"
    return shape.window if isinstance(shape, Convolution) and not product else None


def eligible(shape: Window, offered: Collection[str] = CUDNN.algorithms) -> tuple[str, ...]:
    """Algorithms that a library which has those ``offered`` takes in fp32 for this shape.

    >>> stem = Window(batch=1, in_channels=3, height=224, width=224, out_channels=64, kernel=(7, 7), stride=(2, 2))
    >>> eligible(stem)
    ('implicit_gemm',)
    """
    names = ["implicit_gemm"]
    height, width = shape.kernel
    if shape.stride == shape.dilation == (1, 1) and shape.groups == 1:
        if (height, width) == (3, 3):
            names.append("winograd")
        if height == width and height in (3, 5):
            names.append("winograd_nonfused")
        if 1 < max(height, width) <= 32:
            names.append("fft")
    return tuple(name for name in names if name in offered)


def convolution_time(
    shape: Window,
    *,
    machine: GpuMachine,
    algorithms: tuple[str, ...] | None = None,
    engine: Engine | None = None,
    constants: ConvolutionConstants = CONVOLUTION,
) -> ConvTime:
    """Time of a convolution by the fastest of ``algorithms`` (default: all that are eligible).

    ``engine`` defaults to the fp32 lanes; Winograd and FFT are kernels of those alone, so with another engine
    only implicit GEMM is tried. Grouped convolutions are ``groups`` small GEMMs: right for a few wide groups,
    too slow for depthwise, which has kernels of its own. Raises :class:`ValueError` for an algorithm that does
    not exist or is not eligible.

    >>> v100 = GpuMachine(unit_count=80, clock_hz=1.38e9, sustained_clock_hz=1.3e9, vector_flop_per_clock=128,
    ...                   dram_bytes_per_s=900e9, l2_bytes=6 * 2**20, dram_fraction=0.925)
    >>> conv = Window(batch=8, in_channels=64, height=56, width=56, out_channels=64, kernel=(3, 3), padding=(1, 1))
    >>> convolution_time(conv, machine=v100).algorithm
    'winograd'
    """
    allowed = eligible(shape, machine.convolutions.algorithms) if engine is None else ("implicit_gemm",)
    chosen = allowed if algorithms is None else algorithms
    if not chosen or not set(chosen) <= set(allowed):
        raise ValueError(
            f"asked for {', '.join(chosen) or 'no algorithm'}; this convolution can use {', '.join(allowed)}"
        )
    engine = engine or simt_engine(machine)
    problem = _Problem(shape, machine, engine, constants)
    parts = {name: ALGORITHMS[name](problem) for name in chosen}
    seconds = {name: _seconds(part, machine) for name, part in parts.items()}
    best = min(seconds, key=seconds.__getitem__)
    part = parts[best]
    return ConvTime(
        best,
        seconds[best],
        part.memory_s,
        part.transform_s,
        part.compute_s,
        part.kernels * machine.kernel_fixed_s,
        "compute" if part.compute_s >= part.memory_s + part.transform_s else "memory",
        seconds,
        part.tile,
    )


def _seconds(part: _Parts, machine: GpuMachine) -> float:
    return max(part.compute_s, part.memory_s) + part.transform_s + part.kernels * machine.kernel_fixed_s
