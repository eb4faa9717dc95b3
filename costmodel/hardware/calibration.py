"""Calibration: what micro-benchmarks found out about one CPU, written by ``costmodel calibrate``.

In a hardware file it is the table ``[calibration]`` and one table ``[calibration.KIND]`` for each kind of kernel::

    [calibration]
    threads = 2                                     # of intra-operator parallelism during the measurement
    touched = ["0 B", "4 MB", "64 MB"]              # bytes that went by since a kernel of the same kind ...
    cold_share = [0.0, 0.3, 1.0]                    # ... and where its fixed time then lies between hot and cold
    page_fault = "1.9 µs"                           # elapsed time of one page, all threads faulting
    spread = "4.0 %"                                # median interquartile range over the median of a timing

    [calibration.relu]
    hot = "2 µs"                                    # fixed time with everything in cache
    cold = "18 µs"                                  # and with code, descriptors and tables out of it
    elements = [256, 8192, 401408]                  # beyond the fixed time: by elements walked ...
    time = ["0 µs", "1 µs", "90 µs"]

    [calibration.conv_1x1]
    rate = "135 GFLOP/s"                            # ... or by arithmetic,
    activations = "18 GB/s"                         # activations read and written,
    weights = "11 GB/s"                             # and weights; these times add
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from costmodel.units import parse_quantity

__all__ = ["Calibration", "KernelTime", "calibration_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """How long kernels of one kind take; None and empty where a part does not apply."""

    hot_s: float = 0.0
    cold_s: float = 0.0
    flop_per_s: float | None = None
    activation_bytes_per_s: float | None = None
    weight_bytes_per_s: float | None = None
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
    touched_bytes: tuple[float, ...] = (0.0,)
    cold_share: tuple[float, ...] = (1.0,)
    page_fault_s: float = 0.0
    threads: int = 1

    def cold_share_after(self, nbytes: float) -> float:
        """How cold a kernel is when ``nbytes`` [B] went through the caches since one of its kind last ran: 0 to 1.

        >>> machine = Calibration(kernels={}, touched_bytes=(0, 4e6, 64e6), cold_share=(0.0, 0.25, 1.0))
        >>> machine.cold_share_after(2e6), machine.cold_share_after(1e9)
        (0.125, 1.0)
        """
        if nbytes >= self.touched_bytes[-1]:
            return self.cold_share[-1]
        return _interpolated(nbytes, self.touched_bytes, self.cold_share)


def calibration_from(values: Mapping[str, Any]) -> Calibration:
    """The content of ``[calibration]`` of a file that has been checked."""
    kinds = {name: _kernel_time(table) for name, table in values.items() if isinstance(table, dict)}
    sizes = [parse_quantity(text, "B") for text in values.get("touched", ("0 B",))]
    return Calibration(
        kernels=kinds,
        touched_bytes=tuple(sizes),
        cold_share=tuple(values.get("cold_share", (1.0,))),
        page_fault_s=parse_quantity(values.get("page_fault", "0 s"), "s"),
        threads=values.get("threads", 1),
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
        elements=tuple(table.get("elements", ())),
        time_s=tuple(parse_quantity(text, "s") for text in table.get("time", ())),
    )
