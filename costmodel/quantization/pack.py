"""with_packed_weights(): the same program with the weights of its blocks packed.

Libraries that quantize put another layer in the place of each linear layer in the blocks of a model; embeddings, the
head, norms and routers stay as they are. So does this: a node that multiplies by such a weight becomes one that takes
the packed weight, its scales and its zero points, and the bytes of parameters follow. What multiplies them is decided
later, by machine (``kernels/quantized.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from costmodel.devices import Family
from costmodel.errors import InputError
from costmodel.execution import Execution, WeightScheme
from costmodel.graph import OpGraph
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.tensor import ITEMSIZE_BYTES, Role, TensorSpec

__all__ = ["scheme_of", "with_packed_weights"]

#: Operator -> the argument that is the weight. Of ``addmm`` it is transformers' Conv1D, which keeps [K, N].
_WEIGHT_OF = {"aten.linear": "weight", "aten.addmm": "mat2", "costmodel.grouped_mm": "weight"}
#: What operators that only look at a weight in another way are called.
_VIEWS = frozenset({"aten.transpose", "aten.t", "aten.permute", "aten.view", "aten.unsqueeze", "aten.detach"})


def scheme_of(graph: OpGraph, execution: Execution) -> WeightScheme | None:
    """How the weights of a run are stored: as was asked for, else as the model's configuration says."""
    return graph.weights if execution.weights is None else WeightScheme.of(execution.weights)


def with_packed_weights(graph: OpGraph, execution: Execution, family: Family) -> OpGraph:
    """``graph`` with the weights of its blocks packed as a run stores them; the graph itself where it does not.

    Raises InputError for a dtype that packed weights are not multiplied in, and where the model has no such layer.
    """
    scheme = scheme_of(graph, execution)
    if scheme is None:
        return graph
    if not family.issues_ahead:
        raise InputError(
            f"weights stored as {scheme} are modelled on GPUs, not on a {family.title}\n"
            "  --weights dense (weights='dense') takes them as wide as the dtype"
        )
    precision = execution.precision
    if precision.autocast is not None or precision.activations not in ("fp16", "bf16"):
        raise InputError(
            f"weights stored as {scheme} are multiplied in fp16 or bf16, not in a run in {precision}\n"
            "  give --dtype bf16 with them (dtype='bf16'), or --weights dense for weights as wide as that"
        )
    key = ("packed", scheme)
    if key not in graph.memo:
        graph.memo[key] = _Packing(graph, scheme).packed()
    found: OpGraph = graph.memo[key]
    return found


class _Packing:
    """Copies of a graph's tables with some weights packed."""

    def __init__(self, graph: OpGraph, scheme: WeightScheme) -> None:
        self.graph, self.scheme = graph, scheme
        self.specs, self.calls = list(graph.specs), list(graph.calls)
        self.storages, self.tensors = list(graph.storages), list(graph.tensors)
        self.spec_at = {spec: index for index, spec in enumerate(self.specs)}
        self.call_at = {call: index for index, call in enumerate(self.calls)}
        self.bytes_of = dict(graph.parameter_bytes_of)
        self.beside: dict[int, list[int]] = {}  # storage of a weight -> its scales, and its zero points

    def packed(self) -> OpGraph:
        users = self._users()
        nodes = [self._node(node, users) for node in self.graph.nodes]
        if not self.beside:
            raise InputError(f"no linear layer in a block of this model can be stored as {self.scheme}")
        count = sum(1 for storage in self.beside if self.graph.storages[storage].role is Role.PARAMETER)
        note = f"{count} weights stored as {self.scheme}: {self._told()}"
        return replace(
            self.graph, specs=self.specs, calls=self.calls, storages=self.storages, tensors=self.tensors, nodes=nodes,
            parameter_bytes_of={dtype: n for dtype, n in self.bytes_of.items() if n},
            notes=(*self.graph.notes, note), general=None, memo={},
        )  # fmt: skip

    def _told(self) -> str:
        scheme = self.scheme
        groups = f"a scale of {scheme.scale_bits} bits for {scheme.group or 'all'} elements of a row"
        zeros = f", zero points of {scheme.zero_bits} bits" if scheme.zero_bits else ""
        return f"{scheme.bits} bits each, {groups}{zeros}; embeddings, head, norms and routers are not"

    def _users(self) -> dict[int, set[str]]:
        """Storage of each parameter -> operators that take it, views left out."""
        users: dict[int, set[str]] = defaultdict(set)
        for node in self.graph.nodes:
            if node.op in _VIEWS:
                continue
            for tensor in node.inputs:
                storage = self.graph.tensors[tensor].storage
                if self.graph.storages[storage].role is Role.PARAMETER:
                    users[storage].add(node.op)
        return users

    def _node(self, node: OpNode, users: dict[int, set[str]]) -> OpNode:
        argument = _WEIGHT_OF.get(node.op)
        if argument is None or not self._is_in_a_block(node):
            return node
        call = self.graph.calls[node.call]
        taken = dict(zip(_tensor_arguments(call), node.inputs, strict=False))
        weight = taken.get(argument)
        if weight is None:
            return node
        storage = self.graph.tensors[weight].storage
        if self.graph.storages[storage].role is not Role.PARAMETER or users[storage] != {node.op}:
            return node  # computed, or tied to an embedding
        spec = self.graph.specs[self.graph.tensors[weight].spec]
        parts = self._stored(storage, spec, node.op)
        return self._replaced(node, call, taken, argument, spec, parts)

    def _is_in_a_block(self, node: OpNode) -> bool:
        if not any(part.isdigit() for part in node.module.split(".")):
            return False
        if any(word in node.module_type.rpartition(".")[2] for word in ("Router", "Gate")):
            return False
        if node.module.rpartition(".")[2] in ("gate", "router", "shared_expert_gate"):
            return False
        return not self.scheme.skips(node.module)

    def _stored(self, storage: int, spec: TensorSpec, op: str) -> list[int]:
        """Tensors of the packed weight: the weight itself, its scales, and its zero points where it has them."""
        known = self.beside.get(storage)
        if known is not None:
            return known
        root = next(index for index, t in enumerate(self.graph.tensors) if t.storage == storage and t.producer is None)
        shape: Any = spec.shape
        rows, columns = (shape[-2], shape[-1]) if op == "aten.linear" else (shape[-1], shape[-2])
        count = shape[0] if len(shape) == 3 else 1
        sizes = [count * size for size in self.scheme.stored(rows, columns)]
        own = spec.dtype
        self.bytes_of[own] = self.bytes_of.get(own, 0) - count * rows * columns * ITEMSIZE_BYTES[own]
        wide_scales = self.scheme.scale_bits == 16
        scale = TensorSpec((sizes[1] // 2,), own, Role.PARAMETER) if wide_scales else _raw(sizes[1])
        packed = _raw(sizes[0])
        for part in (packed, scale, *([_raw(sizes[2])] if sizes[2] else [])):
            self.bytes_of[part.dtype] = self.bytes_of.get(part.dtype, 0) + int(part.nbytes)  # type: ignore[arg-type]
        self.storages[storage] = Storage(packed.nbytes, packed.dtype, Role.PARAMETER)
        self.tensors[root] = replace(self.tensors[root], spec=self._spec(packed))
        name = self.tensors[root].name
        found = [root, self._added(scale, f"{name}.scales")]
        if sizes[2]:
            found.append(self._added(_raw(sizes[2]), f"{name}.zeros"))
        self.beside[storage] = found
        return found

    def _added(self, spec: TensorSpec, name: str) -> int:
        self.storages.append(Storage(spec.nbytes, spec.dtype, Role.PARAMETER))
        self.tensors.append(Tensor(self._spec(spec), len(self.storages) - 1, None, name))
        return len(self.tensors) - 1

    def _spec(self, spec: TensorSpec) -> int:
        if spec not in self.spec_at:
            self.spec_at[spec] = len(self.specs)
            self.specs.append(spec)
        return self.spec_at[spec]

    def _replaced(
        self, node: OpNode, call: Call, taken: dict[str, int], argument: str, spec: TensorSpec, parts: list[int]
    ) -> OpNode:
        plain = dict(call.arguments)
        source = {"aten.addmm": ("mat1", "input")}.get(node.op, ("input", "bias"))  # activations, bias
        tensors = {"input": taken[source[0]], "weight": parts[0], "scales": parts[1]}
        if len(parts) > 2:
            tensors["zeros"] = parts[2]
        extra: list[tuple[str, Any]] = [("narrows", self.scheme.narrow_activations), ("method", self.scheme.method),
                                       ("bits", self.scheme.bits)]  # fmt: skip
        op = "costmodel.packed_linear"
        if node.op == "costmodel.grouped_mm":
            op, tensors["offs"] = "costmodel.packed_grouped_mm", taken["offs"]
            extra += [("chosen", plain["chosen"]), ("experts", spec.shape[0])]
        elif source[1] in taken:
            tensors["bias"] = taken[source[1]]
        arguments = [(name, SpecRef(self.tensors[tensor].spec)) for name, tensor in tensors.items()]
        made = Call(op, (*arguments, *extra), call.outputs)
        if made not in self.call_at:
            self.call_at[made] = len(self.calls)
            self.calls.append(made)
        return replace(node, op=op, call=self.call_at[made], inputs=tuple(tensors.values()))


def _raw(nbytes: int) -> TensorSpec:
    """Bits that keep their form whatever the dtype of the run."""
    return TensorSpec((nbytes,), "uint8", Role.PARAMETER)


def _tensor_arguments(call: Call) -> Iterator[str]:
    """Names of the arguments that are tensors, in order, a name for each tensor."""
    for name, value in call.arguments:
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, SpecRef):
                yield name
