"""The receptive field of every node of a graph in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.receptive_field.field import Field
from costmodel.receptive_field.rules import follow
from costmodel.receptive_field.state import NotFollowed, Site, State
from costmodel.receptive_field.step import Step

if TYPE_CHECKING:
    from costmodel.graph import OpGraph

__all__ = ["map_sizes", "receptive_fields"]

#: Axes of an input that positions run along, by its rank: text, sequences, pictures, films.
_SPATIAL = {3: (2,), 4: (2, 3), 5: (2, 3, 4)}


def receptive_fields(graph: OpGraph) -> list[tuple[Field, ...] | None]:
    """The fields of every node's (first) result, one for each spatial axis of the model's first input.

    ``graph`` is bound to numbers. None where a node depends on no input, or where positions were rearranged in a
    way that no window describes (shifted windows, gathers). Batch normalization is taken as in inference; whatever
    normalizes over a map, pools it or attends over it sees all of it. Padding counts.
    """
    return [None if state is None else tuple(site.field for site in state) for state in _states(graph)]


def map_sizes(graph: OpGraph) -> list[str]:
    """The size of the maps that every node puts out, such as ``56x56``: ``1x1`` behind global pooling, flattened
    tokens as the rows and columns that they came from, empty where there are no maps or none that can be followed."""
    return ["" if state is None else "x".join(str(site.count) for site in state) for state in _states(graph)]


def _states(graph: OpGraph) -> list[State | None]:
    """The state of every node's first result; worked out once for each binding of a graph."""
    key = ("receptive field", *(graph.specs[graph.tensors[t].spec].shape for t in graph.inputs))
    found: list[State | None] | None = graph.memo.get(key)
    if found is None:
        found = graph.memo[key] = _followed(graph)
    return found


def _followed(graph: OpGraph) -> list[State | None]:
    known: dict[int, State | None] = {}
    start = _sites(graph)
    if start is not None:
        known[start[0]] = start[1]
    states: list[State | None] = []
    for node in graph.nodes:
        depends = any(t in known for t in node.inputs)
        results = _results(graph, node.call, node.inputs, node.outputs, known) if depends else {}
        known |= results
        states.append(results.get(node.outputs[0]) if node.outputs else None)
    return states


def _sites(graph: OpGraph) -> tuple[int, State] | None:
    """The first input that has positions, and its sites."""
    for tensor in graph.inputs:
        spec = graph.specs[graph.tensors[tensor].spec]
        is_text = spec.dtype.startswith("int") and len(spec.shape) == 2
        axes = (1,) if is_text else _SPATIAL.get(len(spec.shape), ())
        if axes:
            return tensor, tuple(Site(Field(), axis, int(spec.shape[axis])) for axis in axes)
    return None


def _results(
    graph: OpGraph, call: int, inputs: tuple[int, ...], outputs: tuple[int, ...], known: dict[int, State | None]
) -> dict[int, State | None]:
    """The states of a node's results; None for all where it, or one of its operands, is not followed."""
    operands = []
    for tensor in inputs:
        state = known.get(tensor)
        if tensor in known and state is None:
            return dict.fromkeys(outputs)
        operands.append((graph.specs[graph.tensors[tensor].spec], state))
    made = graph.calls[call]
    specs = [graph.specs[graph.tensors[t].spec] for t in outputs]
    try:
        state = follow(Step(made.op, graph.arguments(made), operands, specs[0])) if specs else None
    except NotFollowed:
        state = None
    return dict.fromkeys(outputs, state)
