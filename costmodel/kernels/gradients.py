"""Dtypes of the backward pass under autocast: which gradients are cast, and which saved tensors are copies.

The backward pass runs outside autocast. A node reads what its forward node saved in the dtype in which the forward node
used it (the copy that autocast made lives on, no new cast runs), takes gradients in the dtype of its forward node's
result and gives them in the dtype of the operands as they were used. Where two meet that differ, a cast runs: the
backward of the forward pass's own casts. A gradient that ends in ``.grad`` has the dtype of its parameter; a weight's
cast is made once a step, and so is the cast of its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from costmodel.execution import NodePhase
from costmodel.graph import OpGraph
from costmodel.kernels.node_dtypes import FLOATING, LOW, NodeDtypes
from costmodel.nodes import OpNode
from costmodel.tensor import Role

__all__ = ["Gradients"]

#: Backward operators whose further results, gradients of a scale and a shift, have the dtype of those: fp32.
_WIDE_SCALES = frozenset(
    f"aten.{name}" for name in "native_batch_norm_backward cudnn_batch_norm_backward batch_norm_backward".split()
)
#: Backward operators that write the dtype that their forward node read, whatever they read themselves.
_NARROWING = frozenset({"aten._softmax_backward_data", "aten._log_softmax_backward_data"})
#: Operators by which autograd adds up the gradients of a tensor with several readers.
_ADDITIONS = frozenset({"aten.add", "aten.add_"})


class Gradients:
    """Follows dtypes through the backward nodes of a graph; ``run`` holds those of all tensors and is kept up."""

    def __init__(self, graph: OpGraph, traced: Sequence[str], run: list[str]) -> None:
        self.graph, self.traced, self.run = graph, traced, run

    def is_recomputed(self, node: OpNode) -> bool:
        """Whether a node of the backward pass is one of the forward pass that a checkpoint runs again, in autocast."""
        return node.phase is NodePhase.BACKWARD and node.forward is None and bool(node.module)

    def node(self, index: int, known: Sequence[NodeDtypes]) -> NodeDtypes:
        """Dtypes of the ``index``-th node, of the backward pass; ``known`` are those of the nodes before it."""
        node = self.graph.nodes[index]
        forward = None if node.forward is None else (self.graph.nodes[node.forward], known[node.forward])
        have = tuple(self.run[t] for t in node.inputs)
        if forward is None or node.op in _ADDITIONS:
            read = self._added(node, have, known)
        else:
            used = self._used(*forward)
            read = tuple(
                dtype if dtype not in FLOATING else used.get(t) or self._as_wanted(t, dtype, node, *forward)
                for t, dtype in zip(node.inputs, have, strict=True)
            )
        casts = tuple(
            i
            for i, (t, a, b) in enumerate(zip(node.inputs, have, read, strict=True))
            if a != b and self._is_gradient(t)
        )
        written = self._written(node, read, None if forward is None else forward[1])
        for tensor, dtype in zip(node.outputs, written, strict=True):
            self.run[tensor] = dtype
        released = self._released(node, written)
        for position, dtype in released:
            self.run[node.outputs[position]] = dtype
        return NodeDtypes(read, written, casts, have if casts else (), released=released)

    def _is_gradient(self, tensor: int) -> bool:
        producer = self.graph.tensors[tensor].producer
        if producer is None:
            return False
        node = self.graph.nodes[producer]
        return node.phase is NodePhase.BACKWARD and not self.is_recomputed(node)

    def _used(self, forward: OpNode, types: NodeDtypes) -> dict[int, str]:
        """Dtypes in which a forward node used its operands and gave its results, by tensor."""
        given = dict(zip(forward.outputs, types.outputs, strict=True))
        return given | dict(zip(forward.inputs, types.inputs, strict=True))

    def _as_wanted(self, tensor: int, dtype: str, node: OpNode, forward: OpNode, types: NodeDtypes) -> str:
        """The dtype of a gradient that comes from another node: that of the forward node's result of its shape."""
        producer = self.graph.tensors[tensor].producer
        if producer is None or not self._is_gradient(tensor):
            return dtype
        before = self.graph.nodes[producer]
        if before.forward == node.forward and before.op not in _ADDITIONS:
            return dtype  # made by the same node of autograd
        return self._result(tensor, forward, types) or dtype

    def _result(self, tensor: int, forward: OpNode, types: NodeDtypes) -> str | None:
        """Dtype of the forward node's result that a gradient belongs to: the one of its shape, else the first."""
        shape = self._shape(tensor)
        results = [(t, d) for t, d in zip(forward.outputs, types.outputs, strict=True) if d in FLOATING]
        same = (d for t, d in results if self._shape(t) == shape)
        return next(same, results[0][1] if results else None)

    def _shape(self, tensor: int) -> tuple[object, ...]:
        return self.graph.specs[self.graph.tensors[tensor].spec].shape

    def _added(self, node: OpNode, have: tuple[str, ...], known: Sequence[NodeDtypes]) -> tuple[str, ...]:
        """Gradients are cast before they are added up: the sum has the dtype of the tensor that it belongs to."""
        wanted = self._of_tensor(node.outputs[0], known) if node.outputs else None
        kinds = set(have) & FLOATING
        wanted = wanted or (kinds.pop() if len(kinds) == 1 else "float32")
        if node.op not in _ADDITIONS:
            return have
        return tuple(wanted if d in FLOATING else d for d in have)

    def _of_tensor(self, gradient: int, known: Sequence[NodeDtypes]) -> str | None:
        """Dtype of the forward tensor that a sum of gradients belongs to, told by the node that reads the sum."""
        for _ in range(len(self.graph.nodes)):
            reader = self._readers.get(gradient)
            if reader is None:
                return None
            node = self.graph.nodes[reader]
            if node.op in _ADDITIONS:
                if not node.outputs:
                    return None
                gradient = node.outputs[0]
            elif node.forward is None or node.forward >= len(known):
                return None
            else:
                return self._result(gradient, self.graph.nodes[node.forward], known[node.forward])
        return None

    @cached_property
    def _readers(self) -> Mapping[int, int]:
        """The first backward node that reads each tensor."""
        found: dict[int, int] = {}
        for index, node in enumerate(self.graph.nodes):
            if node.phase is NodePhase.BACKWARD:
                for tensor in node.inputs:
                    found.setdefault(tensor, index)
        return found

    def _written(self, node: OpNode, read: tuple[str, ...], forward: NodeDtypes | None) -> tuple[str, ...]:
        first = next((d for d in read if d in FLOATING), "float32")
        if node.op in _NARROWING and forward is not None and forward.inputs:
            first = forward.inputs[0]
        elif node.op not in _WIDE_SCALES:
            first = self._promoted(node, read)
        dtypes = []
        for position, tensor in enumerate(node.outputs):
            wide = node.op in _WIDE_SCALES and position > 0
            dtypes.append(self.traced[tensor] if self.traced[tensor] != "float32" else "float32" if wide else first)
        return tuple(dtypes)

    def _promoted(self, node: OpNode, read: tuple[str, ...]) -> str:
        """torch's type promotion: tensors with dimensions outrank scalars; statistics in fp32 outrank nothing."""
        specs = [self.graph.specs[self.graph.tensors[t].spec] for t in node.inputs]
        if "norm_backward" in node.op and read:
            return read[0]
        ranked = [d for s, d in zip(specs, read, strict=True) if s.shape and d in FLOATING]
        kinds = set(ranked or [d for d in read if d in FLOATING])
        return kinds.pop() if len(kinds) == 1 else "float32"

    def _released(self, node: OpNode, written: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
        """Results that end as gradients of parameters in another dtype, and which: a cast follows the node."""
        return tuple(
            (position, self._trained[tensor])
            for position, (tensor, dtype) in enumerate(zip(node.outputs, written, strict=True))
            if dtype in LOW and self._trained.get(tensor, dtype) != dtype
        )

    @cached_property
    def _trained(self) -> Mapping[int, str]:
        """Tensor that ends as a gradient -> dtype of its parameter as it is stored."""
        graph = self.graph
        stored = {
            t.name: self.run[i] for i, t in enumerate(graph.tensors) if graph.specs[t.spec].role is Role.PARAMETER
        }
        return {self._made(tensor): stored.get(name, "float32") for name, tensor in graph.gradients.items()}

    def _made(self, gradient: int) -> int:
        """The tensor that the backward pass ends with, whatever the optimizer has since written in its place."""
        tensors, nodes = self.graph.tensors, self.graph.nodes
        while (producer := tensors[gradient].producer) is not None and nodes[producer].phase is NodePhase.OPTIMIZER:
            place = tensors[gradient].storage
            before = next((t for t in nodes[producer].inputs if tensors[t].storage == place), None)
            if before is None:
                break
            gradient = before
        return gradient
