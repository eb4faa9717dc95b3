"""Clock: at which clock a GPU runs which work, and what power makes of it.

The one place that decides clocks. A datasheet states a clock; how long a board holds it depends on which units work,
for how long, and on the power that the board may draw. Here stand three observations of that: what SIMT arithmetic sees
under load, what boards gain whose vendor states the least clock that each of them reaches, and what a board that the
slot alone feeds settles at. A model of power and energy would replace them behind the same three questions.
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
    #: Boards fed by the slot alone have 75 W; the T4 among them falls towards its base clock in long fp32 products.
    slot_power_w: float = 75.0
    #: Clock that such a board settles at in long products over its base clock [1]: T4, NeuSight's linear above 20 ms.
    slot_share: float = 1.22
    #: Time after which the clock of a board on a power limit has left its boost halfway [s]; T4 only.
    power_window_s: float = 1.3e-3


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
    ``boost_gain`` the clock of long, dense work over the one that peaks are stated for [1];
    ``settled_share`` what long products settle at over the clock at which they began [1], half of the way after
    ``settling_s``.
    """

    stated_hz: float
    lanes_hz: float
    boost_gain: float = 1.0
    settled_share: float = 1.0
    settling_s: float = CLOCK.power_window_s

    @classmethod
    def of(cls, profile: HardwareProfile, constants: ClockConstants = CLOCK) -> Clock:
        """The clocks of a profile."""
        lanes = profile.find_peak("vector", "fp32")
        measured = lanes is not None and lanes.measured  # at the clock that the lanes held
        return cls(
            stated_hz=profile.clock_hz,
            lanes_hz=profile.clock_hz if measured else sustained_hz(profile.clock_hz, profile.base_clock_hz, constants),
            boost_gain=constants.least_clock_gain if profile.states_least_clock else 1.0,
            settled_share=_settled_share(profile, constants),
            settling_s=constants.power_window_s,
        )

    def long_product_hz(self, peak: Peak) -> float:
        """The clock of long products on the units of a peak [Hz], before power settles it.

        What FMA lanes reach is known as a share of the rate at the clock of the datasheet.
        """
        stated_hz = peak.clock_hz or self.stated_hz
        return stated_hz * self.gain(peak) if peak.engine == "matrix" else stated_hz

    def gain(self, peak: Peak) -> float:
        """Clock of long, dense work over the one that a peak is stated for [1]; a measured peak holds it already."""
        return 1.0 if peak.measured else self.boost_gain

    def stretch(self, seconds: float, *, steady: bool) -> float:
        """How much longer arithmetic takes [1] than at the clock at which it began, in a product of ``seconds``.

        ``steady``: the board has been busy for long, and its clock has settled.

        >>> t4 = Clock(stated_hz=1.59e9, lanes_hz=0.96e9, settled_share=0.5, settling_s=1e-3)
        >>> t4.stretch(1.0, steady=True), t4.stretch(1e-3, steady=False)
        (2.0, 1.5)
        """
        held = 1.0 if steady else seconds / (seconds + self.settling_s)
        return 1 + (1 / self.settled_share - 1) * held


def _settled_share(profile: HardwareProfile, constants: ClockConstants) -> float:
    if profile.power_w is None or profile.power_w > constants.slot_power_w or profile.base_clock_hz is None:
        return 1.0
    return min(1.0, constants.slot_share * profile.base_clock_hz / profile.clock_hz)
