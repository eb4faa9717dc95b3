"""What a budget can be of: the quantities, how their limits are written, and how they read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from costmodel.analysis import Analysis
from costmodel.errors import InputError, librarian, near_matches
from costmodel.timing import at_confidence
from costmodel.units import format_bytes, format_count, format_quantity, format_seconds, parse_quantity

__all__ = ["QUANTITIES", "REGRESSIONS", "BudgetQuantity", "parse_budget", "parse_limit"]

_Interval = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class BudgetQuantity:
    """``interval``: (low, predicted, high) of an analysis, the same three where it is exact; ``is_floor``: a budget
    says the least, and not the most; ``of_layer``: the key of a layer's share of it, where shares add up."""

    name: str
    unit: str
    interval: Callable[[Analysis], _Interval]
    text: Callable[[float], str]
    of_layer: str = ""
    is_floor: bool = False

    def value(self, analysis: Analysis, confidence: float | None = None) -> float:
        """The predicted value; with a ``confidence`` [1] the one that it keeps to with that probability."""
        low, usual, high = self.interval(analysis)
        if confidence is None or low == high:
            return usual
        return at_confidence(low, usual, high, 1 - confidence if self.is_floor else confidence)

    def exceeds(self, value: float, limit: float) -> bool:
        """Whether a value breaks a limit."""
        return value < limit if self.is_floor else value > limit


def _exact(key: str) -> Callable[[Analysis], _Interval]:
    def read(analysis: Analysis) -> _Interval:
        value = getattr(analysis.totals, key)
        return value, value, value

    return read


def _latency(analysis: Analysis) -> _Interval:
    totals = analysis.totals
    return totals.latency_low_s, totals.latency_s, totals.latency_high_s


def _throughput(analysis: Analysis) -> _Interval:
    low, usual, high = _latency(analysis)
    batch = analysis.execution.batch
    return batch / high, batch / usual, batch / low


def _energy(analysis: Analysis) -> _Interval:
    totals = analysis.totals
    if totals.energy_low_j is None or totals.energy_high_j is None:
        raise InputError(f"energy is not modelled on {analysis.hardware.name}\n  leave it out of the budget")
    return totals.energy_low_j, totals.energy_j, totals.energy_high_j


def _memory(analysis: Analysis) -> _Interval:
    value = float(analysis.totals.peak_memory_bytes)
    return value, value, value


def _in(unit: str) -> Callable[[float], str]:
    return lambda value: format_quantity(value, unit)


def _per_second(value: float) -> str:
    return f"{format_count(value)}/s"


_ALL = (
    BudgetQuantity("latency", "s", _latency, format_seconds, "latency_s"),
    BudgetQuantity("throughput", "1/s", _throughput, _per_second, is_floor=True),
    BudgetQuantity("flops", "FLOP", _exact("flops"), _in("FLOP"), "flops"),
    BudgetQuantity("macs", "MAC", _exact("macs"), _in("MAC"), "macs"),
    BudgetQuantity("params", "", _exact("params"), format_count, "params"),
    BudgetQuantity("activations", "", _exact("activations"), format_count, "activations"),
    BudgetQuantity("memory", "B", _memory, format_bytes),
    BudgetQuantity("kernels", "", _exact("kernels"), format_count, "kernels"),
    BudgetQuantity("energy", "J", _energy, _in("J")),
)
QUANTITIES: Mapping[str, BudgetQuantity] = MappingProxyType({quantity.name: quantity for quantity in _ALL})
#: What a baseline is held to.
REGRESSIONS = ("latency", "flops", "macs", "params", "memory")

_COUNT = re.compile(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*([kKMGTP]?)\s*(FLOPs?|MACs?|/s|1/s|)\s*")
_FACTORS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def parse_budget(text: str) -> dict[str, float]:
    """``latency=10ms,macs=5G,params=30M,memory=8GiB`` -> limits by quantity, in s, B, J or counts.

    Raises InputError for another quantity, one twice, and a limit that is no amount of it.

    >>> parse_budget("latency=10ms, macs=5G")
    {'latency': 0.01, 'macs': 5000000000.0}
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, limit = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(librarian(f"{part!r} is no budget", do="Write such as latency=10ms,macs=5G,memory=8GiB."))
        if name in found:
            raise InputError(f"the budget says {name} twice")
        found[name] = parse_limit(name, limit)
    if not found:
        raise InputError(librarian("the budget is empty", there_is=list(QUANTITIES)))
    return found


def parse_limit(name: str, limit: str | float) -> float:
    """The limit of a quantity, a number in its base unit or a text with a unit. Raises InputError."""
    if name not in QUANTITIES:
        near = near_matches(name, QUANTITIES)
        raise InputError(librarian(f"there is no budget of {name!r}", there_is=list(QUANTITIES), near=near))
    if not isinstance(limit, str):
        value = float(limit)
    elif QUANTITIES[name].unit in ("s", "B", "J"):
        try:
            value = parse_quantity(limit, QUANTITIES[name].unit)
        except InputError as error:
            raise InputError(f"the budget {name}={limit}: {error}") from error
    else:
        match = _COUNT.fullmatch(limit)
        if match is None:
            raise InputError(librarian(f"{name}={limit} is no number", do=f"Write such as {name}=5e6 or {name}=5M."))
        value = float(match[1]) * _FACTORS[match[2]]
    if not 0 <= value < float("inf"):
        raise InputError(f"{name}={limit} is no limit that anything could keep to")
    return value
