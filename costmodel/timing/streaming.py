"""Time of kernels that stream tensors once: element-wise, copies, reductions, softmax, layer norm.

A kernel takes ``fixed + memory``, unless its arithmetic needs longer. Memory time is bytes over the share of
the pin rate that the memory reaches; a written byte costs more than a read one, because the data bus turns
around. Softmax and layer norm are the kernels of PyTorch's CUDA backend: which one runs depends on the length
of the row. Each constant has its meaning, unit and origin in :class:`StreamingConstants`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from costmodel.timing.machine import GpuMachine

__all__ = [
    "KINDS",
    "LANE_CYCLES",
    "PLAIN_LANE_CYCLES",
    "RATE_CLASSES",
    "STREAMING",
    "KernelTime",
    "StreamingConstants",
    "streaming_time",
]

Bound = Literal["memory", "compute"]


class KernelTime(NamedTuple):
    """Seconds of one kernel on the device, without the host: the whole, its parts, and which part binds.

    ``overlap`` is the exponent of the sum of memory and arithmetic time: 1 where they follow each other, infinite
    where the longer hides the other.
    """

    seconds: float
    memory_s: float
    compute_s: float
    fixed_s: float
    bound: Bound
    overlap: float = math.inf


#: Time over streaming time of kernels that do not walk memory in order [1]: fitted to whole models on RTX 3090 and
#: RTX 4090 (strided copies 1.32-1.34, cat 1.30, sums and means 1.19-1.22, pooling 1.0-1.3). "gather" by analogy.
#: "statistics" of batch norm in training from timm's training steps on an RTX 3090; "columns", sums over rows, set.
RATE_CLASSES: Mapping[str, float] = MappingProxyType(
    {
        "elementwise": 1.0,
        "copy": 1.0,
        "softmax": 1.0,
        "layer_norm": 1.0,
        "quantize_rows": 1.0,
        "reduction": 1.2,
        "statistics": 1.24,
        "columns": 1.5,
        "pooling": 1.2,
        "cat": 1.3,
        "strided": 1.33,
        "gather": 1.45,
        "cache_write": 1.5,
    }
)
#: Lane cycles of an element [1]. Only pow shows in the measurements (P100: 73; V100 at most 65; A100 at most 41);
#: the rest are instruction counts of CUDA's math library, rounded, and stay below the memory time on every GPU here.
LANE_CYCLES: Mapping[str, float] = MappingProxyType({"add": 2, "div": 10, "tanh": 20, "gelu": 30, "pow": 45})
#: The same of any other element-wise operator.
PLAIN_LANE_CYCLES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingConstants:
    """Constants shared by all GPUs; ``benchmarks/fit_ops.py`` reproduces those that are fitted.

    Fitted to the public NeuSight timings of fp32 operators on four GPUs (eager calls above the dispatch floor).
    Errors by operator and GPU, and with constants of the others: reports/fitted_constants.md.

    On A100 and T4 the timings of row kernels fall into two groups by the order of measuring (up to and above 8192
    rows on A100, 4096 on T4), as if the board had changed its clock. Layer norm on the T4 errs by 4.7 / 10.1
    in the first group at the base clock and by 6.1 / 13.7 in the second at the boost clock. No shape tells which;
    the sustained clock lies between.
    """

    #: Cost of a written byte over a read byte [1]: add (2 reads, 1 write) against gelu (1 and 1) over large tensors
    #: gives 1.10 on V100, 1.21 on T4, 1.24 on P100, 0.79 on A100 (whose 40 MB of L2 hold late writes); the median.
    write_cost: float = 1.15
    #: Time of a kernel that keeps a row in the registers of one warp, over its streaming time [1]; rows whose
    #: length is no multiple of 8 elements straddle 32-byte sectors, so warps fetch five sectors for four.
    warp_row_cost: float = 1.06
    warp_row_cost_misaligned: float = 1.13
    #: Longest row that PyTorch's softmax holds in one warp [elements].
    warp_row_limit: int = 1024
    #: Block softmax: per row and 256 threads, and per element, for two re-reads from cache, the exponentials
    #: and the reductions over the block [cycles of a unit that issues four warps a clock].
    block_softmax_row_cycles: float = 340.0
    block_softmax_element_cycles: float = 0.49
    #: Layer norm: per row (Welford reduction over 128 threads) and per element [cycles of the same unit].
    layer_norm_row_cycles: float = 280.0
    layer_norm_element_cycles: float = 0.53
    #: Rows in flight a unit: layer norm starts one block of 128 threads a row; registers admit about eight [1].
    layer_norm_rows_in_flight: int = 8
    #: Layer norm reads a row twice. The second read goes to memory once the rows in flight (bytes read and
    #: written) exceed L2: none below ``reread_from`` of its capacity, all above ``reread_from + reread_span`` [1].
    reread_from: float = 0.72
    reread_span: float = 0.80
    #: Serial latency of a block that walks its row more than once, which neither the first nor the last row hides,
    #: beyond the fixed time of every kernel [cycles].
    block_softmax_latency_cycles: float = 4000.0
    layer_norm_latency_cycles: float = 4000.0
    #: Quantizing a row by its own largest value: a block of 1024 threads walks it twice, two blocks a unit, and waits
    #: for its reduction, whatever the length [cycles of a unit a row]: vLLM's fp8 layers of 128 columns and less,
    #: 1,900 on an H100, 1,970 on an L40S.
    quantize_row_cycles: float = 1900.0
    #: Writing keys and values of a new token to their places in a cache: a block of threads a token [cycles of a unit
    #: a token]: vLLM on A100, L40S and H100 175, 340 and 430, SGLang on an A100 200. Its rate is beside the others.
    cache_token_cycles: float = 250.0
    #: Exponents of the sum of memory and arithmetic time (1: they follow each other, large: they overlap) [1].
    softmax_overlap: float = 1.6
    layer_norm_overlap: float = 2.5
    #: Time over streaming time by how a kernel walks memory [1].
    rates: Mapping[str, float] = field(default_factory=lambda: RATE_CLASSES, hash=False)
    #: Lane cycles of an element by operator, and of any other [1].
    lane_cycles: Mapping[str, float] = field(default_factory=lambda: LANE_CYCLES, hash=False)
    plain_lane_cycles: float = PLAIN_LANE_CYCLES


STREAMING = StreamingConstants()

KINDS = tuple(RATE_CLASSES)


def streaming_time(
    bytes_read: float,
    bytes_written: float,
    *,
    elements: float,
    machine: GpuMachine,
    kind: str = "elementwise",
    rows: float | None = None,
    row_length: int | None = None,
    lane_cycles: float = PLAIN_LANE_CYCLES,
    constants: StreamingConstants = STREAMING,
) -> KernelTime:
    """Time of one streaming kernel.

    ``elements`` are those put out; ``row_length`` [elements] is the normalized length of softmax and layer norm,
    ``rows`` their number (``elements / row_length`` by default). ``lane_cycles`` is the arithmetic of an element,
    see :data:`LANE_CYCLES`. Raises :class:`ValueError` for an unknown ``kind`` and for a row kernel without rows.

    >>> v100 = GpuMachine(unit_count=80, clock_hz=1.38e9, sustained_clock_hz=1.3e9, vector_flop_per_clock=128,
    ...                   dram_bytes_per_s=900e9, l2_bytes=6 * 2**20, dram_fraction=0.925)
    >>> relu = streaming_time(200e6, 200e6, elements=50e6, machine=v100)
    >>> relu.bound, round(400e6 / 900e9 / relu.memory_s, 3)  # 0.925 * (2 + 1.15) / 3 / ((1 + 1.15) / 2)
    ('memory', 0.903)
    """
    if kind not in RATE_CLASSES:
        raise ValueError(f"no streaming kernel is of kind {kind!r}; there are {', '.join(KINDS)}")
    memory = _memory_s(bytes_read, bytes_written, machine, constants) * constants.rates[kind]
    if kind == "softmax":
        rows, row_length = _rows(kind, elements, rows, row_length)
        return _softmax(memory, elements, rows, row_length, machine, constants)
    if kind == "quantize_rows":
        rows, row_length = _rows(kind, elements, rows, row_length)
        later = max(0.0, math.ceil(rows / machine.unit_count) - 1)  # a unit's first row is in the fixed time
        return _overlap(memory, later * constants.quantize_row_cycles / machine.clock_hz, math.inf, machine)
    if kind == "cache_write":
        rows, _ = _rows(kind, elements, rows, row_length)
        return _overlap(
            memory, rows * constants.cache_token_cycles / machine.unit_count / machine.clock_hz, math.inf, machine
        )
    if kind == "layer_norm":
        rows, row_length = _rows(kind, elements, rows, row_length)
        return _layer_norm(memory, bytes_read, bytes_written, elements, rows, row_length, machine, constants)
    return _overlap(memory, elements * lane_cycles / machine.lane_cycles_per_s, math.inf, machine)


def _memory_s(bytes_read: float, bytes_written: float, machine: GpuMachine, constants: StreamingConstants) -> float:
    """Seconds on the memory bus; ``dram_fraction`` is defined where two bytes are read for one written."""
    cost = constants.write_cost
    reads = (bytes_read + cost * bytes_written) * 3 / (2 + cost)
    return reads / (machine.dram_fraction * machine.dram_bytes_per_s)


def _rows(kind: str, elements: float, rows: float | None, row_length: int | None) -> tuple[float, int]:
    if not row_length or row_length < 1:
        raise ValueError(f"{kind} needs row_length, the number of elements that are normalized together")
    return (elements / row_length if rows is None else rows), row_length


def _overlap(
    memory: float, compute: float, exponent: float, machine: GpuMachine, latency_cycles: float = 0.0
) -> KernelTime:
    """The p-norm of memory and arithmetic time (their maximum for an infinite exponent) after the fixed time."""
    longer, shorter = max(memory, compute), min(memory, compute)
    body = longer
    if longer > 0 and exponent != math.inf:
        body = longer * (1 + (shorter / longer) ** exponent) ** (1 / exponent)
    fixed = machine.kernel_fixed_s + latency_cycles / machine.sustained_clock_hz
    return KernelTime(fixed + body, memory, compute, fixed, "memory" if memory >= compute else "compute", exponent)


def _unit_cycles_s(cycles: float, rows: float, machine: GpuMachine) -> float:
    """Seconds for ``cycles`` of issue spread over all units; the last rows leave units idle."""
    tail = math.ceil(rows / machine.unit_count) * machine.unit_count / rows if rows else 1.0
    return cycles * tail * 4 / machine.schedulers_per_unit / machine.unit_count / machine.sustained_clock_hz


def _softmax(
    memory: float, elements: float, rows: float, row_length: int, machine: GpuMachine, c: StreamingConstants
) -> KernelTime:
    """A warp holds a short row in registers; a block walks a long row three times, twice from cache."""
    if row_length <= c.warp_row_limit:
        cost = c.warp_row_cost if row_length % 8 == 0 else c.warp_row_cost_misaligned
        return _overlap(memory * cost, 0.0, math.inf, machine)
    cycles = c.block_softmax_row_cycles * _softmax_block(row_length) / 256 * rows * 32 / machine.warp_size
    cycles += c.block_softmax_element_cycles * elements
    body = _unit_cycles_s(cycles, rows, machine)
    return _overlap(memory, body, c.softmax_overlap, machine, c.block_softmax_latency_cycles)


def _softmax_block(row_length: int) -> int:
    """Threads of PyTorch's block softmax: doubled while below half of the four-element vectors of a row.

    >>> [_softmax_block(n) for n in (1025, 2048, 4096, 50257)]
    [128, 256, 512, 512]
    """
    threads, half = 32, min(row_length // 4, 1024) // 2
    while threads < half:
        threads *= 2
    return threads


def _layer_norm(
    memory: float,
    bytes_read: float,
    bytes_written: float,
    elements: float,
    rows: float,
    row_length: int,
    machine: GpuMachine,
    c: StreamingConstants,
) -> KernelTime:
    """One block a row reads it twice: mean and variance first (Welford), then the normalized output."""
    in_flight = min(rows, machine.unit_count * c.layer_norm_rows_in_flight)
    occupied = in_flight * (bytes_read + bytes_written) / max(rows, 1) / machine.l2_bytes
    missed = min(1.0, max(0.0, (occupied - c.reread_from) / c.reread_span))
    if row_length % 4 or _uneven(row_length):
        missed = 1.0
    memory += missed * _memory_s(bytes_read, 0.0, machine, c)
    cycles = c.layer_norm_row_cycles * rows * 32 / machine.warp_size + c.layer_norm_element_cycles * elements
    body = _unit_cycles_s(cycles, rows, machine)
    return _overlap(memory, body, c.layer_norm_overlap, machine, c.layer_norm_latency_cycles)


def _uneven(row_length: int) -> bool:
    """Whether only some of the 128 threads of a row have a whole last group of four loads of four elements.

    The loop over a row is unrolled by four. Where a row length leaves some threads in the unrolled and some in the
    remaining loop (1537-2047, 3585-4095 elements), A100 and P100 take 1.3 to 1.5 times as long as just outside, as if
    the second read missed every cache; V100 and T4 miss at these lengths anyway.

    >>> [n for n in range(1024, 4200, 512) if _uneven(n + 4)]
    [1536, 3584]
    """
    return 3 * 512 < (row_length - 1) % 2048 + 1 < 4 * 512
