"""Whether the model that was built here is the one that was measured: its parameters and MACs as a row states them.

A library can give one name to different networks in different releases. A row that states parameters or MACs can be
checked; the tolerance is half a unit of the last digit that was written, and for MACs what counters differ in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from costmodel.analysis import Analysis
from costmodel.errors import CostmodelError
from costmodel.units import format_count, format_quantity

__all__ = ["OtherNetworkError", "Stated", "check_network", "stated"]

#: Operators whose MACs counters of the field leave out (fvcore knows no recurrent layer and no fused attention).
_LEFT_OUT = ("lstm", "gru", "rnn", "attention")


class OtherNetworkError(CostmodelError):
    """The network as built has other parameters or MACs than the row says. ``details`` says how many."""

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(reason)
        self.details = details


@dataclass(frozen=True, slots=True)
class Stated:
    """A rounded figure as a file states it: the value and half a unit of its last digit, both in base units."""

    value: float
    half_digit: float

    def holds(self, low: float, high: float) -> bool:
        """Whether some number from ``low`` to ``high`` reads as this figure.

        >>> Stated(15.41e6, 5e3).holds(15.414e6, 15.414e6), Stated(15.41e6, 5e3).holds(15.42e6, 25e6)
        (True, False)
        """
        slack = self.half_digit * (1 + 1e-9)  # 0.005 has no exact binary fraction
        return low - slack <= self.value <= high + slack


def stated(record: Mapping[str, str], column: str, unit: float) -> Stated | None:
    """The figure in a column of a row, times ``unit``; None where the column is absent, empty or no number above 0.

    >>> stated({"params_m": "15.41"}, "params_m", 1e6)
    Stated(value=15410000.0, half_digit=5000.0)
    """
    text = (record.get(column) or "").strip()
    digits, _, exponent = text.lower().partition("e")
    decimals = len(digits.partition(".")[2])
    try:
        value, half = float(text), 0.5 * 10.0 ** (int(exponent or 0) - decimals)
    except ValueError:
        return None
    return Stated(value * unit, half * unit) if 0 < value < float("inf") else None


def check_network(analysis: Analysis, params: Stated | None, macs: Stated | None) -> None:
    """Raise :class:`OtherNetworkError` unless the network has these ``params`` and so many ``macs`` a sample.

    Parameters are the same in every tool. MACs are not: some tools count a MAC for each element of a normalization or
    a pool, some leave recurrent layers and fused attention out. So a figure is this network's where it lies between
    the MACs of all other contractions and all MACs plus one for each other FLOP.
    """
    built = analysis.record.param_count
    if params is not None and not params.holds(built, built):
        raise OtherNetworkError(
            "another network: parameters as built differ",
            f"{format_count(built, 4)} parameters as built, {format_count(params.value, 4)} in the row",
        )
    if macs is None:
        return
    batch, totals = analysis.execution.batch, analysis.totals
    least = (totals.macs - _hidden_macs(analysis)) / batch
    if not macs.holds(least, (totals.macs + totals.vector_flops) / batch):
        raise OtherNetworkError(
            "another network: MACs as built differ",
            f"{format_quantity(totals.macs / batch, 'MAC', 4)} as built, "
            f"{format_quantity(macs.value, 'MAC', 4)} in the row",
        )


def _hidden_macs(analysis: Analysis) -> float:
    """MACs of a step in operators that other counters leave out."""
    costs = analysis.node_costs
    return sum(
        count * float(cost.macs)
        for call, cost, count in zip(costs.graph.calls, costs.of_call, costs.graph.call_counts, strict=True)
        if any(word in call.op for word in _LEFT_OUT)
    )
