"""Measured time on the nodes of a graph: every recorded operator and kernel finds the node that it ran for.

Operators were recorded in the order in which the graph has them, so the two sequences are aligned by name and shapes
(:mod:`costmodel.measure.alignment`). What has no partner lies in a gap between two that have: a kernel that a compiler
fused goes to the nodes of the gap that its name mentions, another operator to the node of the gap whose work it must
be doing. What finds no node is reported by its name.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from costmodel.formulas import is_free
from costmodel.graph import OpGraph
from costmodel.measure.alignment import Token, align
from costmodel.measure.events import Recording, Step
from costmodel.measure.items import Item, Vocabulary, items_of
from costmodel.measure.names import CONTRACTIONS, class_of, names_in_fused, signature
from costmodel.measure.refusal import check_same_model

__all__ = ["Attribution", "NodeTime", "attribute", "graph_tokens"]


@dataclass(slots=True)
class NodeTime:
    """Measured time of one node in µs, and the kernels that make it up.

    ``us`` is on the device where a GPU ran, else on the host. A kernel that serves several nodes is booked on the
    first of them, as predictions are; the others name that node's index in ``runs_in``.
    """

    us: float = 0.0
    host_us: float = 0.0
    kernels: list[tuple[str, float]] = field(default_factory=list)
    runs_in: int | None = None

    def add(self, item: Item) -> None:
        """Book a piece of measured work here."""
        self.us += item.us
        self.host_us += item.host_us
        self.kernels += item.kernels


@dataclass(frozen=True, slots=True)
class Attribution:
    """Measured time of every node, and what belongs to none, by name; medians over the steps, in µs.

    ``step_us`` is the time of a step as recorded, where steps were marked.
    """

    nodes: tuple[NodeTime, ...]
    unattributed: tuple[tuple[str, float], ...]
    step_us: float | None
    steps: int

    @property
    def attributed_us(self) -> float:
        """Time on nodes."""
        return sum(node.us for node in self.nodes)

    @property
    def share(self) -> float:
        """Time on nodes over the time of all recorded operators."""
        whole = self.attributed_us + sum(us for _, us in self.unattributed)
        return self.attributed_us / whole if whole else 1.0


def attribute(recording: Recording, graph: OpGraph, *, strict: bool = False) -> Attribution:
    """Place a recording on ``graph``, whose sizes are numbers.

    ``strict`` raises InputError where the recording is of another model or other sizes, naming nodes that differ.
    """
    vocabulary, tokens = (
        Vocabulary.of({node.op for node in graph.nodes}, trains=bool(graph.gradients)),
        graph_tokens(graph),
    )
    known: dict[tuple[Token, ...], list[tuple[int, int]]] = {}
    placed = []
    for step in _split(recording, vocabulary, tokens):
        items, duration_us = step
        key = tuple(item.token for item in items)
        pairs = known.get(key)
        if pairs is None:
            pairs = known[key] = align(tokens, key)
            if strict:
                check_same_model(graph, tokens, items, pairs)
        placed.append((*_Placing(graph, items, pairs).run(), duration_us))
    return _median(placed)


def graph_tokens(graph: OpGraph) -> list[Token]:
    """What each node of a bound graph looks like to a profiler: class, name and sizes of its tensors."""
    of_call: dict[int, Token] = {}
    found = []
    for node in graph.nodes:
        if node.call not in of_call:
            shapes = [tuple(graph.specs[graph.tensors[t].spec].shape) for t in node.inputs]
            kind = class_of(node.op)
            sizes = signature(node.op, shapes)  # type: ignore[arg-type]
            of_call[node.call] = Token(kind, node.op, sizes, kind in CONTRACTIONS)
        found.append(of_call[node.call])
    return found


def _split(
    recording: Recording, vocabulary: Vocabulary, tokens: Sequence[Token]
) -> list[tuple[list[Item], float | None]]:
    """Pieces of every step. Where nothing is marked, a recording that repeats itself is taken apart."""
    if recording.marked or len(recording.steps) > 1:
        return [(items_of(step.events, vocabulary, recording.on_device), step.duration_us) for step in recording.steps]
    (step,) = recording.steps
    items = items_of(step.events, vocabulary, recording.on_device)
    wanted = sum(token.exact for token in tokens)
    times = round(sum(item.token.exact and not item.foreign for item in items) / wanted) if wanted else 1
    if times > 1 and len(items) % times == 0:
        length = len(items) // times
        parts = [items[i : i + length] for i in range(0, len(items), length)]
        if all([i.name for i in part] == [i.name for i in parts[0]] for part in parts):
            return [(part, None) for part in parts]
    return [(items, _wall_us(step))]


def _wall_us(step: Step) -> float:
    return max(event.end_us for event in step.events) - min(event.start_us for event in step.events)


class _Placing:
    """Places the pieces of one step on nodes, given the pairs that the alignment found."""

    def __init__(self, graph: OpGraph, items: Sequence[Item], pairs: Sequence[tuple[int, int]]) -> None:
        self.graph, self.items = graph, items
        self.node_of = {item: node for node, item in pairs}
        self.paired = {node for node, _ in pairs}
        self.times = [NodeTime() for _ in graph.nodes]
        self.claimed: set[int] = set()
        self.unattributed: dict[str, float] = {}

    def run(self) -> tuple[list[NodeTime], dict[str, float]]:
        """Times by node, and time without a node by name."""
        before, after = self._neighbours()
        inside = {
            item.inside: self.node_of[i] for i, item in reversed(list(enumerate(self.items))) if i in self.node_of
        }
        for position, item in enumerate(self.items):
            if position in self.node_of:
                self.times[self.node_of[position]].add(item)
            elif item.inside is not None and item.inside in inside and item.rest:
                self.times[inside[item.inside]].add(item)
            else:
                self._place_in_gap(item, before[position], after[position])
        return self.times, self.unattributed

    def _neighbours(self) -> tuple[list[int], list[int]]:
        """For every piece, the nodes of the nearest paired pieces before and after it."""
        before, after = [-1] * len(self.items), [len(self.graph.nodes)] * len(self.items)
        last = -1
        for i in range(len(self.items)):
            before[i] = last
            last = self.node_of.get(i, last)
        following = len(self.graph.nodes)
        for i in reversed(range(len(self.items))):
            after[i] = following
            following = self.node_of.get(i, following)
        return before, after

    def _place_in_gap(self, item: Item, before: int, after: int) -> None:
        gap = [n for n in range(before + 1, after) if n not in self.paired]
        nodes = self._fused_nodes(item, gap, before, after) if item.fused else self._likely_node(gap)
        if not nodes:
            self.unattributed[item.name] = self.unattributed.get(item.name, 0.0) + item.us
            return
        self.claimed.update(nodes)
        self.times[nodes[0]].add(item)
        for other in nodes[1:]:
            if not self.times[other].kernels:
                self.times[other].runs_in = nodes[0]

    def _fused_nodes(self, item: Item, gap: Sequence[int], before: int, after: int) -> list[int]:
        """Nodes of the gap that a fused kernel's name mentions: those not taken yet, else the last that was;
        then the paired neighbours (a kernel that lays out a convolution's input is named after it)."""
        named = [n for n in gap if names_in_fused(self.graph.nodes[n].op, item.fused)]
        fresh = [n for n in named if n not in self.claimed]
        if fresh or named:
            return fresh or named[-1:]
        beside = [n for n in (after, before) if 0 <= n < len(self.graph.nodes)]
        return [n for n in beside if names_in_fused(self.graph.nodes[n].op, item.fused)][:1] or self._likely_node(gap)

    def _likely_node(self, gap: Sequence[int]) -> list[int]:
        """The node of a gap that unknown work must be for: a contraction, else the first that computes at all."""
        working = [n for n in gap if not self._is_idle(n)]
        heavy = [n for n in working if class_of(self.graph.nodes[n].op) in CONTRACTIONS]
        return (heavy or working)[:1]

    def _is_idle(self, index: int) -> bool:
        """A view, or what makes a tensor out of none (a grid of positions): a model may do that once and keep it."""
        node = self.graph.nodes[index]
        return is_free(node.op) or not node.inputs


def _median(placed: Sequence[tuple[list[NodeTime], dict[str, float], float | None]]) -> Attribution:
    """The middle step of every node, so that its kernels still add up; medians of the rest."""
    nodes = tuple(
        sorted((times[index] for times, _, _ in placed), key=lambda time: time.us)[(len(placed) - 1) // 2]
        for index in range(len(placed[0][0]))
    )
    names = dict.fromkeys(name for _, rest, _ in placed for name in rest)
    unattributed = {name: statistics.median(rest.get(name, 0.0) for _, rest, _ in placed) for name in names}
    durations = [us for _, _, us in placed if us is not None]
    return Attribution(
        nodes,
        tuple(sorted(unattributed.items(), key=lambda pair: -pair[1])),
        statistics.median(durations) if durations else None,
        len(placed),
    )
