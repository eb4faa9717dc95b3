"""The clock that a package of CPU cores holds within its power limit.

A laptop's package is held to its base power for long loads. That is the power of all cores at their base clocks under
what vendors call a complex load. A step that multiplies less draws less at the same clock, so the clock rises until
the power is the same again; one that multiplies more runs below its base clock. Power goes with the cube of the clock,
since the voltage follows it:

    (1 + multiply_add_power x use) x clock^3 = (1 + multiply_add_power x complex_load) x base clock^3

``use`` is the share of the multiply-add rate that a whole step uses: packages average their power over many seconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from costmodel.timing.timeline import KernelSeconds

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile
    from costmodel.kernels.plan import KernelPlan
    from costmodel.timing.cpu_constants import CpuConstants

__all__ = ["at_package_clock", "held_clock", "package_clock"]

#: Rounds after which a clock is taken to have settled: each halves what is left at least.
_ROUNDS = 8


def held_clock(use: float, constants: CpuConstants) -> float:
    """The clock over the base clock that a package holds where ``use`` of the multiply-add rate is used [1].

    >>> from costmodel.timing.cpu_constants import CPU
    >>> held_clock(CPU.complex_load, CPU), held_clock(0.0, CPU) > 1 > held_clock(1.0, CPU)
    (1.0, True)
    """
    b = constants.multiply_add_power
    return float(((1 + b * constants.complex_load) / (1 + b * min(use, 1.0))) ** (1 / 3))


def package_clock(
    parts: Sequence[KernelSeconds], plan: KernelPlan, hardware: HardwareProfile, constants: CpuConstants
) -> float:
    """The clock over the one that peaks are stated for which a step of these kernels settles at [1].

    ``parts`` are the times of the plan's distinct kernels at the stated clock.
    """
    counts = Counter(launch.kernel for launch in plan.launches)
    at_peak = math.fsum(count * _peak_s(plan, kernel, hardware) for kernel, count in counts.items())
    clock = 1.0
    for _ in range(_ROUNDS):
        seconds = math.fsum(count * _at(parts[kernel], clock).seconds() for kernel, count in counts.items())
        if not seconds:
            return 1.0
        clock = math.sqrt(clock * held_clock(at_peak / clock / seconds, constants))
    return clock


def at_package_clock(
    parts: list[KernelSeconds], plan: KernelPlan, hardware: HardwareProfile, constants: CpuConstants
) -> list[KernelSeconds]:
    """The times of a plan's distinct kernels at the clock that the package holds in a step of them.

    Arithmetic and fixed times follow the clock, DRAM does not. Where no power limit sets the clock, all stays as it is.
    """
    if not hardware.clock_follows_power:
        return parts
    clock = package_clock(parts, plan, hardware, constants)
    return [_at(part, clock) for part in parts]


def _at(part: KernelSeconds, clock: float) -> KernelSeconds:
    return part._replace(compute_s=part.compute_s / clock, fixed_s=part.fixed_s / clock)


def _peak_s(plan: KernelPlan, kernel: int, hardware: HardwareProfile) -> float:
    """Seconds of a kernel's multiply-adds at the peak of their units."""
    of = plan.kernels[kernel]
    if not of.matrix_flops:
        return 0.0
    peak = hardware.find_peak(of.engine, of.dtype, of.accumulate) or hardware.peak("vector", "fp32")
    return of.matrix_flops / peak.flop_per_s
