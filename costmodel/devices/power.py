"""What switching costs: energy by process of the chip and by technology of its memory, as data.

A chip draws what leaks and idles (``static``), what its clock tree and schedulers draw while it works, and energy for
each operation and each byte. The last three but DRAM's go with the square of the voltage, and the voltage with the
clock. Figures belong to the process that a chip is made in and to the memory beside it, so that a machine which nobody
measured has them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["DRAM_PJ_PER_BYTE", "PROCESSES", "Process", "dram_pj_per_byte"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, in which a generation's chips are made.

    ``static_w_per_unit``    leakage, fabric, regulators and fans, a streaming multiprocessor (CU on AMD) [W]
    ``clock_w_per_unit``     clock tree and schedulers of one unit that works, at ``reference_hz`` [W]
    ``matrix_pj_per_flop``   on matrix engines with 16-bit operands; energy goes with their bits [pJ/FLOP]
    ``lane_pj_per_flop``     on fp32 lanes, operands from registers and shared memory included [pJ/FLOP]
    ``l2_pj_per_byte``       from L2 to a unit [pJ/B]
    ``reference_hz``         the clock at which the four before hold; the voltage is 1 there [Hz]
    ``voltage_slope``        relative fall of the voltage over relative fall of the clock [1]
    ``least_voltage``        floor of the voltage, over that at ``reference_hz`` [1]
    ``fitted_to``            boards whose measurements the figures were fitted to; empty where they are another
                             process's, scaled
    """

    name: str
    title: str
    static_w_per_unit: float
    clock_w_per_unit: float
    matrix_pj_per_flop: float
    lane_pj_per_flop: float
    l2_pj_per_byte: float
    reference_hz: float
    voltage_slope: float = 0.8
    least_voltage: float = 0.6
    fitted_to: tuple[str, ...] = ()

    def voltage(self, clock_hz: float) -> float:
        """The voltage at a clock, over that at ``reference_hz`` [1].

        >>> n4 = PROCESSES["4n"]
        >>> n4.voltage(n4.reference_hz), n4.voltage(0.0) == n4.least_voltage
        (1.0, True)
        """
        return max(self.least_voltage, 1 - self.voltage_slope * (1 - clock_hz / self.reference_hz))


def _table(*processes: Process) -> Mapping[str, Process]:
    return MappingProxyType({process.name: process for process in processes})


#: Fitted by ``benchmarks/fit_power.py`` where a process names boards; its errors are in reports/fitted_constants.md.
#: N7 lies between 12FFN and 4N: no board of it was measured at its limit. Energies of lanes and the clock's power share
#: what a board draws in fp32 products; only their sum is known well.
PROCESSES = _table(
    Process(
        name="12ffn", title="TSMC 16FF and 12FFN",
        static_w_per_unit=0.4, clock_w_per_unit=0.81, matrix_pj_per_flop=0.36, lane_pj_per_flop=12.5,
        l2_pj_per_byte=12.0, reference_hz=1.5e9, voltage_slope=0.31, least_voltage=0.65,
        fitted_to=("v100-pcie-32gb", "t4"),
    ),
    Process(
        name="8n", title="Samsung 8N",
        static_w_per_unit=0.58, clock_w_per_unit=1.7, matrix_pj_per_flop=1.35, lane_pj_per_flop=6.3,
        l2_pj_per_byte=12.0, reference_hz=1.8e9, voltage_slope=1.5, least_voltage=0.8,
        fitted_to=("a40", "rtx3090"),
    ),
    Process(
        name="n7", title="TSMC N7 and N6",
        static_w_per_unit=0.3, clock_w_per_unit=1.2, matrix_pj_per_flop=0.35, lane_pj_per_flop=8.0,
        l2_pj_per_byte=10.0, reference_hz=1.5e9, voltage_slope=0.8, least_voltage=0.7,
    ),
    Process(
        name="4n", title="TSMC 4N and N5",
        static_w_per_unit=0.147, clock_w_per_unit=2.1, matrix_pj_per_flop=0.16, lane_pj_per_flop=7.2,
        l2_pj_per_byte=8.0, reference_hz=2.5e9, voltage_slope=0.88, least_voltage=0.73,
        fitted_to=("rtxpro6000-maxq", "l4", "rtx4090"),
    ),
)  # fmt: skip

#: Energy of a byte between memory and chip, the interface of both included [pJ/B], by type of memory. HBM2, GDDR6,
#: GDDR6X and GDDR7 are fitted (``benchmarks/fit_power.py``), HBM2 to 4.1 pJ/bit, where O'Connor et al. ("Fine-Grained
#: DRAM", MICRO 2017) give 3.9; their GDDR5 is 14 pJ/bit. The others follow their generation.
DRAM_PJ_PER_BYTE: Mapping[str, float] = MappingProxyType(
    {
        "GDDR5": 112.0,
        "GDDR5X": 112.0,
        "GDDR6": 106.0,
        "GDDR6X": 86.0,
        "GDDR7": 74.0,
        "HBM2": 33.0,
        "HBM2e": 29.0,
        "HBM3": 27.0,
        "HBM3e": 25.0,
        "LPDDR5": 50.0,
    }
)
_PJ_PER_BYTE_ELSEWHERE = 100.0


def dram_pj_per_byte(memory_type: str) -> float:
    """Energy of a byte [pJ/B] for a type of memory.

    >>> dram_pj_per_byte("HBM2") < dram_pj_per_byte("GDDR6")
    True
    """
    return DRAM_PJ_PER_BYTE.get(memory_type, _PJ_PER_BYTE_ELSEWHERE)
