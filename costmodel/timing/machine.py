"""GpuMachine: the figures of a GPU that the kernel time models read, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from costmodel.devices.libraries import CUDNN, ConvolutionKernels
from costmodel.timing.clock import CLOCK, Clock, ClockConstants

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile

__all__ = ["GpuMachine"]

#: L2 where a profile has none [B]: the smallest of the GPUs of the last ten years.
_L2_BYTES = 2.0 * 2**20


@dataclass(frozen=True, kw_only=True, eq=False)  # hashed by identity: caches ask often; without slots, to keep rates
class GpuMachine:
    """One GPU, for the time of kernels; all but ``dram_fraction`` and fixed cycles stand on datasheets.

    ``unit_count`` streaming multiprocessors (SM; CU on AMD) at ``clock_hz`` (boost), ``sustained_clock_hz`` under
    SIMT load; ``vector_flop_per_clock`` is fp32 FLOP a clock and unit (2 per lane). ``dram_fraction`` is the share of
    the pin rate that a large kernel reaches which reads two bytes for each byte written.
    """

    unit_count: int
    clock_hz: float
    sustained_clock_hz: float
    vector_flop_per_clock: float
    dram_bytes_per_s: float  # pin rate
    l2_bytes: float
    dram_fraction: float = 0.85
    schedulers_per_unit: int = 4  # warps of 32 lanes issued a clock
    warp_size: int = 32  # lanes that reduce together
    kernel_fixed_cycles: float = 4500.0
    convolutions: ConvolutionKernels = CUDNN

    @classmethod
    def from_profile(cls, profile: HardwareProfile, constants: ClockConstants = CLOCK) -> GpuMachine:
        """The machine of a hardware profile.

        Raises :class:`~costmodel.errors.ProfileError` where the profile has no fp32 vector peak or is no GPU.
        """
        l2 = profile.find_memory_level("l2")
        return cls(
            unit_count=profile.unit_count,
            clock_hz=profile.clock_hz,
            sustained_clock_hz=Clock.of(profile, constants).lanes_hz,
            vector_flop_per_clock=profile.peak("vector", "fp32").flop_per_s / profile.unit_count / profile.clock_hz,
            dram_bytes_per_s=profile.dram_bytes_per_s,
            dram_fraction=profile.achievable_dram_fraction,
            l2_bytes=(l2.capacity_bytes if l2 else None) or _L2_BYTES,
            schedulers_per_unit=profile.gpu.schedulers_per_unit,
            warp_size=profile.limits.warp_size or 32,
            kernel_fixed_cycles=profile.overheads.kernel_fixed_cycles,
            convolutions=profile.gpu.convolutions,
        )

    @cached_property
    def vector_flop_per_s(self) -> float:
        """fp32 FLOP/s of all units at the sustained clock."""
        return self.unit_count * self.vector_flop_per_clock * self.sustained_clock_hz

    @cached_property
    def lane_cycles_per_s(self) -> float:
        """fp32 lanes of all units times the sustained clock: simple instructions a second."""
        return self.vector_flop_per_s / 2

    @cached_property
    def kernel_fixed_s(self) -> float:
        """Start, fill and drain of one kernel."""
        return self.kernel_fixed_cycles / self.clock_hz
