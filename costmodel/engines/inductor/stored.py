"""What Inductor's lowering leaves to its scheduler: stored results, and the values that they read and write."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["Buffer", "Lowered", "Value"]


@dataclass(frozen=True, slots=True)
class Value:
    """Something that may lie in memory: a spec of the graph (-1: statistics, too small to count) and its dtype."""

    spec: int
    dtype: str
    root: int
    """The value whose memory it is a view of; itself, where it has memory of its own."""


@dataclass(slots=True)
class Buffer:
    """One stored result before fusion: what computing it reads, the nodes whose arithmetic that is, its loops.

    ``nodes`` are those that nobody has computed before, ``again`` those that another buffer computes as well; both
    hold ``~n`` where only the bias of convolution ``n`` is meant. ``space`` is the spec whose elements the
    loops run over; ``rows`` the spec that a reduction leaves (-1: none, or a normalization, which keeps its loops).
    ``kind``: pointwise, pool, reduction (over the fastest dimension), outer_reduction, norm, softmax, statistics
    (of group norm), cast or extern.
    """

    kind: str
    reads: frozenset[int]
    writes: tuple[int, ...]
    nodes: tuple[int, ...]
    space: int = -1
    rows: int = -1
    after: tuple[int, ...] = ()
    asked_by: int = 0
    """The node that made it necessary: whom a kernel serves that does no node's arithmetic first (a cast, a copy)."""
    again: tuple[int, ...] = ()
    apart: frozenset[int] = frozenset()
    """Roots of what it reads at other places than those at which its loops stand: under windows."""
    lying: tuple[bool, ...] = ()
    """Of a library's kernel: for each operand whether it lay in memory before; others are stored as it wants them."""


@dataclass
class Lowered:
    """All buffers in program order, the values that they read and write, and who wrote each stored value."""

    buffers: list[Buffer] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    makers: dict[int, list[int]] = field(default_factory=dict)
    """Root value -> buffers that write it; several for a join."""
    inputs: set[int] = field(default_factory=set)
    """Inputs of the graph."""
    kept: set[int] = field(default_factory=set)
    """Roots that somebody reads outside every kernel: outputs of the graph, parts of a join."""

    @cached_property
    def readers(self) -> dict[int, set[int]]:
        """Root value -> buffers that read it."""
        found: dict[int, set[int]] = {value.root: set() for value in self.values}
        for index, buffer in enumerate(self.buffers):
            for value in buffer.reads:
                found[self.values[value].root].add(index)
        return found
