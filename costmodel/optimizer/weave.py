"""Weave: nodes that are put into a traced program, and the program with them in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from costmodel.execution import NodePhase
from costmodel.graph import OpGraph
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.symbols import product
from costmodel.tensor import ITEMSIZE_BYTES, Role, TensorSpec

__all__ = ["Ref", "Weave"]


class Weave:
    """A program that grows: tables are copied, new nodes go to the end, before a node or after one.

    Tensors are told by their index. A call in place gives new tensors that lie where the old ones do, so that who
    reads what the call has written can be seen.
    """

    def __init__(self, graph: OpGraph, module_type: str) -> None:
        """``module_type``: the class that makes the calls, qualified."""
        self.graph, self.module_type = graph, module_type
        self.specs, self.calls = list(graph.specs), list(graph.calls)
        self.storages, self.tensors = list(graph.storages), list(graph.tensors)
        self._spec_index: dict[tuple[Any, ...], int] = {}
        self._call_index: dict[Call, int] = {}
        self._names = {node.name for node in graph.nodes}
        self._before: dict[int, list[OpNode]] = {}
        self._after: dict[int, list[OpNode]] = {}
        self._tail: list[OpNode] = []
        self._instead: dict[int, int] = {}

    # -- tensors -------------------------------------------------------------------------------

    def like(self, tensor: int, role: Role, name: str = "", dtype: str = "") -> int:
        """A new tensor of the shape, the order and (unless said otherwise) the dtype of another, that nobody made."""
        spec = self.specs[self.tensors[tensor].spec]
        return self._tensor(TensorSpec(spec.shape, dtype or spec.dtype, role, "", spec.strides), name)

    def flat(self, elements: int, dtype: str, role: Role, name: str = "") -> int:
        """A new tensor of one dimension, that nobody made."""
        return self._tensor(TensorSpec((elements,), dtype, role), name)

    def scalar(self, dtype: str, role: Role, name: str = "") -> int:
        """A new tensor of one element, that nobody made."""
        return self._tensor(TensorSpec((), dtype, role), name)

    def _tensor(self, spec: TensorSpec, name: str) -> int:
        self.storages.append(Storage(_nbytes(spec), spec.dtype, spec.role))
        self.tensors.append(Tensor(self._spec(spec), len(self.storages) - 1, None, name))
        return len(self.tensors) - 1

    def _spec(self, spec: TensorSpec) -> int:
        key = (spec.shape, spec.dtype, spec.role, spec.strides)
        if key not in self._spec_index:
            self._spec_index[key] = len(self.specs)
            self.specs.append(spec)
        return self._spec_index[key]

    def dtype(self, tensor: int) -> str:
        """The dtype of a tensor, as torch names it."""
        return self.specs[self.tensors[tensor].spec].dtype

    # -- calls ---------------------------------------------------------------------------------

    def call(
        self,
        op: str,
        arguments: Mapping[str, Any],
        *,
        writes: Sequence[int] = (),
        makes: Sequence[int] = (),
        name: str,
        module: str = "",
        phase: NodePhase = NodePhase.OPTIMIZER,
        synchronizes: bool = False,
        forward: int | None = None,
        before: int | None = None,
        after: int | None = None,
    ) -> list[int]:
        """A new node, at the end of the step unless it goes ``before`` or ``after`` a node of the graph.

        ``arguments`` by schema name; tensors are given as :class:`Ref`. ``writes`` are tensors that it writes in place,
        ``makes`` those (of :meth:`like`) that it makes. Returns the tensors that it puts out: one for each of both.
        """
        outputs = [self._written(t) for t in writes]
        outputs += makes
        reads = tuple(_tensors_in(arguments.values()))
        packed = tuple((key, self._pack(value)) for key, value in arguments.items())
        call = Call(op, packed, tuple(SpecRef(self.tensors[t].spec) for t in outputs))
        node = OpNode(
            self._unique(name), op, module, self.module_type, self._call(call), reads, tuple(outputs),
            in_place=bool(writes), phase=phase, synchronizes=synchronizes, forward=forward,
        )  # fmt: skip
        place = self._tail
        if before is not None:
            place = self._before.setdefault(before, [])
        elif after is not None:
            place = self._after.setdefault(after, [])
        place.append(node)
        return outputs

    def _written(self, tensor: int) -> int:
        """The tensor as it is once it has been written."""
        self.tensors.append(replace(self.tensors[tensor], producer=None, name=""))
        return len(self.tensors) - 1

    def _pack(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return SpecRef(self.tensors[value.tensor].spec)
        return tuple(map(self._pack, value)) if isinstance(value, (list, tuple)) else value

    def _call(self, call: Call) -> int:
        if call not in self._call_index:
            self._call_index[call] = len(self.calls)
            self.calls.append(call)
        return self._call_index[call]

    def _unique(self, name: str) -> str:
        number, found = 1, name
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def redirect(self, tensor: int, instead: int) -> None:
        """Let the nodes of the graph read another tensor."""
        self._instead[tensor] = instead

    # -- the whole -----------------------------------------------------------------------------

    def _placed(self, node: OpNode, moved: Mapping[int, int]) -> OpNode:
        """A node of the graph where nodes stand elsewhere and some tensors are read in the place of others."""
        after = tuple(moved[i] for i in node.after)
        inputs = tuple(self._instead.get(tensor, tensor) for tensor in node.inputs)
        return replace(node, inputs=inputs, after=after, forward=_moved(moved, node.forward))

    def woven(self, **changes: Any) -> OpGraph:
        """The program with all nodes in place; ``changes`` are further fields of the graph."""
        nodes: list[OpNode] = []
        moved: dict[int, int] = {}
        added: list[int] = []
        for index, node in enumerate(self.graph.nodes):
            for group in (self._before.get(index, ()), (node,), self._after.get(index, ())):
                for one in group:
                    if one is node:
                        moved[index] = len(nodes)
                    else:
                        added.append(len(nodes))
                    nodes.append(one)
        nodes += self._tail
        if self._before or self._after or self._instead:
            for old, index in moved.items():
                nodes[index] = self._placed(self.graph.nodes[old], moved)
            for index in added:
                nodes[index] = replace(nodes[index], forward=_moved(moved, nodes[index].forward))
        makers = {tensor: index for index, node in enumerate(nodes) for tensor in node.outputs}
        tensors = [
            t if t.producer == makers.get(i) else replace(t, producer=makers.get(i)) for i, t in enumerate(self.tensors)
        ]
        return replace(
            self.graph, specs=self.specs, calls=self.calls, storages=self.storages, tensors=tensors, nodes=nodes,
            origin=None, memo={}, **changes,
        )  # fmt: skip


def _nbytes(spec: TensorSpec) -> Any:
    """B of a tensor whose sizes are numbers or, of what follows the batch, codes."""
    sizes = (*spec.shape, ITEMSIZE_BYTES[spec.dtype])
    if any(isinstance(size, str) for size in sizes):
        return "*".join(f"({size})" for size in sizes)
    return product(sizes)


class Ref:
    """A tensor among the arguments of a call."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: int) -> None:
        self.tensor = tensor


def _moved(moved: Mapping[int, int], node: int | None) -> int | None:
    return None if node is None else moved[node]


def _tensors_in(values: Iterable[Any]) -> Iterable[int]:
    for value in values:
        if isinstance(value, Ref):
            yield value.tensor
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)
