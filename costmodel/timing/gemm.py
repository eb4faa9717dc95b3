"""Time of a matrix product C[m, n] = A[m, k] B[k, n] on a GPU, from its tiles.

A library holds kernels of many tile shapes and picks one that it expects to be fast. So does this model: for each
tile, and for each useful split of k, it computes

    seconds = fixed + split + (compute^p + memory^p)^(1/p)

and takes the smallest. ``compute`` is the busiest unit's inner loop (matrix or FMA rate, against the rate at which
L2 feeds operands, against the latency of one step in k) plus the writing of its tiles; ``memory`` is the traffic with
DRAM. Partial waves, narrow outputs and short k then cost what they cost without any correction. Every constant has
its meaning, unit and origin in :class:`GemmConstants`; ``benchmarks/fit_gemm.py`` reproduces them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from costmodel.devices.libraries import Tiles
from costmodel.timing.gemm_machine import GemmEngine, GemmMachine

__all__ = ["GEMM", "GemmConstants", "GemmTime", "gemm_time", "missing_share"]

Bound = Literal["compute", "memory", "fixed"]

#: Rounds of tiles over the units that a split of k may fill.
_FILLS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # hashed by identity: caches ask often
class GemmConstants:
    """Constants shared by all GPUs; ``benchmarks/fit_gemm.py`` reproduces them and prints the errors.

    Fitted to public bf16 timings (AIConfigurator, graph replay) of A100 and L40S together; in brackets what each
    device alone gives (A100 | L40S). Median and 90th percentile of the error over all 72 364 rows: 6.1 / 17.2 % on
    the A100 and 6.2 / 20.5 % on the L40S; with constants from the other device alone 6.7 / 19.5 % and 7.6 / 22.3 %.
    What belongs to FMA lanes is from NeuSight's fp32 linear and bmm. "Set" means chosen, not fitted.
    """

    #: DRAM rate of operand streams over that of long element-wise kernels [1] (0.87 | 0.96).
    stream_share: float = 0.94
    #: Start, first loads and drain of one kernel [clock cycles]: 3.1 µs at 1.41 GHz, 1.75 at 2.52 (4270 | 4430).
    fixed_cycles: float = 4400.0
    #: L2 rate that operand loads reach over that of a read micro-benchmark, all units together [1] (0.64 | 0.62).
    l2_share: float = 0.62
    #: How far above its even share of the L2 rate a single unit can load while others idle [1]; set.
    l2_unit_burst: float = 1.5
    #: Exponent of the sum of multiply and operand-feed time of the loop [1]; set: nearly the larger of the two.
    feed_overlap: float = 6.0
    #: Exponent of the sum of compute and DRAM time of the kernel [1] (4.2 | 3.2).
    memory_overlap: float = 3.3
    #: Least time of one element of k in one tile: barriers and load latency over the depth of the stages
    #: [clock cycles] (7.6 | 6.4).
    k_latency_cycles: float = 6.8
    #: Rate at which one unit writes a finished tile, not overlapped with its own loop [B/clock] (9.7 | 8.3).
    epilogue_bytes_per_cycle: float = 9.3
    #: Second kernel that adds up the parts of a split k [clock cycles] (4000 | 5670).
    split_fixed_cycles: float = 4750.0
    #: Traffic of the fp32 parts of a split [passes at the L2 rate]: of parts within one round of tiles (0.51 | 0.16),
    #: and of more rounds, where they are written and read in full; the latter set (fitted: 1.75).
    split_passes: float = 0.26
    split_wave_passes: float = 2.0
    #: Shortest part of k that a split pays for [elements], and most parts [1]; set.
    split_min_k: int = 64
    split_max: int = 32
    #: Share of L2 that a repeated set of operands fills without misses [1], and the growth of the set beyond, over
    #: the capacity, until all of it misses [1]. Only L40S data lie near the edge; 1 and 0.1 would be the guess.
    l2_usable: float = 0.967
    l2_fade: float = 0.126
    #: Matrix-vector kernels: share of DRAM's rate, as stream_share [1], set to the 0.88 of the pin rate of A100 and
    #: L40S; fixed time [clock cycles] (5330 | 4890); passes of the matrix at the micro-benchmark's L2 rate (3.2 | 3.1).
    gemv_stream_share: float = 1.05
    gemv_fixed_cycles: float = 5000.0
    gemv_passes: float = 2.8
    #: FMA lanes read operands from shared memory: loop time grows by this over the harmonic edge
    #: rows * columns / (rows + columns) of the tile [elements]: 7 % for 128x128, 29 % for 32x32.
    simt_feed: float = 4.6
    #: Toll of address translation on rows far apart, over the loop time [1]; Pascal only.
    row_toll: float = 1.5
    #: Toll on rows that all fall on one channel of memory, over the loop time [1], where a generation has it: rows of
    #: 256 KiB multiply at a third of the rate on an MI100 (9 to 11 of 30 TFLOP/s), rows of 128 KiB at 0.75 of it.
    channel_toll: float = 2.0


GEMM = GemmConstants()


class GemmTime(NamedTuple):
    """Seconds of one product on the device, without the host, its parts, and how it runs.

    ``compute_s`` and ``memory_s`` overlap; ``fixed_s`` (with the second kernel of a split) adds to them. ``tile`` is
    (m, n) in elements, (0, 0) for a matrix-vector kernel; ``waves`` counts the tiles of the busiest unit;
    ``efficiency`` is FLOP over what the engine's peak would do in ``seconds``.
    """

    seconds: float
    compute_s: float
    memory_s: float
    fixed_s: float
    tile: tuple[int, int]
    waves: int
    split_k: int
    bound: Bound
    efficiency: float


@dataclass(frozen=True, slots=True)
class _Tile:
    """What a tile costs per element of k and per wave, in clock cycles of the engine."""

    rows: int
    columns: int
    multiply: float
    feed: float
    epilogue: float
    slowest: float  # one tile alone on its unit: latency, and what a unit can load while others idle
    has_half_rows: bool
    has_half_columns: bool


def gemm_time(
    m: int,
    n: int,
    k: int,
    batch: int = 1,
    *,
    dtype: str = "bf16",
    hw: GemmMachine,
    bytes_cold: bool = True,
    reuse_bytes: tuple[float, float] | None = None,
    traffic_bytes: float | None = None,
    row_reuse: float = 1.0,
    constants: GemmConstants = GEMM,
) -> GemmTime:
    """Time of ``batch`` products of A[m, k] and B[k, n] in one kernel.

    ``dtype`` names the operands; products of ``fp32`` use FMA lanes where the machine has no fp32 matrix engine,
    ``tf32`` says that they may be rounded. ``bytes_cold``: operands come from DRAM and the result goes there; False:
    all three lie in L2 as far as they fit. ``reuse_bytes`` says it exactly: bytes touched between two uses of
    (A and C, B); ``traffic_bytes`` gives the DRAM traffic itself, where operands are formed on chip (implicit GEMM).
    ``row_reuse`` is how often a tile reads each element of A on end, all but the first time from the cache of its
    unit: the taps of a filter's row in an implicit GEMM.
    Raises :class:`ProfileError` where the machine has no engine for ``dtype``, ValueError for sizes below 1.

    >>> from costmodel.devices.libraries import CUBLAS_MATRIX
    >>> engine = GemmEngine(flop_per_clock=2048, clock_hz=1.41e9, matrix=True, element_bytes=2, kernels=CUBLAS_MATRIX)
    >>> a100 = GemmMachine(unit_count=108, clock_hz=1.41e9, dram_bytes_per_s=2039e9, l2_bytes=20 * 2**20,
    ...                    l2_bytes_per_s=5405e9, engines={"bf16": engine})
    >>> square = gemm_time(8192, 8192, 8192, hw=a100)
    >>> square.bound, square.tile, square.split_k, square.waves     # 32 x 64 tiles over 108 units
    ('compute', (256, 128), 1, 19)
    >>> gemm_time(1, 8192, 8192, hw=a100).bound                     # streams 134 MB of weights
    'memory'
    >>> gemm_time(64, 64, 16384, hw=a100).split_k > 8               # one tile would leave 107 units idle
    True
    """
    if min(m, n, k, batch) < 1:
        raise ValueError(f"sizes of a matrix product must be at least 1, not m={m}, n={n}, k={k}, batch={batch}")
    engine = hw.engine(dtype)
    if traffic_bytes is not None:
        memory_s = traffic_bytes / hw.dram_rate(constants.stream_share * engine.kernels.stream_rate)
    else:
        memory_s = _memory_s(m, n, k, batch, engine, hw, bytes_cold, reuse_bytes, constants)
    if batch == 1 and min(m, n) == 1:
        memory_s *= hw.dram_rate(constants.stream_share) / hw.dram_rate(constants.gemv_stream_share)
        found = _vector_product(max(m, n), k, memory_s, engine, hw, constants)
    else:
        found = _best(m, n, k, batch, memory_s, row_reuse, engine, hw, constants)
    return _finish(found, 2.0 * m * n * k * batch, engine, hw)


#: seconds, compute, memory, fixed, tile, waves, split
_Run = tuple[float, float, float, float, tuple[int, int], int, int]


def missing_share(distance: float, hw: GemmMachine, constants: GemmConstants = GEMM) -> float:
    """The share of operands that have left L2 when ``distance`` bytes have been touched since [1]."""
    if not hw.l2_bytes:
        return 1.0
    return min(1.0, max(0.0, (distance / hw.l2_bytes / constants.l2_usable - 1) / constants.l2_fade))


def _memory_s(
    m: int,
    n: int,
    k: int,
    batch: int,
    engine: GemmEngine,
    hw: GemmMachine,
    bytes_cold: bool,
    reuse_bytes: tuple[float, float] | None,
    constants: GemmConstants,
) -> float:
    size, weight_size = engine.operand_bytes
    result = m * n * max(size, 2) * batch  # fp8 and int8 products are stored wider
    a_and_c, b = m * k * size * batch + result, k * n * weight_size * batch
    if reuse_bytes is not None:
        missing_a, missing_b = (missing_share(distance, hw, constants) for distance in reuse_bytes)
    else:
        missing_a = missing_b = 1.0 if bytes_cold else missing_share(a_and_c + b, hw, constants)
    rate = hw.dram_rate(constants.stream_share * engine.kernels.stream_rate)
    return (a_and_c * missing_a + b * missing_b) / rate


def _l2_rate(engine: GemmEngine, hw: GemmMachine, constants: GemmConstants) -> float:
    """The rate at which the kernels of an engine load from L2, all units together [B/s]."""
    return hw.l2_bytes_per_s * constants.l2_share * engine.kernels.operand_rate


@lru_cache(maxsize=4096)  # some for each of all machines
def _tiles(
    hw: GemmMachine, engine: GemmEngine, shapes: Tiles, batched: bool, row_reuse: float, constants: GemmConstants
) -> tuple[_Tile, ...]:
    kernels = engine.kernels
    per_unit = _l2_rate(engine, hw, constants) / engine.clock_hz / hw.unit_count  # [B/clock]
    efficiency = kernels.batched_efficiency if batched else kernels.efficiency
    tiles = []
    for rows, columns in shapes:
        multiply = 2 * rows * columns / engine.flop_per_clock / efficiency
        if not engine.matrix:
            multiply *= 1 + constants.simt_feed * (rows + columns) / (rows * columns)
        # Two units of a cluster share one operand: (rows + columns / 2) each, for the wider one.
        size, weight_size = engine.operand_bytes
        loaded = size * rows / row_reuse, weight_size * columns
        feed = (max(loaded) / hw.multicast + min(loaded) if engine.matrix else sum(loaded)) / per_unit
        # SGEMM keeps two blocks on a unit, so that one writes while the other multiplies.
        written = kernels.result_rate * constants.epilogue_bytes_per_cycle
        epilogue = max(engine.element_bytes, 2) * rows * columns / written
        tiles.append(
            _Tile(
                rows=rows,
                columns=columns,
                multiply=multiply,
                feed=feed,
                epilogue=(epilogue if engine.matrix else 0.0) + kernels.tile_start,
                slowest=max(kernels.step_latency * constants.k_latency_cycles, feed / constants.l2_unit_burst),
                has_half_rows=(rows // 2, columns) in shapes,
                has_half_columns=(rows, columns // 2) in shapes,
            )
        )
    return tuple(tiles)


@lru_cache(maxsize=16384)
def _best(
    m: int,
    n: int,
    k: int,
    batch: int,
    memory_s: float,
    row_reuse: float,
    engine: GemmEngine,
    hw: GemmMachine,
    constants: GemmConstants,
) -> _Run:
    """The fastest tile and split. What cannot beat the best so far is left out before it is worked out."""
    units, clock = hw.unit_count, engine.clock_hz
    step = 32 if engine.matrix else 8  # depth of one stage [elements of k]
    whole_k = -(-k // step) * step
    toll = _row_toll(k, engine, hw, constants)
    fixed = engine.kernels.start * constants.fixed_cycles / hw.clock_hz
    power, overlap = constants.feed_overlap, constants.memory_overlap
    kernels = engine.kernels
    most = 1 if batch > 1 or not kernels.splits else min(constants.split_max, -(-k // constants.split_min_k))
    most_count = _FILLS[-1] * units if most > 1 else 0  # beyond, tiles alone fill the units
    split_fixed = fixed + kernels.split_start * constants.split_fixed_cycles / hw.clock_hz
    best: _Run | None = None
    limit = math.inf  # seconds of the best
    for tile in _tiles(hw, engine, kernels.tiles_for(m, batch), batch > 1, row_reuse, constants):
        rows, columns = tile.rows, tile.columns
        if (rows >= 2 * m and tile.has_half_rows) or (columns >= 2 * n and tile.has_half_columns):
            continue  # half the tile does as much
        count = -(-m // rows) * -(-n // columns) * batch
        rounds = -(-count // units)
        feed = count / units * tile.feed
        even = count / units * tile.multiply  # spread over all units without remainder, by any split
        least = (even if even > feed else feed) * k / clock
        if (least if least > memory_s else memory_s) + fixed >= limit:
            continue
        multiply = rounds * tile.multiply * toll
        slowest = max(multiply, feed, rounds * tile.slowest)
        compute = (slowest * whole_k + rounds * tile.epilogue) / clock  # at least: the sum of two comes below
        if (compute if compute > memory_s else memory_s) + fixed < limit:
            loop = max((multiply**power + feed**power) ** (1 / power), slowest)
            compute = (loop * whole_k + rounds * tile.epilogue) / clock
            seconds = fixed + _join(compute, memory_s, overlap)
            if seconds < limit:
                best, limit = (seconds, compute, memory_s, fixed, (rows, columns), rounds, 1), seconds
        if count < most_count and compute / most + split_fixed < limit:
            run = _split(m, n, k, count, tile, most, compute, memory_s, limit, step, toll, engine, hw, constants)
            if run is not None:
                best, limit = run, run[0]
    assert best is not None, "no tile"  # noqa: S101 - for the type checker
    return best


def _split(
    m: int,
    n: int,
    k: int,
    count: int,
    tile: _Tile,
    most: int,
    whole_s: float,
    memory_s: float,
    limit: float,
    step: int,
    toll: float,
    engine: GemmEngine,
    hw: GemmMachine,
    constants: GemmConstants,
) -> _Run | None:
    """The best split of k of one tile, where one beats ``limit`` seconds; ``whole_s`` is its compute time unsplit."""
    units, clock = hw.unit_count, engine.clock_hz
    power = constants.feed_overlap
    kernels = engine.kernels
    cycles = kernels.start * constants.fixed_cycles + kernels.split_start * constants.split_fixed_cycles
    fixed = cycles / hw.clock_hz
    if max(whole_s / most, memory_s) + fixed >= limit:
        return None
    pass_s = 4.0 * m * n / _l2_rate(engine, hw, constants)  # fp32 parts, once
    best: _Run | None = None
    tried = 1
    for fills in _FILLS:
        split = min(most, fills * units // count)
        if split <= tried:
            continue
        tried = split
        passes = constants.split_passes if fills == 1 else constants.split_wave_passes
        start = fixed + passes * split * pass_s
        if max(whole_s / split, memory_s) + start >= limit:
            continue
        parts = count * split
        rounds = -(-parts // units)
        multiply, feed = rounds * tile.multiply * toll, parts / units * tile.feed
        loop = (multiply**power + feed**power) ** (1 / power)
        loop = max(loop, rounds * tile.slowest)
        written = rounds * tile.epilogue * 2 * constants.split_passes
        # Not below the least part, though it may end beyond k: so a longer k never takes less time.
        part = max(constants.split_min_k, math.ceil(k / split / step) * step)
        compute = (loop * part + written) / clock
        seconds = start + _join(compute, memory_s, constants.memory_overlap)
        if seconds < limit:
            limit, best = seconds, (seconds, compute, memory_s, start, (tile.rows, tile.columns), rounds, split)
    return best


def _join(one: float, other: float, power: float) -> float:
    """Two times that overlap: their power mean, between the larger and the sum."""
    small, large = (one, other) if one < other else (other, one)
    return large * (1 + (small / large) ** power) ** (1 / power) if large else 0.0


def _row_toll(k: int, engine: GemmEngine, hw: GemmMachine, constants: GemmConstants) -> float:
    """How rows ``k`` elements apart stretch the loop; both operands of a linear layer have such rows."""
    pitch = k * engine.element_bytes
    toll = 1.0
    if hw.row_reach_bytes is not None:
        toll += constants.row_toll / (1 + (hw.row_reach_bytes / pitch) ** 3)
    if hw.channel_period_bytes is not None:
        shared = math.gcd(int(pitch), hw.channel_period_bytes) / hw.channel_period_bytes
        toll += constants.channel_toll * shared**2
    return toll


def _vector_product(
    n: int, k: int, memory_s: float, engine: GemmEngine, hw: GemmMachine, constants: GemmConstants
) -> _Run:
    """One row times a matrix: a kernel without tiles that streams the matrix through L2."""
    stream = constants.gemv_passes * n * k * min(engine.operand_bytes) / hw.l2_bytes_per_s
    compute = max(stream, 2.0 * n * k / (engine.flop_per_clock * engine.clock_hz * hw.unit_count))
    fixed = constants.gemv_fixed_cycles * engine.kernels.vector_start / hw.clock_hz
    return fixed + _join(compute, memory_s, constants.feed_overlap), compute, memory_s, fixed, (0, 0), 1, 1


def _finish(run: _Run, flop: float, engine: GemmEngine, hw: GemmMachine) -> GemmTime:
    seconds, compute, memory, fixed, tile, waves, split = run
    bound: Bound = "fixed" if fixed >= max(compute, memory) else "compute" if compute >= memory else "memory"
    peak = engine.flop_per_clock * engine.clock_hz * hw.unit_count
    return GemmTime(seconds, compute, memory, fixed, tile, waves, split, bound, flop / peak / seconds)
