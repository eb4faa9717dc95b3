"""Where a layer crosses a machine's ridge point: the size at which the peak takes over from the bandwidth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel.cost import Cost
from costmodel.symbols import as_expr, symbol

if TYPE_CHECKING:
    import sympy

    from costmodel.costing import GraphCosts

__all__ = ["Crossing", "intensity", "node_crossing", "ridge_crossing"]


@dataclass(frozen=True, slots=True)
class Crossing:
    """The size ``name`` at which the arithmetic intensity reaches the ridge point.

    ``expression`` is that size in the symbol ``I`` (the ridge point, FLOP/B) and whatever else was left open, None
    where no size reaches it; ``limit`` the intensity (FLOP/B) as the size grows without end; ``value`` the smallest
    whole size at the given ridge point, None where there is none or other symbols are open.
    """

    name: str
    expression: sympy.Expr | None
    limit: sympy.Expr
    value: int | None


def intensity(cost: Cost) -> sympy.Expr:
    """FLOP per byte of compulsory traffic."""
    import sympy

    return sympy.cancel(as_expr(cost.flops) / as_expr(cost.bytes))


def ridge_crossing(cost: Cost, name: str, ridge: float | None = None) -> Crossing:
    """Solve intensity(cost) = I for the size called ``name``; ``ridge`` is a machine's I in FLOP/B.

    >>> from costmodel.claims import conv, maps
    >>> layer = conv(256, 1)(maps(256, 7, 7, batch="N"))      # weights of 256 KiB, maps of 49 KiB a sample
    >>> ridge_crossing(layer.cost, "N", ridge=40).value       # 128*40/(49*(64 - 40)) samples
    5
    """
    import sympy

    size, roof = symbol(name), sympy.Symbol("I", positive=True)
    flops_per_byte = intensity(cost)
    limit = sympy.limit(flops_per_byte, size, sympy.oo)
    solutions = sympy.solve(sympy.Eq(flops_per_byte, roof), size)
    found = solutions[0] if solutions else None
    return Crossing(name, found, limit, _whole(found, roof, limit, ridge))


def _whole(found: sympy.Expr | None, roof: sympy.Symbol, limit: sympy.Expr, ridge: float | None) -> int | None:
    """The smallest whole size beyond the ridge, where the intensity gets there at all."""
    if found is None or ridge is None or found.free_symbols - {roof}:
        return None
    if limit.is_number and float(limit) <= ridge:
        return None
    return max(1, math.ceil(float(found.subs(roof, ridge)) - 1e-9))


def node_crossing(costs: GraphCosts, node: int, name: str = "batch", ridge: float | None = None) -> Crossing:
    """The same for a node of a traced graph: ``node_crossing(analysis.costs, 0, ridge=201.0)`` for its batch.

    ``costs`` are symbolic (``analysis.costs``), in the dtype of the trace (fp32).
    """
    return ridge_crossing(costs.of_node(node), name, ridge)
