"""GpuMachine: the figures of a GPU that the kernel time models read, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile

__all__ = ["GpuMachine"]

#: Sustained over boost clock where no base clock is known: the mean of A100 PCIe, V100 PCIe and P100 PCIe below.
_SUSTAINED_SHARE = 0.9
#: L2 where a profile has none [B]: the smallest of the GPUs of the last ten years.
_L2_BYTES = 2.0 * 2**20


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
    schedulers_per_unit: int = 4  # warps issued a clock; 2 on GP100 (P100)
    kernel_fixed_cycles: float = 4500.0
    batched_tile_edge: int = 128

    @classmethod
    def from_profile(
        cls, profile: HardwareProfile, *, base_clock_hz: float | None = None, dram_fraction: float | None = None
    ) -> GpuMachine:
        """The machine of a hardware profile; ``dram_fraction`` replaces the profile's own.

        Raises :class:`~costmodel.errors.ProfileError` where the profile has no fp32 vector peak.
        """
        l2 = profile.find_memory_level("l2")
        capability = profile.compute_capability or ""
        return cls(
            unit_count=profile.unit_count,
            clock_hz=profile.clock_hz,
            base_clock_hz=base_clock_hz or profile.base_clock_hz,
            vector_flop_per_clock=profile.peak("vector", "fp32").flop_per_s / profile.unit_count / profile.clock_hz,
            dram_bytes_per_s=profile.dram_bytes_per_s,
            dram_fraction=profile.achievable_dram_fraction if dram_fraction is None else dram_fraction,
            l2_bytes=(l2.capacity_bytes if l2 else None) or _L2_BYTES,
            schedulers_per_unit=2 if capability == "6.0" else 4,
            kernel_fixed_cycles=profile.overheads.kernel_fixed_cycles,
            batched_tile_edge=64 if capability[:2] in ("5.", "6.", "7.") else 128,
        )

    @property
    def sustained_clock_hz(self) -> float:
        """The clock that kernels of SIMT arithmetic see: the geometric mean of base and boost clock.

        A board neither falls to its base clock nor holds its boost clock under load; the wider the two lie
        apart, the tighter its power limit. On fp32 convolutions of four boards (A100, V100, T4, P100; base over
        boost 0.76, 0.89, 0.37, 0.86) this mean halves the spread of the efficiency that the boost clock needs;
        leaving one board out, Winograd errs by 7, 6, 11, 7 % at the median, against 8, 11, 12, 11 % at the boost
        clock and 15, 12, 35, 10 % at the base clock (an earlier fit of the same structure).

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
