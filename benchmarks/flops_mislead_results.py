"""What the study `flops_mislead` found: every variant predicted and measured, and which pairs are ordered rightly."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from flops_mislead_nets import Experiment

from costmodel.analysis import Analysis

__all__ = ["Outcome", "Result"]


@dataclass(frozen=True)
class Result:
    """One variant: its analyses on the CPU and the GPU, and the median of every round that counts, in seconds."""

    name: str
    cpu: Analysis
    gpu: Analysis
    rounds_s: tuple[float, ...]
    published_gpu: float | None
    published_arm: float | None

    @cached_property
    def measured_s(self) -> float:
        return statistics.median(self.rounds_s)

    @property
    def repeat(self) -> float:
        """How far the median of the odd rounds is from that of the even ones."""
        return abs(statistics.median(self.rounds_s[1::2]) / statistics.median(self.rounds_s[::2]) - 1)


@dataclass(frozen=True)
class Outcome:
    """An experiment with its results, and how many pairs of them differ and are predicted in the measured order."""

    experiment: Experiment
    results: tuple[Result, ...]

    def without(self, is_left_out: Callable[[Result], bool]) -> Outcome:
        """The same with fewer variants."""
        return Outcome(self.experiment, tuple(r for r in self.results if not is_left_out(r)))

    def pairs(self, noise: float) -> tuple[int, int]:
        """(pairs that differ by more than ``noise``, those among them whose predicted order is the measured one)."""
        apart = right = 0
        for i, a in enumerate(self.results):
            for b in self.results[i + 1 :]:
                if abs(a.measured_s / b.measured_s - 1) > noise and abs(b.measured_s / a.measured_s - 1) > noise:
                    apart += 1
                    right += (a.measured_s < b.measured_s) == (a.cpu.latency < b.cpu.latency)
        return apart, right

    def by_flops(self, noise: float) -> tuple[int, int]:
        """(pairs that differ by more than ``noise`` in the order of their MACs, those of equal MACs among all)."""
        right = equal = 0
        for i, a in enumerate(self.results):
            for b in self.results[i + 1 :]:
                if abs(a.measured_s / b.measured_s - 1) > noise and abs(b.measured_s / a.measured_s - 1) > noise:
                    macs = a.cpu.totals.macs, b.cpu.totals.macs
                    equal += macs[0] == macs[1]
                    right += macs[0] != macs[1] and (a.measured_s < b.measured_s) == (macs[0] < macs[1])
        return right, equal
