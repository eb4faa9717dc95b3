"""Latent attention (MLA) as serving libraries decode it: what expands the cache is absorbed into queries and results.

DeepSeek-V2 (arXiv:2405.04434, section 2.1.2) keeps of each token a latent vector of C elements, which ``kv_b_proj``
expands into P elements of a key and V of a value for each of H heads, and R elements of a key with rotary positions
that all heads share. transformers expands the whole cache in every step. Since

    query @ (W_key @ latent) = (query @ W_key) @ latent        and        W_value @ (scores @ latent)

serving libraries multiply each head's query by its part of the weight instead, let all heads attend to the latent
vectors as one head of C + R that is key and value at once, and multiply each head's result by its other part. For a
step of one query a sequence with S keys that is, in MACs and a head,

    P C + S (C + R) + S C + C V          in the place of          S C (P + V) + S (P + R) + S V.

Found in a traced step by its structure, not by a model's name: keys and values of an attention that are linear in what
lies in a cache.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from costmodel.graph import OpGraph
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.symbols import product
from costmodel.tensor import CACHED, ITEMSIZE_BYTES, Role, TensorSpec

__all__ = ["LEFT", "NOTE", "absorbed"]

LEFT = (
    "an attention over a latent cache is left as transformers runs it, which expands the whole cache for every token: "
    "it has a mask, as sparse attention has, or a form that is not known"
)
NOTE = (
    "latent attention: what expands the cache (kv_b_proj) is absorbed into queries and results, as serving libraries "
    "do; transformers' own step, mode eager, expands the whole cache for every token"
)
_ATTENTION = "aten.scaled_dot_product_attention"
#: What expands latent vectors, and the name of its weight.
_EXPANDS = {"aten.linear": "weight", "costmodel.packed_linear": "weight"}


@dataclass(frozen=True, slots=True)
class _Latent:
    """One attention over a latent cache: indices of nodes and tensors, and sizes in elements."""

    attention: int
    joined: int
    """The node that joins the two parts of the queries."""
    scaled: tuple[int, ...]
    """Nodes that scale the joined queries, in order."""
    expands: int
    dead: frozenset[int]
    """Nodes that are not run."""
    latent: int
    rotary: int
    heads: int
    plain: int
    turned: int
    width: int
    value: int


@dataclass(frozen=True, slots=True)
class _Flow:
    """Who writes and reads each storage of a graph, by index of node, and what its caches have become."""

    graph: OpGraph
    grown: dict[int, int]
    """Storage -> the tensor that a cache has become with the new token."""
    writers: dict[int, list[int]]
    readers: dict[int, set[int]]


def absorbed(graph: OpGraph) -> OpGraph:
    """The program with each attention over an expanded latent cache made one over the cache itself.

    A note says so, and another where there is one that is left as it is.
    """
    flow = _flow(graph)
    over = {i: n for i in range(len(graph.nodes)) if flow.grown and (n := _expands(flow, i)) is not None}
    found = [one for index, expands in over.items() if (one := _latent(flow, index, expands)) is not None]
    if found:
        graph = _Rewriting(graph).made(found)
    if len(found) < len(over):
        graph = replace(graph, notes=(*graph.notes, LEFT), general=None, memo={})
    return graph


def _flow(graph: OpGraph) -> _Flow:
    cached = {i for i in graph.inputs if graph.tensors[i].name.startswith(CACHED)}
    flow = _Flow(graph, {}, defaultdict(list), defaultdict(set))
    for index, node in enumerate(graph.nodes):
        for tensor in node.outputs:
            flow.writers[graph.tensors[tensor].storage].append(index)
        for tensor in node.inputs:
            flow.readers[graph.tensors[tensor].storage].add(index)
        if node.op == "aten.cat" and len(node.inputs) == 2 and node.inputs[0] in cached:
            flow.grown[graph.tensors[node.outputs[0]].storage] = node.outputs[0]
    return flow


def _expands(flow: _Flow, index: int) -> int | None:
    """The linear layer that makes the values of an attention from what lies in a cache; None for any other node."""
    graph, node = flow.graph, flow.graph.nodes[index]
    if node.op != _ATTENTION:
        return None
    for writer in flow.writers[graph.tensors[node.inputs[2]].storage]:
        found = graph.nodes[writer]
        if found.op in _EXPANDS and graph.tensors[found.inputs[0]].storage in flow.grown:
            return writer
    return None


def _latent(flow: _Flow, index: int, expands: int) -> _Latent | None:
    """The attention at ``index`` as one over a latent cache; None where it is another."""
    graph, node = flow.graph, flow.graph.nodes[index]
    if len(node.inputs) != 3:
        return None
    query, key, value = (graph.tensors[i] for i in node.inputs)
    latent = flow.grown[graph.tensors[graph.nodes[expands].inputs[0]].storage]
    joined, scaled = _joined_queries(flow, index)
    thrown = {value.storage, key.storage}
    if joined is None or thrown & flow.grown.keys():
        return None
    dead = frozenset(n for storage in thrown for n in (*flow.writers[storage], *flow.readers[storage])) - {index}
    rotary: set[int] = set()
    for n in dead:
        if any(graph.tensors[t].storage not in thrown for t in graph.nodes[n].outputs):
            return None  # somebody else reads what is expanded
        outside = {graph.tensors[t].storage for t in graph.nodes[n].inputs if n != expands} - thrown
        if outside - flow.grown.keys():
            return None
        rotary |= {flow.grown[storage] for storage in outside}
    if len(rotary) != 1:
        return None
    (turned,) = rotary
    shapes = [graph.specs[graph.tensors[i].spec].shape for i in (*graph.nodes[joined].inputs, latent, turned)]
    plain, width, rotary_width = (shape[-1] for shape in (shapes[0], shapes[2], shapes[3]))
    heads, queries = graph.specs[query.spec].shape[1:3]
    sizes = (heads, plain, rotary_width, width, graph.specs[value.spec].shape[-1])
    if not all(isinstance(size, int) for size in sizes) or queries != 1 or shapes[1][-1] != rotary_width:
        return None
    return _Latent(index, joined, scaled, expands, dead, latent, turned, *sizes)  # type: ignore[arg-type]


def _joined_queries(flow: _Flow, index: int) -> tuple[int | None, tuple[int, ...]]:
    """The node that joins two parts of the queries for the attention alone, and those that scale them after it."""
    graph = flow.graph
    scaled: list[int] = []
    tensor, user = graph.nodes[index].inputs[0], index
    while True:
        found = graph.tensors[tensor].producer
        if found is None or flow.readers[graph.tensors[tensor].storage] != {user}:
            return None, ()
        node = graph.nodes[found]
        if node.op == "aten.cat" and len(node.inputs) == 2:
            return found, tuple(reversed(scaled))
        by = [graph.specs[graph.tensors[t].spec].shape[-1:] for t in node.inputs[1:]]
        if node.op != "aten.mul" or any(last not in ((), (1,)) for last in by):
            return None, ()
        scaled.append(found)
        tensor, user = node.inputs[0], found


class _Rewriting:
    """New tables of a graph, and the nodes that stand in the place of others."""

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.specs, self.calls = list(graph.specs), list(graph.calls)
        self.tensors, self.storages = list(graph.tensors), list(graph.storages)
        self.bytes_of = dict(graph.parameter_bytes_of)
        self.known: dict[TensorSpec | Call, int] = {}

    def made(self, found: Sequence[_Latent]) -> OpGraph:
        before = {one.joined: self._queries(one) for one in found}
        instead = {one.attention: self._attention(one) for one in found}
        scaled = {index for one in found for index in one.scaled}
        dead = frozenset().union(*(one.dead for one in found))
        nodes: list[OpNode] = []
        place: dict[int, int] = {}
        for index, node in enumerate(self.graph.nodes):
            if index in before:
                nodes.append(before[index])
                node = self._joined(node, before[index])
            elif index in scaled:
                node = self._scaled(node)
            place[index] = len(nodes)
            if index not in dead:
                nodes.extend(instead.get(index, (node,)))
                place[index] = len(nodes) - 1
        made = {t: index for index, node in enumerate(nodes) for t in node.outputs}
        nodes = [replace(n, after=tuple(sorted({place[i] for i in n.after if i not in dead}))) for n in nodes]
        tensors = [
            t if t.producer is None else replace(t, producer=made.get(i, place[t.producer]))
            for i, t in enumerate(self.tensors)
        ]
        return replace(
            self.graph, specs=self.specs, calls=self.calls, tensors=tensors, storages=self.storages, nodes=nodes,
            parameter_bytes_of=self.bytes_of, notes=(*self.graph.notes, NOTE), general=None, memo={},
        )  # fmt: skip

    def _queries(self, one: _Latent) -> OpNode:
        """Each head's query by its part of the weight: [H, N, P] @ [H, P, C]."""
        query = self.graph.nodes[one.joined].inputs[0]
        spec = self._spec_of(query)
        batch, deep = spec.shape[0], one.plain + one.value
        weight = self._part(one, (one.heads, one.plain, one.width), (deep * one.width, one.width, 1))
        out = self._tensor((batch, one.heads, 1, one.width), spec.dtype, self._storage(query, one.width))
        return self._product(
            one, "absorbed_queries", query, weight, out,
            ((one.heads, batch, one.plain), (one.heads, one.plain, one.width), (one.heads, batch, one.width)),
        )  # fmt: skip

    def _joined(self, node: OpNode, product: OpNode) -> OpNode:
        """The join of a query's parts, the first of which is as wide as a latent vector now."""
        rest, old = node.inputs[1], node.outputs[0]
        width, turned = self._spec_of(product.outputs[0]).shape[-1], self._spec_of(rest).shape[-1]
        spec = self._spec_of(old)
        shape = (*spec.shape[:-1], width + turned)  # type: ignore[operator]
        storage = self._storage(old, shape[-1])
        self.tensors[old] = replace(
            self.tensors[old], spec=self._add_spec(TensorSpec(shape, spec.dtype)), storage=storage
        )
        parts = tuple(SpecRef(self.tensors[t].spec) for t in (product.outputs[0], rest))
        call = Call(node.op, (("tensors", parts), ("dim", -1)), (SpecRef(self.tensors[old].spec),))
        return replace(node, call=self._add_call(call), inputs=(product.outputs[0], rest))

    def _scaled(self, node: OpNode) -> OpNode:
        """Joined queries times a number, or one for each of them."""
        self._widen(node.outputs[0], self._spec_of(node.inputs[0]).shape[-1])
        (first, _), *rest = self.graph.calls[node.call].arguments
        arguments = ((first, SpecRef(self.tensors[node.inputs[0]].spec)), *rest)
        return replace(
            node, call=self._add_call(Call(node.op, arguments, (SpecRef(self.tensors[node.outputs[0]].spec),)))
        )

    def _widen(self, tensor: int, width: Any) -> None:
        """Another width of rows for a tensor that stays in its place."""
        spec = self._spec_of(tensor)
        wide = self._add_spec(TensorSpec((*spec.shape[:-1], width), spec.dtype))
        self.tensors[tensor] = replace(self.tensors[tensor], spec=wide, storage=self._storage(tensor, width))

    def _attention(self, one: _Latent) -> tuple[OpNode, OpNode]:
        """All heads against the latent vectors, and each head's result by its part of the weight.

        [H, N, C] @ [H, C, V]. The queries have been joined: their tensor is as wide as a key of the cache.
        """
        graph, node = self.graph, self.graph.nodes[one.attention]
        query, out = node.inputs[0], node.outputs[0]
        spec = self._spec_of(out)
        batch = spec.shape[0]
        wide = TensorSpec((batch, one.heads, 1, one.width + one.turned), spec.dtype)
        seen = self._tensor((batch, one.heads, 1, one.width), spec.dtype, self._storage(out, one.width))
        read = [SpecRef(self._add_spec(wide)), *(SpecRef(graph.tensors[t].spec) for t in (one.latent, one.rotary))]
        call = Call(
            "costmodel.latent_attention",
            (("query", read[0]), ("latent", read[1]), ("rotary", read[2])),
            (SpecRef(self.tensors[seen].spec),),
        )
        attention = replace(
            node, op=call.op, call=self._add_call(call), inputs=(query, one.latent, one.rotary), outputs=(seen,)
        )
        deep = one.plain + one.value
        strides = (deep * one.width, 1, one.width)
        weight = self._part(one, (one.heads, one.width, one.value), strides)
        product = self._product(
            one, "absorbed_values", seen, weight, out,
            ((one.heads, batch, one.width), (one.heads, one.width, one.value), (one.heads, batch, one.value)),
        )  # fmt: skip
        return attention, product

    def _product(
        self, one: _Latent, name: str, left: int, weight: int, out: int, shapes: tuple[tuple[Any, ...], ...]
    ) -> OpNode:
        expands = self.graph.nodes[one.expands]
        dtype = self._spec_of(left).dtype
        rows, _, columns = (SpecRef(self._add_spec(TensorSpec(shape, dtype))) for shape in shapes)
        call = Call("aten.bmm", (("input", rows), ("mat2", SpecRef(self.tensors[weight].spec))), (columns,))
        return replace(
            expands, name=f"{expands.name}.{name}", op=call.op, call=self._add_call(call), inputs=(left, weight),
            outputs=(out,), after=(),
        )  # fmt: skip

    def _part(self, one: _Latent, shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
        """One part of what expands, as each head's matrix; a packed weight is kept widened for it."""
        expands = self.graph.nodes[one.expands]
        base = self.graph.tensors[self._weight(one)]
        spec = self.graph.specs[base.spec]
        storage = base.storage
        if expands.op != "aten.linear":
            own = self._spec_of(one.latent)
            nbytes = math.prod(shape) * ITEMSIZE_BYTES[own.dtype]
            self.bytes_of[own.dtype] = self.bytes_of.get(own.dtype, 0) + nbytes
            self.storages.append(Storage(nbytes, own.dtype, Role.PARAMETER))
            spec, storage = TensorSpec(shape, own.dtype, Role.PARAMETER), len(self.storages) - 1
        self.tensors.append(
            Tensor(
                self._add_spec(TensorSpec(shape, spec.dtype, spec.role, spec.name, strides)), storage, None, base.name
            )
        )
        return len(self.tensors) - 1

    def _weight(self, one: _Latent) -> int:
        """The tensor of the weight that expands."""
        node = self.graph.nodes[one.expands]
        inputs = iter(node.inputs)
        named = {
            name: next(inputs) for name, value in self.graph.calls[node.call].arguments if isinstance(value, SpecRef)
        }
        return named[_EXPANDS[node.op]]

    def _spec_of(self, tensor: int) -> TensorSpec:
        return self.specs[self.tensors[tensor].spec]

    def _storage(self, like: int, width: Any) -> int:
        """A storage as that of another tensor, with rows of ``width`` elements."""
        spec = self._spec_of(like)
        sizes: tuple[Any, ...] = (*spec.shape[:-1], width, ITEMSIZE_BYTES[spec.dtype])
        is_code = any(isinstance(size, str) for size in sizes)
        nbytes: Any = "*".join(f"({size})" for size in sizes) if is_code else product(sizes)
        self.storages.append(Storage(nbytes, spec.dtype, Role.ACTIVATION))
        return len(self.storages) - 1

    def _tensor(self, shape: tuple[Any, ...], dtype: str, storage: int) -> int:
        self.tensors.append(Tensor(self._add_spec(TensorSpec(shape, dtype)), storage, 0))
        return len(self.tensors) - 1

    def _add_spec(self, spec: TensorSpec) -> int:
        if spec not in self.known:
            self.known[spec] = len(self.specs)
            self.specs.append(spec)
        return self.known[spec]

    def _add_call(self, call: Call) -> int:
        if call not in self.known:
            self.known[call] = len(self.calls)
            self.calls.append(call)
        return self.known[call]
