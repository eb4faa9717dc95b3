"""GemmMachine: the figures of a GPU that the time of a matrix product reads, and the rules that fill gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from costmodel.devices.libraries import ProductKernels
from costmodel.errors import ProfileError, librarian
from costmodel.timing.clock import CLOCK, Clock, ClockConstants

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile

__all__ = ["ELEMENT_BYTES", "GemmEngine", "GemmMachine"]

ELEMENT_BYTES: Mapping[str, int] = {"fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}

#: L2 rate by micro-benchmark over the published one [1]: 5405 of 7219 GB/s on the A100.
_L2_MEASURED_SHARE = 0.75


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # hashed by identity: caches ask often
class GemmEngine:
    """Where the products of one dtype run.

    ``flop_per_clock`` is the dense peak of one unit [FLOP/clock]; ``matrix`` tells tensor cores from FMA lanes;
    ``kernels`` are those that the libraries have for these units. ``weight_bytes`` is an element of B where it is
    narrower than one of A.
    """

    flop_per_clock: float
    clock_hz: float
    matrix: bool
    element_bytes: float
    kernels: ProductKernels
    weight_bytes: float | None = None

    @property
    def operand_bytes(self) -> tuple[float, float]:
        """B of an element of A and of B."""
        return self.element_bytes, self.element_bytes if self.weight_bytes is None else self.weight_bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GemmMachine:
    """One GPU for the time of matrix products; all but ``dram_fraction`` and ``l2_bytes_per_s`` stand on datasheets.

    ``l2_bytes`` is what one unit sees: the capacity over the copies of a line that L2 holds. ``multicast`` is the
    number of units that share one read of an operand. ``row_reach_bytes`` is the row pitch at which address translation
    has taken half of its toll, ``channel_period_bytes`` one at which all rows fall on one channel of memory.
    ``engines`` are found by the dtype of the operands, those of narrow formats by the name of their kernels.
    """

    unit_count: int
    clock_hz: float
    dram_bytes_per_s: float  # pin rate
    dram_fraction: float = 0.85
    l2_bytes: float
    l2_bytes_per_s: float  # reads, by micro-benchmark
    engines: Mapping[str, GemmEngine]
    multicast: int = 1
    row_reach_bytes: float | None = None
    channel_period_bytes: int | None = None

    def engine(self, dtype: str) -> GemmEngine:
        """The engine of a dtype; raises :class:`ProfileError` naming those there are."""
        found = self.engines.get(dtype)
        if found is None:
            raise ProfileError(
                librarian(
                    f"no engine multiplies {dtype} matrices on this machine",
                    there_is=sorted(self.engines),
                    do="Choose another dtype, or add its peak to the hardware profile",
                )
            )
        return found

    def dram_rate(self, share: float) -> float:
        """B/s at this share of the rate of long element-wise kernels; never above the pin rate."""
        return self.dram_bytes_per_s * min(1.0, self.dram_fraction * share)

    @classmethod
    def from_profile(
        cls,
        profile: HardwareProfile,
        constants: ClockConstants = CLOCK,
        matrix_products: ProductKernels | None = None,
    ) -> GemmMachine:
        """The machine of a hardware profile; its generation fills in where the profile is silent.

        ``matrix_products`` are the kernels on matrix units; None: those of the generation's products. Raises
        :class:`ProfileError` for a machine that is no GPU.
        """
        generation, clock = profile.gpu, Clock.of(profile, constants)
        l2 = profile.find_memory_level("l2")
        return cls(
            unit_count=profile.unit_count,
            clock_hz=profile.clock_hz,
            dram_bytes_per_s=profile.dram_bytes_per_s,
            dram_fraction=profile.achievable_dram_fraction,
            l2_bytes=(l2.capacity_bytes if l2 and l2.capacity_bytes else 0.0) / generation.l2_copies,
            l2_bytes_per_s=_l2_rate(profile),
            engines=_engines(profile, clock, matrix_products or generation.matrix_products),
            multicast=generation.multicast,
            row_reach_bytes=generation.row_reach_bytes,
            channel_period_bytes=generation.channel_period_bytes,
        )


def _l2_rate(profile: HardwareProfile) -> float:
    level = profile.find_memory_level("l2")
    if level is not None and level.measured_bandwidth_bytes_per_s:
        return level.measured_bandwidth_bytes_per_s
    if level is not None and level.bandwidth_bytes_per_s:
        return _L2_MEASURED_SHARE * level.bandwidth_bytes_per_s
    return profile.gpu.l2_bytes_per_clock * profile.unit_count * profile.clock_hz


def _engines(profile: HardwareProfile, clock: Clock, products: ProductKernels) -> dict[str, GemmEngine]:
    """For each dtype its matrix engine, or else its FMA lanes."""
    found = {}
    for dtype, size in ELEMENT_BYTES.items():
        matrix = profile.find_peak("matrix", dtype)
        peak = matrix or profile.find_peak("vector", dtype)
        if peak is None:
            continue
        stated_hz = peak.clock_hz or profile.clock_hz
        found[dtype] = GemmEngine(
            flop_per_clock=peak.flop_per_clock or peak.flop_per_s / (profile.unit_count * stated_hz),
            clock_hz=clock.long_product_hz(peak),
            matrix=matrix is not None,
            element_bytes=size,
            kernels=products if matrix else profile.gpu.simt_products,
        )
    for record in profile.gpu.quantized_products:
        base = found.get(record.multiplies)
        if base is not None and base.matrix:
            found[record.name] = replace(
                base,
                element_bytes=record.activation_bytes,
                weight_bytes=record.weight_bytes,
                kernels=record.kernels,
            )
    return found
