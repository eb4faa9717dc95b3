"""Power: what a step draws, and the clock at which it fits into what the board may draw.

    energy = static power x time + clock power x busy time + energy a FLOP x FLOP + energy a byte x bytes

All but static power and DRAM fall with the square of the voltage, and the voltage with the clock down to a floor. A
board averages its power over a window that is longer than most steps. Where the average asks for more than the limit,
the clock falls until it fits: arithmetic and fixed cycles take longer, DRAM does not. A kernel that the time model runs
below that clock already is not slowed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from costmodel.devices.power import DRAM_PJ_PER_BYTE, PROCESSES, Process, dram_pj_per_byte
from costmodel.execution.precision import BITS
from costmodel.timing.timeline import KernelSeconds, Kind

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile
    from costmodel.kernels.plan import Kernel

__all__ = ["POWER", "Load", "Power", "PowerConstants", "slowed", "windows"]

_PJ = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerConstants:
    """What no datasheet states of power, beside the figures of processes and memories (``devices/power.py``)."""

    processes: Mapping[str, Process] = field(default_factory=lambda: PROCESSES)
    dram_pj_per_byte: Mapping[str, float] = field(default_factory=lambda: DRAM_PJ_PER_BYTE)
    #: What GDDR draws that is clocked and refreshed and moves nothing, over the bytes that it could move [pJ/B].
    gddr_standby_pj_per_byte: float = 35.0
    #: Clock power of units that wait for the host over that of units that work [1].
    waiting_share: float = 0.12
    #: Time over which a board averages its power before it changes the clock [s]: NVIDIA's boards report averages over
    #: 25 ms (V100) to 100 ms (A100, H100), by square waves of known length (Yang, Adamek, Armour 2024).
    window_s: float = 0.1
    #: Idle time around a kernel that is run alone [s], as an eager call between two synchronizations leaves it; fitted
    #: to NeuSight's products on T4 and L4, the figures of standby and waiting to training steps
    #: (``benchmarks/fit_power.py``).
    pause_s: float = 0.25e-3
    #: The least clock that a board falls to, over its boost clock [1]: 210 of 1740 MHz on an A40.
    least_clock_share: float = 0.12


POWER = PowerConstants()


class Load(NamedTuple):
    """What one launch asks of the board.

    ``part``       their kernel's time at ``clock_hz``; ``share`` of its memory time DRAM serves [1]
    ``switched_j`` energy of its operations at the reference voltage [J]
    ``moved_j``    energy of its bytes of DRAM [J]
    ``spread``     one standard deviation of its time, over its time [1]
    """

    part: KernelSeconds
    share: float
    clock_hz: float
    switched_j: float
    moved_j: float
    spread: float = 0.0

    def seconds(self, clock_hz: float) -> float:
        """Device time where the board holds ``clock_hz``."""
        return slowed(self.part, self.clock_hz, clock_hz).seconds(self.share)


def slowed(part: KernelSeconds, own_hz: float, clock_hz: float) -> KernelSeconds:
    """The parts of a kernel that would run at ``own_hz`` where the board holds ``clock_hz``.

    >>> slowed(KernelSeconds(1.0, 3.0, 0.5), 2e9, 1e9)[:3], slowed(KernelSeconds(1.0, 3.0, 0.5), 1e9, 2e9)[:3]
    ((2.0, 3.0, 1.0), (1.0, 3.0, 0.5))
    """
    if clock_hz >= own_hz:
        return part
    longer = own_hz / clock_hz
    return KernelSeconds(part.compute_s * longer, part.memory_s, part.fixed_s * longer, part.overlap, part.serial_s)


class Power:
    """The power of one board: energies of kernels, and the clock that its limit leaves a window of them."""

    def __init__(self, hardware: HardwareProfile, constants: PowerConstants = POWER) -> None:
        """Raises ProfileError for a machine that is no GPU."""
        self.constants = constants
        self.process = process = constants.processes[hardware.gpu.process]
        standby = constants.gddr_standby_pj_per_byte if hardware.dram.kind.startswith("GDDR") else 0.0
        self.static_w = process.static_w_per_unit * hardware.unit_count + _PJ * standby * hardware.dram_bytes_per_s
        self.clock_w = process.clock_w_per_unit * hardware.unit_count
        self.limit_w = hardware.power_limit_w
        self.at = lru_cache(maxsize=4096)(self._at)  # searches ask for the same clocks again and again
        self.least_hz = constants.least_clock_share * hardware.clock_hz
        self._dram_j = _PJ * constants.dram_pj_per_byte.get(hardware.dram.kind, dram_pj_per_byte(hardware.dram.kind))

    def switched_j(self, kernel: Kernel, executed: float = 1.0) -> float:
        """Energy of a kernel's operations and of its bytes through L2, at the reference voltage [J].

        ``executed`` is the share of its FLOP that are executed: Winograd and FFT need fewer than the convolution that
        they stand for [1].
        """
        process = self.process
        lanes = process.lane_pj_per_flop
        bits = BITS.get(kernel.dtype, 32)
        each = process.matrix_pj_per_flop * bits / 16 if kernel.engine == "matrix" else lanes * bits / 32
        pj = each * executed * kernel.matrix_flops + lanes * kernel.vector_flops + process.l2_pj_per_byte * kernel.bytes
        return _PJ * pj

    def moved_j(self, kernel: Kernel, dram_share: float = 1.0) -> float:
        """Energy of the share of a kernel's bytes that DRAM serves [J]."""
        return self._dram_j * kernel.bytes * dram_share

    def clock_power_w(self, clock_hz: float) -> float:
        """What clock tree and schedulers draw while all units work [W]."""
        return self.clock_w * clock_hz / self.process.reference_hz * self.process.voltage(clock_hz) ** 2

    def waiting_w(self, clock_hz: float) -> float:
        """What the board draws while it waits for the host [W]."""
        return self.static_w + self.constants.waiting_share * self.clock_power_w(clock_hz)

    def _at(self, clock_hz: float) -> tuple[float, float, float]:
        """(power of clock trees while units work [W], square of the voltage [1], :meth:`waiting_w`) at a clock."""
        return self.clock_power_w(clock_hz), self.process.voltage(clock_hz) ** 2, self.waiting_w(clock_hz)

    def kind(self, load: Load, held_hz: float | None = None) -> Kind:
        """Launches of a load at full clock, or where the board holds another one."""
        part, share, clock_hz, switched_j, moved_j, spread = load
        if held_hz is not None and held_hz < clock_hz:
            part, clock_hz = slowed(part, clock_hz, held_hz), held_hz
        else:
            held_hz = None
        busy_s = part.seconds(share)
        clock_w, squared_voltage, waiting_w = self.at(clock_hz)
        busy_j = (self.static_w + clock_w) * busy_s + squared_voltage * switched_j + moved_j
        return Kind(part, busy_s, part.fixed_s, share, spread, busy_j, waiting_w, held_hz)

    def window(
        self, launched: Sequence[tuple[Load, Kind, int]], waited_s: float, clock_hz: float, pause_s: float = 0.25e-3
    ) -> tuple[float, float]:
        """(seconds, J) of a window of launches at a clock: of each load the kind at full clock, and how many there are.

        ``waited_s`` is what they wait for the host at full clock: where kernels take longer they wait less, since the
        host issues at its own pace. ``pause_s`` is idle time around them that stays.
        """
        clock_w, squared_voltage, waiting_w = self.at(clock_hz)
        clock_w += self.static_w
        full = busy = joules = 0.0
        for load, (_, busy_s, _, _, _, busy_j, _, _), count in launched:
            full += count * busy_s
            if clock_hz >= load.clock_hz:
                busy += count * busy_s
                joules += count * busy_j
            else:
                seconds = load.seconds(clock_hz)
                busy += count * seconds
                joules += count * (clock_w * seconds + squared_voltage * load.switched_j + load.moved_j)
        waits = max(0.0, waited_s - (busy - full)) + pause_s
        return busy + waits, joules + waiting_w * waits

    def held_hz(self, launched: Sequence[tuple[Load, Kind, int]], waited_s: float, pause_s: float = 0.25e-3) -> float:
        """The clock that the limit leaves a :meth:`window` of launches [Hz]; infinite where it does not bind."""
        limit = self.limit_w
        highest = max((load.clock_hz for load, _, _ in launched), default=0.0)
        if limit is None or not highest:
            return math.inf

        def over(clock_hz: float) -> bool:
            seconds, joules = self.window(launched, waited_s, clock_hz, pause_s)
            return joules > limit * seconds

        if not over(highest):
            return math.inf
        low, high = self.least_hz, highest
        if over(low):
            return low
        while high / low > 1.002:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if over(middle) else (middle, high)
        return low


def windows(seconds: Sequence[float], window_s: float) -> Iterator[tuple[int, int]]:
    """(first, beyond the last) launch of each averaging window of a step that is repeated back to back.

    A step shorter than two windows is one, since its neighbours are like it. Of 7 s, three windows are 7/3 s each, and
    end with the launch that is under way.

    >>> list(windows([1.0] * 7, 2.0)), list(windows([1.0] * 3, 2.0))
    ([(0, 3), (3, 5), (5, 7)], [(0, 3)])
    """
    whole = math.fsum(seconds)
    count = max(int(whole / window_s), 1)
    first, passed, cut = 0, 0.0, 1
    for position, each in enumerate(seconds):
        passed += each
        if cut < count and passed >= cut * whole / count and position + 1 > first:
            yield first, position + 1
            first, cut = position + 1, max(cut + 1, int(passed / whole * count) + 1)
    if first < len(seconds):
        yield first, len(seconds)
