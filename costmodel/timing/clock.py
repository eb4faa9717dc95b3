"""Clock: at which clock a GPU runs which work, and what power makes of it.

Here stands which clock a kernel's time is worked out at; what the power limit leaves of it, for all kernels of a step,
decides ``power.py``. A datasheet states a clock; two observations say what becomes of it: what SIMT arithmetic
sees under load, and what boards gain whose vendor states the least clock that each of them reaches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile
    from costmodel.hardware.profile import Peak

__all__ = ["CLOCK", "Clock", "ClockConstants", "sustained_hz"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockConstants:
    """What boards make of the clocks on their datasheets."""

    #: Sustained over boost clock where no base clock is known: the mean of A100 PCIe, V100 PCIe and P100 PCIe [1].
    sustained_share: float = 0.9
    #: Clock in long tensor-core work over the stated one [1], where that is the least that every board reaches: GPU
    #: Boost raises it until power or temperature stops it. Whole timm models on RTX 3090 and 4090 give 1.12 and 1.08;
    #: data-center boards are sold at the clock they run at.
    least_clock_gain: float = 1.10


CLOCK = ClockConstants()


def sustained_hz(boost_hz: float, base_hz: float | None, constants: ClockConstants = CLOCK) -> float:
    """The clock of SIMT arithmetic under load [Hz]: the geometric mean of base and boost clock.

    A board neither falls to its base clock nor holds its boost clock under load; the wider the two lie apart, the
    tighter its power limit. On fp32 convolutions of four boards (A100, V100, T4, P100; base over boost 0.76, 0.89,
    0.37, 0.86) this mean halves the spread of the efficiency that the boost clock needs.

    >>> round(sustained_hz(1.59e9, 0.585e9) / 1e9, 3)     # T4
    0.964
    """
    return constants.sustained_share * boost_hz if base_hz is None else math.sqrt(base_hz * boost_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The clocks of one GPU.

    ``stated_hz`` is the boost clock of the datasheet; ``lanes_hz`` what the vector lanes hold under load;
    ``boost_gain`` the clock of long, dense work over the one that peaks are stated for [1].
    """

    stated_hz: float
    lanes_hz: float
    boost_gain: float = 1.0

    @classmethod
    def of(cls, profile: HardwareProfile, constants: ClockConstants = CLOCK) -> Clock:
        """The clocks of a profile."""
        lanes = profile.find_peak("vector", "fp32")
        measured = lanes is not None and lanes.measured  # at the clock that the lanes held
        return cls(
            stated_hz=profile.clock_hz,
            lanes_hz=profile.clock_hz if measured else sustained_hz(profile.clock_hz, profile.base_clock_hz, constants),
            boost_gain=constants.least_clock_gain if profile.states_least_clock else 1.0,
        )

    def long_product_hz(self, peak: Peak) -> float:
        """The clock of long products on the units of a peak [Hz].

        What FMA lanes reach is known as a share of the rate at the clock of the datasheet.
        """
        stated_hz = peak.clock_hz or self.stated_hz
        return stated_hz * self.gain(peak) if peak.engine == "matrix" else stated_hz

    def gain(self, peak: Peak) -> float:
        """Clock of long, dense work over the one that a peak is stated for [1]; a measured peak holds it already."""
        return 1.0 if peak.measured else self.boost_gain
