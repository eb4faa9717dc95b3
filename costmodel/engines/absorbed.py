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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from costmodel.graph import OpGraph
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.symbols import product
from costmodel.tensor import CACHED, ITEMSIZE_BYTES, Role, TensorSpec

__all__ = ["NOTE", "absorbed"]

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


def absorbed(graph: OpGraph) -> OpGraph:
    """The program with each attention over an expanded latent cache made one over the cache itself."""
    found = list(_found(graph))
    return _Rewriting(graph).made(found) if found else graph


def _found(graph: OpGraph) -> Iterator[_Latent]:
    cached = {i for i in graph.inputs if graph.tensors[i].name.startswith(CACHED)}
    grown: dict[int, int] = {}  # storage -> the tensor that a cache has become
    for node in graph.nodes:
        if node.op == "aten.cat" and len(node.inputs) == 2 and node.inputs[0] in cached:
            grown[graph.tensors[node.outputs[0]].storage] = node.outputs[0]
    if not grown:
        return
    writers: dict[int, list[int]] = defaultdict(list)  # storage -> nodes that put out a tensor in it
    readers: dict[int, set[int]] = defaultdict(set)
    for index, node in enumerate(graph.nodes):
        for tensor in node.outputs:
            writers[graph.tensors[tensor].storage].append(index)
        for tensor in node.inputs:
            readers[graph.tensors[tensor].storage].add(index)
    for index, node in enumerate(graph.nodes):
        if node.op == _ATTENTION and len(node.inputs) == 3:
            one = _latent(graph, index, grown, writers, readers)
            if one is not None:
                yield one


def _latent(
    graph: OpGraph,
    index: int,
    grown: dict[int, int],
    writers: dict[int, list[int]],
    readers: dict[int, set[int]],
) -> _Latent | None:
    """The attention at ``index`` as one over a latent cache; None where it is another."""
    query, key, value = (graph.tensors[i] for i in graph.nodes[index].inputs)
    expands = next((n for n in writers[value.storage] if graph.nodes[n].op in _EXPANDS), None)
    if expands is None:
        return None
    latent = grown.get(graph.tensors[graph.nodes[expands].inputs[0]].storage)
    joined = query.producer
    if latent is None or joined is None or graph.nodes[joined].op != "aten.cat" or len(graph.nodes[joined].inputs) != 2:
        return None
    thrown = {value.storage, key.storage}
    if thrown & grown.keys():
        return None
    dead = frozenset(n for storage in thrown for n in (*writers[storage], *readers[storage])) - {index}
    rotary: set[int] = set()
    for n in dead:
        if any(graph.tensors[t].storage not in thrown for t in graph.nodes[n].outputs):
            return None  # somebody else reads what is expanded
        outside = {graph.tensors[t].storage for t in graph.nodes[n].inputs if n != expands} - thrown
        if outside - grown.keys():
            return None
        rotary |= {grown[storage] for storage in outside}
    if len(rotary) != 1:
        return None
    (turned,) = rotary
    shapes = [graph.specs[graph.tensors[i].spec].shape for i in (*graph.nodes[joined].inputs, latent, turned)]
    plain, width, rotary_width = (shape[-1] for shape in (shapes[0], shapes[2], shapes[3]))
    heads, queries = graph.specs[query.spec].shape[1:3]
    deep = graph.specs[value.spec].shape[-1]
    sizes = (heads, plain, rotary_width, width, deep)
    if not all(isinstance(size, int) for size in sizes) or queries != 1 or shapes[1][-1] != rotary_width:
        return None
    return _Latent(index, joined, expands, dead, latent, turned, *sizes)  # type: ignore[arg-type]


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
        dead = frozenset().union(*(one.dead for one in found))
        nodes: list[OpNode] = []
        place: dict[int, int] = {}
        for index, node in enumerate(self.graph.nodes):
            if index in before:
                nodes.append(before[index])
                node = self._joined(node, before[index])
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
