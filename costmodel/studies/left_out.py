"""The two constants of a served step that come from the rows they are judged by, fitted again without some of them.

What a serving library does between two steps (``HostCosts.serving.call``) and how long its kernels for narrow weights
take to start (``devices.libraries.MARLIN_INT4``) are in no other public measurement that costmodel has. Both add to the
time of all tokens in proportion, so that fits without one size of model, or without one format of weights, say what
predictions are worth for the size or format that nobody has measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from costmodel.devices.libraries import MARLIN_INT4
from costmodel.generation.run import Generation
from costmodel.host import costs_of
from costmodel.presented import Analysis

__all__ = ["Served", "constants", "errors_left_out", "served"]

#: How the algorithms of the library's products with narrow weights begin, and their start, as the record has it.
_MARLIN, _START = "marlin", MARLIN_INT4.kernels.vector_start


class Served(NamedTuple):
    """A measured time for all tokens, and the predicted one in parts: ``rest_s``, seconds for a µs between steps, and
    seconds for a unit of a product's start."""

    size: str
    weights: str
    measured_s: float
    rest_s: float
    between_s: float
    start_s: float

    def predicted_s(self, between_us: float, start: float) -> float:
        """The time for all tokens with other constants."""
        return self.rest_s + self.between_s * between_us + self.start_s * start

    def error(self, between_us: float, start: float) -> float:
        """Of the predicted time over the measured one [1]."""
        return self.predicted_s(between_us, start) / self.measured_s - 1


def served(size: str, weights: str, measured_s: float, found: Generation) -> Served:
    """The parts of a generation in mode serving."""
    step = found.steps[-1]
    between_s = found.new_tokens * step.host.seconds(1.0)
    start_s = (found._summed(_starts_s) + _starts_s(found.prompt)) / _START
    rest_s = found.total_s - between_s * costs_of(step.execution.software).serving.call - start_s * _START
    return Served(size, weights, measured_s, rest_s, between_s, start_s)


def _starts_s(step: Analysis) -> float:
    """Seconds that products with narrow weights take to start, in one step."""
    slots = zip(step.plan.launches, step.timeline, strict=True)
    kernels = step.plan.kernels
    return sum(
        slot.parts.fixed_s for launch, slot in slots if kernels[launch.kernel].algorithm.startswith(_MARLIN)
    )  # fmt: skip


def constants(rows: Sequence[Served]) -> tuple[float, float]:
    """(µs between steps, start of a product) at which the squares of the rows' relative errors add up to least. Rows
    without narrow weights say nothing of the start, which is then 1: that of other products."""
    import numpy as np

    scaled = np.array([[row.between_s, row.start_s] for row in rows]) / np.array([[row.measured_s] for row in rows])
    wanted = np.array([1 - row.rest_s / row.measured_s for row in rows])
    if not scaled[:, 1].any():
        return float(np.linalg.lstsq(scaled[:, :1], wanted, rcond=None)[0][0]), 1.0
    between_us, start = np.linalg.lstsq(scaled, wanted, rcond=None)[0]
    return float(between_us), float(start)


def errors_left_out(rows: Sequence[Served], group: Callable[[Served], str]) -> list[float]:
    """The error of each row, with constants from the rows of other groups."""
    found = []
    for row in rows:
        others = [other for other in rows if group(other) != group(row)]
        found.append(row.error(*constants(others)))
    return found
