"""Budgets: a gate for models in CI. Limits of their own, or no growth over a baseline, with the layers that grew."""

from __future__ import annotations

from costmodel.budgets.baseline import Baseline, Entry, entry_of, read_baseline
from costmodel.budgets.gate import Held, Verdict, hold, parse_allowance
from costmodel.budgets.quantities import QUANTITIES, parse_budget, parse_limit

__all__ = [
    "QUANTITIES",
    "Baseline",
    "Entry",
    "Held",
    "Verdict",
    "entry_of",
    "hold",
    "parse_allowance",
    "parse_budget",
    "parse_limit",
    "read_baseline",
]
