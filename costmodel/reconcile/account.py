"""Account: our count, a tool's, and what lies between them, reason by reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from costmodel.costing import GraphCosts
from costmodel.graph import OpGraph
from costmodel.reconcile.seen import Seen, seen_nodes
from costmodel.reconcile.tools import TOOLS, Rule, Tool

__all__ = ["Account", "Difference", "reconcile"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One reason for which a tool counts otherwise: how much more (negative: less), in its unit, and where.

    ``operators`` are those that it concerns, by name; ``count`` how many; ``example`` the node with most of it.
    """

    reason: str
    amount: int
    operators: tuple[str, ...]
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Account:
    """One tool: ``ours`` in its unit, the differences, the largest first, and ``total``, what it prints.

    ``openly`` is what it prints besides where operators are written as functions, which a graph does not know.
    """

    tool: Tool
    ours: int
    differences: tuple[Difference, ...]
    total: int
    openly: tuple[Difference, ...] = ()


def reconcile(graph: OpGraph, costs: GraphCosts, tools: Iterable[Tool] = TOOLS) -> list[Account]:
    """What each tool prints for a graph in numbers, and why. ``costs`` are those of the graph's nodes, as traced."""
    nodes = list(seen_nodes(graph, costs))
    return [_account(tool, nodes) for tool in tools]


def _account(tool: Tool, nodes: list[Seen]) -> Account:
    factor = 2 if tool.unit == "FLOP" else 1
    found, openly = (_by_reason(rule, nodes) for rule in (tool.differences, tool.openly))
    ours = factor * sum(node.macs for node in nodes)
    return Account(tool, ours, found, ours + sum(difference.amount for difference in found), openly)


def _by_reason(rule: Rule, nodes: list[Seen]) -> tuple[Difference, ...]:
    parts: dict[str, list[tuple[int, Seen]]] = {}
    for node in nodes:
        for amount, reason in rule(node):
            if amount:
                parts.setdefault(reason, []).append((amount, node))
    found = [_difference(reason, of) for reason, of in parts.items()]
    return tuple(sorted(found, key=lambda difference: (-abs(difference.amount), difference.reason)))


def _difference(reason: str, of: list[tuple[int, Seen]]) -> Difference:
    largest = max(of, key=lambda part: abs(part[0]))[1]
    operators = tuple(dict.fromkeys(node.op for _, node in of))
    return Difference(
        reason, sum(amount for amount, _ in of), operators, len({node.name for _, node in of}), largest.name
    )
