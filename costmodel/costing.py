"""A Cost for every call of a graph, and what could not be costed.

Works on bound graphs (integers) and on symbolic ones (sympy) with the same formulas.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from costmodel.cost import Cost, total
from costmodel.formulas import cost_of, default_cost, is_free
from costmodel.graph import OpGraph

__all__ = ["Coverage", "GraphCosts", "Uncosted", "closed_forms", "cost_graph", "plus"]


@dataclass(frozen=True, slots=True)
class Uncosted:
    """An operator without a formula: how often it occurs and what share of traffic and time it stands for."""

    op: str
    count: int
    bytes: int
    bytes_share: float
    time_share: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Operators with a formula, views, and operators without: ``ops = costed + free + uncosted``."""

    ops: int
    costed: int
    free: int
    uncosted: tuple[Uncosted, ...] = ()


class GraphCosts:
    """Costs of a graph: ``of_call[i]`` for the i-th distinct call, ``of_node(i)``, ``total``."""

    def __init__(self, graph: OpGraph, of_call: list[Cost], uncosted_calls: frozenset[int]) -> None:
        self.graph, self.of_call, self.uncosted_calls = graph, of_call, uncosted_calls

    def of_node(self, index: int) -> Cost:
        """Cost of one node."""
        return self.of_call[self.graph.nodes[index].call]

    @cached_property
    def total(self) -> Cost:
        """Sum over all nodes. On a symbolic graph, ``total.flops`` is the network's closed form."""
        return total(cost * count for cost, count in zip(self.of_call, self.graph.call_counts, strict=True))

    @cached_property
    def uncosted(self) -> Counter[str]:
        """Operators without a formula and how many nodes they have."""
        counts = Counter[str]()
        for index in self.uncosted_calls:
            counts[self.graph.calls[index].op] += self.graph.call_counts[index]
        return counts

    @cached_property
    def free_count(self) -> int:
        """Nodes that are views."""
        return sum(
            count for call, count in zip(self.graph.calls, self.graph.call_counts, strict=True) if is_free(call.op)
        )


def cost_graph(graph: OpGraph) -> GraphCosts:
    """Cost every distinct call of ``graph``; operators without a formula get the default rule and are named.

    Raises FormulaError when a formula fails.
    """
    costs, uncosted = [], set()
    for index, call in enumerate(graph.calls):
        arguments, results = graph.arguments(call), graph.results(call)
        cost = cost_of(call.op, arguments, results)
        if cost is None:
            uncosted.add(index)
            cost = default_cost(arguments, results)
        costs.append(cost)
    return GraphCosts(graph, costs, frozenset(uncosted))


def closed_forms(costs: GraphCosts) -> dict[str, str]:
    """Factored closed forms of the totals, as text, keyed by quantity."""
    total = costs.total
    return {
        name: _closed_form(getattr(total, name))
        for name in ("flops", "macs", "bytes_read", "bytes_written", "activations")
    }


def plus(form: str, more: int) -> str:
    """A closed form and a number, in one number where the form ends with one.

    >>> plus("12*batch + 5", 30), plus("12*batch - 5", 2), plus("batch*(2*height + 7)", 30), plus("7*batch", 0)
    ('12*batch + 35', '12*batch - 3', 'batch*(2*height + 7) + 30', '7*batch')
    """
    found = re.fullmatch(r"(.*) ([+-]) (\d+)", form)
    if found is None or found[1].count("(") != found[1].count(")"):
        return f"{form} + {more}" if more else form
    number = (1 if found[2] == "+" else -1) * int(found[3]) + more
    return f"{found[1]} {'+' if number > 0 else '-'} {abs(number)}" if number else found[1]


def _closed_form(expression: Any) -> str:
    """The expression collected by its rounded sizes, with the batch taken out."""
    if isinstance(expression, int):
        return str(expression)
    import sympy

    expanded = sympy.expand(expression)
    batch = sympy.Symbol("batch", positive=True, integer=True)
    rest = expanded.coeff(batch, 1)
    if sympy.expand(expanded - batch * rest) == 0 and rest.is_Add:
        return f"batch*({rest})"
    return str(expanded)
