"""GpuMachine: the figures of a GPU that the kernel time models read, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["GpuMachine"]

#: Sustained over boost clock where no base clock is known: the mean of A100 PCIe, V100 PCIe and P100 PCIe below.
_SUSTAINED_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMachine:
    """One GPU, for the time of kernels; all but ``dram_fraction``, fixed cycles and tile edge stand on datasheets.

    ``unit_count`` streaming multiprocessors (SM; CU on AMD) at ``clock_hz`` (boost);
    ``vector_flop_per_clock`` is fp32 FLOP a clock and unit (2 per lane). ``dram_fraction`` is the share of
    the pin rate that a large kernel reaches which reads two bytes for each byte written. ``batched_tile_edge``
    is the smallest tile edge of the libraries' batched fp32 GEMM: 128 on Ampere and later, 64 before.
    """

    unit_count: int
    clock_hz: float
    vector_flop_per_clock: float
    dram_bytes_per_s: float  # pin rate
    l2_bytes: float
    base_clock_hz: float | None = None
    dram_fraction: float = 0.85
    threads_per_unit: int = 2048
    schedulers_per_unit: int = 4  # warps issued a clock; 2 on GP100 (P100)
    kernel_fixed_cycles: float = 4500.0
    batched_tile_edge: int = 128

    @property
    def sustained_clock_hz(self) -> float:
        """The clock that kernels of SIMT arithmetic see: the geometric mean of base and boost clock.

        A board neither falls to its base clock nor holds its boost clock under load; the wider the two lie
        apart, the tighter its power limit. On fp32 convolutions of four boards (A100, V100, T4, P100; base over
        boost 0.76, 0.89, 0.37, 0.86) this mean halves the spread of the efficiency that the boost clock needs;
        leaving one board out, Winograd errs by 7, 6, 11, 7 % at the median, against 8, 11, 12, 11 % at the boost
        clock and 15, 12, 35, 10 % at the base clock.

        >>> t4 = GpuMachine(unit_count=40, clock_hz=1.59e9, base_clock_hz=0.585e9, vector_flop_per_clock=128,
        ...                 dram_bytes_per_s=320e9, l2_bytes=4 * 2**20)
        >>> round(t4.sustained_clock_hz / 1e9, 3)
        0.964
        """
        if self.base_clock_hz is None:
            return _SUSTAINED_SHARE * self.clock_hz
        return math.sqrt(self.base_clock_hz * self.clock_hz)

    @property
    def vector_flop_per_s(self) -> float:
        """fp32 FLOP/s of all units at the sustained clock."""
        return self.unit_count * self.vector_flop_per_clock * self.sustained_clock_hz

    @property
    def lane_cycles_per_s(self) -> float:
        """fp32 lanes of all units times the sustained clock: simple instructions a second."""
        return self.vector_flop_per_s / 2

    @property
    def kernel_fixed_s(self) -> float:
        """Start, fill and drain of one kernel."""
        return self.kernel_fixed_cycles / self.clock_hz
