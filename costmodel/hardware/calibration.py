"""Calibration: what micro-benchmarks found out about one CPU, written by ``costmodel calibrate``.

In a hardware file it is the table ``[calibration]`` and one table ``[calibration.KIND]`` for each kind of kernel::

    [calibration]
    threads = 2                                     # of intra-operator parallelism during the measurement
    operator_bytes = ["10 kB", "400 kB", "3 MB"]    # where operators move so many bytes on average, ...
    cold_share = [0.3, 0.7, 1.0]                    # ... fixed times lie so far between hot and cold
    page_fault = "1.9 µs"                           # elapsed time of one page, all threads faulting
    spread = 0.15                                   # of a timing: interquartile range over median; typical of all;
                                                    # what exceeds a quiet machine's widens intervals
    drift = 0.05                                    # of a timing between bursts: range over mean; typical of all
    steal = 0.002                                   # share of the time that the host took away
    disturbed = 0.1                                 # share of the rounds left out: other processes used the cores

    [calibration.relu]
    hot = "2 µs"                                    # fixed time with everything in cache
    cold = "18 µs"                                  # and with code, descriptors and tables out of it
    elements = [256, 8192, 401408]                  # beyond the fixed time: by elements walked ...
    time = ["0 µs", "1 µs", "90 µs"]

    [calibration.conv_1x1]
    rate = "135 GFLOP/s"                            # ... or by arithmetic,
    activations = "18 GB/s"                         # activations read and written,
    weights = "11 GB/s"                             # and weights; these times add, and for batches of products
    matrix = "2 µs"                                 # what each matrix costs besides
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from costmodel.units import parse_quantity

__all__ = ["Calibration", "KernelTime", "calibration_from"]


#: Interquartile range over the median [1] of a timing where nothing else runs: a shared two-core guest has 0.1 to 0.2.
QUIET_SPREAD = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """How long kernels of one kind take; None and empty where a part does not apply."""

    hot_s: float = 0.0
    cold_s: float = 0.0
    flop_per_s: float | None = None
    activation_bytes_per_s: float | None = None
    weight_bytes_per_s: float | None = None
    matrix_s: float = 0.0  # for each matrix of a batch
    elements: tuple[int, ...] = ()
    time_s: tuple[float, ...] = ()  # beyond the fixed time, for each of ``elements``

    def fixed_s(self, cold_share: float) -> float:
        """Fixed time of a start [s], ``cold_share`` of the way from hot to cold.

        >>> KernelTime(hot_s=2e-6, cold_s=10e-6).fixed_s(0.5)
        6e-06
        """
        return self.hot_s + cold_share * (self.cold_s - self.hot_s)

    def elements_s(self, elements: float) -> float:
        """Seconds beyond the fixed time to walk so many elements; linear between the measured sizes and beyond.

        >>> relu = KernelTime(elements=(0, 100, 200), time_s=(0.0, 1e-6, 4e-6))
        >>> [round(relu.elements_s(n) * 1e6, 3) for n in (50, 100, 150, 300)]
        [0.5, 1.0, 2.5, 7.0]
        """
        return _interpolated(elements, self.elements, self.time_s) if self.elements else 0.0


def _interpolated(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Piecewise linear; the last piece goes on, and left of the first point the value is the first."""
    if x <= xs[0] or len(xs) == 1:
        return ys[0]
    right = min(bisect_left(xs, x), len(xs) - 1)
    slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right] + slope * (x - xs[right])


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Times of kernels by kind, and what they have in common."""

    kernels: Mapping[str, KernelTime] = field(hash=False)
    operator_bytes: tuple[float, ...] = (1.0,)
    cold_share: tuple[float, ...] = (1.0,)
    page_fault_s: float = 0.0
    threads: int = 1
    spread: float = 0.0

    @property
    def unrest(self) -> float:
        """Relative spread of a time [1, one standard deviation] that timings had beyond those of a quiet machine.

        Of a normal distribution the interquartile range is 1.349 standard deviations; independent spreads add squared.

        >>> Calibration(kernels={}, spread=0.15).unrest
        0.0
        >>> round(Calibration(kernels={}, spread=0.6).unrest, 3)    # sqrt(0.6**2 - 0.2**2) / 1.349
        0.419
        """
        return math.sqrt(max(self.spread**2 - QUIET_SPREAD**2, 0.0)) / 1.349

    def cold_share_at(self, operator_bytes: float) -> float:
        """How cold operators are in a step in which they move so many bytes [B] on average: 0 to 1.

        Linear in the logarithm of the bytes; the ends go on as they are.

        >>> machine = Calibration(kernels={}, operator_bytes=(1e4, 1e6), cold_share=(0.5, 1.0))
        >>> machine.cold_share_at(1e3), machine.cold_share_at(1e5), machine.cold_share_at(1e9)
        (0.5, 0.75, 1.0)
        """
        if operator_bytes >= self.operator_bytes[-1]:
            return self.cold_share[-1]
        sizes = [math.log(size) for size in self.operator_bytes]
        return _interpolated(math.log(max(operator_bytes, 1.0)), sizes, self.cold_share)


def calibration_from(values: Mapping[str, Any]) -> Calibration:
    """The content of ``[calibration]`` of a file that has been checked."""
    kinds = {name: _kernel_time(table) for name, table in values.items() if isinstance(table, dict)}
    sizes = [parse_quantity(text, "B") for text in values.get("operator_bytes", ("1 B",))]
    return Calibration(
        kernels=kinds,
        operator_bytes=tuple(sizes),
        cold_share=tuple(values.get("cold_share", (1.0,))),
        page_fault_s=parse_quantity(values.get("page_fault", "0 s"), "s"),
        threads=values.get("threads", 1),
        spread=values.get("spread", 0.0),
    )


def _kernel_time(table: Mapping[str, Any]) -> KernelTime:
    def quantity(key: str, unit: str) -> float | None:
        return parse_quantity(table[key], unit) if key in table else None

    return KernelTime(
        hot_s=quantity("hot", "s") or 0.0,
        cold_s=quantity("cold", "s") or 0.0,
        flop_per_s=quantity("rate", "FLOP/s"),
        activation_bytes_per_s=quantity("activations", "B/s"),
        weight_bytes_per_s=quantity("weights", "B/s"),
        matrix_s=quantity("matrix", "s") or 0.0,
        elements=tuple(table.get("elements", ())),
        time_s=tuple(parse_quantity(text, "s") for text in table.get("time", ())),
    )
