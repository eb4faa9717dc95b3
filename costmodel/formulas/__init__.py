"""What every operator costs: one formula each, symbolic and exact. ``@formula`` adds your own."""

from __future__ import annotations

from costmodel.formulas.registry import Formula, cost_of, default_cost, formula, free, is_free, known_operators, lookup

__all__ = ["Formula", "cost_of", "default_cost", "formula", "free", "is_free", "known_operators", "lookup"]
