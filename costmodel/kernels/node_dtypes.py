"""NodeDtypes: what is known of a node's tensors in a run, and which tensors are weights that autocast casts once."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.graph import OpGraph
from costmodel.tensor import Role

__all__ = ["FLOATING", "LOW", "NodeDtypes", "weight_of"]

#: Dtypes that autocast casts to, and all that it casts.
LOW = frozenset({"float16", "bfloat16"})
FLOATING = LOW | {"float32"}


@dataclass(frozen=True, slots=True)
class NodeDtypes:
    """Run-time dtypes of a node: its inputs as read (after casts), its outputs.

    ``casts`` are the positions of inputs that a cast kernel precedes, ``had`` their dtypes before it;
    ``released`` are positions of outputs that a cast kernel follows, and the dtype that it casts to;
    ``as_traced`` says that nothing differs from the trace.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    casts: tuple[int, ...] = ()
    had: tuple[str, ...] = ()
    as_traced: bool = False
    released: tuple[tuple[int, str], ...] = ()


def weight_of(graph: OpGraph, tensor: int) -> int | None:
    """The storage of the weight that a tensor is, None where it is none.

    A linear layer that autograd records is a product with ``weight.t()``; autocast casts the weight ahead of both, so
    that its transpose counts as the weight itself.
    """
    found = graph.tensors[tensor]
    if graph.specs[found.spec].role is Role.PARAMETER:
        return found.storage
    if found.producer is not None and graph.nodes[found.producer].op == "aten.t":
        source = graph.nodes[found.producer].inputs[0]
        return weight_of(graph, source)
    return None
