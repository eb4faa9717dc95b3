"""Choices: which machine, at which batch, under a limit on latency or throughput, and at what cost."""

from __future__ import annotations

from costmodel.choices.choice import Choice, Excluded, Limits, Option, choose
from costmodel.choices.prices import Prices, read_prices

__all__ = ["Choice", "Excluded", "Limits", "Option", "Prices", "choose", "read_prices"]
