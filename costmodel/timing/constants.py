"""Constants: all figures of the time model that no datasheet states, as one bundle that can be varied.

Every model takes the bundle (or its part of it) as an argument, so a fit, a study of sensitivity or a user's own
calibration passes another one; nothing is patched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from costmodel.timing.clock import CLOCK, ClockConstants
from costmodel.timing.convolution import CONVOLUTION, ConvolutionConstants
from costmodel.timing.cpu_constants import CPU, CpuConstants
from costmodel.timing.gemm import GEMM, GemmConstants
from costmodel.timing.gpu_constants import CACHES, GPU, CacheConstants, GpuConstants
from costmodel.timing.gradients import GRADIENTS, GradientConstants
from costmodel.timing.power import POWER, PowerConstants
from costmodel.timing.streaming import STREAMING, StreamingConstants

__all__ = ["CONSTANTS", "Constants"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # hashed by identity: caches ask often
class Constants:
    """The constants by what they are of; each part says what its figures mean and where they come from."""

    clock: ClockConstants = CLOCK
    products: GemmConstants = GEMM
    convolutions: ConvolutionConstants = CONVOLUTION
    streaming: StreamingConstants = STREAMING
    kernels: GpuConstants = GPU
    gradients: GradientConstants = GRADIENTS
    caches: CacheConstants = CACHES
    power: PowerConstants = POWER
    cpu: CpuConstants = CPU

    def value(self, name: str) -> float:
        """The constant of a dotted name. Raises AttributeError or KeyError for an unknown one.

        >>> Constants().value("streaming.rates.cat")
        1.3
        """
        found: Any = self
        for word in name.split("."):
            found = found[word] if isinstance(found, dict) or hasattr(found, "keys") else getattr(found, word)
        return float(found)

    def scaled(self, name: str, factor: float) -> Constants:
        """The same bundle with one constant, by its dotted name, multiplied.

        >>> round(Constants().scaled("clock.least_clock_gain", 2).clock.least_clock_gain, 3)
        2.2
        >>> Constants().scaled("streaming.rates.cat", 2).value("streaming.rates.cat")
        2.6
        """
        changed: Constants = _with(self, name.split("."), self.value(name) * factor)
        return changed


def _with(held: Any, words: list[str], value: float) -> Any:
    """A record or a table with one number, by the words that lead to it, changed."""
    if not words:
        return value
    word, *rest = words
    if hasattr(held, "keys"):
        return {**held, word: _with(held[word], rest, value)}
    return replace(held, **{word: _with(getattr(held, word), rest, value)})


CONSTANTS = Constants()
