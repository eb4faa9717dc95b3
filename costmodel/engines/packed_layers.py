"""with_library_layers(): a program with packed weights as Python runs it, in the layers of its library."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from costmodel.graph import OpGraph
from costmodel.kernels.packed_layers import layer_for

__all__ = ["with_library_layers"]


def with_library_layers(graph: OpGraph) -> OpGraph:
    """``graph`` with each packed product under the name of the layer that its library puts in a model; the graph itself
    where there is none. Kept with the graph."""
    if "library layers" not in graph.memo:
        graph.memo["library layers"] = _rewritten(graph)
    found: OpGraph = graph.memo["library layers"]
    return found


def _rewritten(graph: OpGraph) -> OpGraph:
    calls, found = list(graph.calls), False
    for index, call in enumerate(calls):
        if call.op == "costmodel.packed_linear":
            arguments: dict[str, Any] = dict(call.arguments)
            layer = layer_for(arguments["method"], arguments["bits"])
            if layer is not None:
                calls[index], found = replace(call, op=layer.op), True
    if not found:
        return graph
    nodes = [node if calls[node.call].op == node.op else replace(node, op=calls[node.call].op) for node in graph.nodes]
    return replace(graph, calls=calls, nodes=nodes, general=None, memo={})
