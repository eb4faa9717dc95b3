"""From recorded runs to an OpGraph: every integer lifted, every distinct call and spec kept once."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from costmodel.errors import TraceError
from costmodel.execution import NodePhase
from costmodel.formulas import is_free
from costmodel.graph import OpGraph, Symbol
from costmodel.nodes import Call, DimCode, OpNode, SpecRef, Storage, Tensor
from costmodel.symbols import Dim, bind, is_symbolic, product
from costmodel.tensor import Role, TensorSpec
from costmodel.trace.lift import Fingerprint, SizeLift
from costmodel.trace.raw import RawNode, RawTrace, TensorIndex
from costmodel.trace.shapes import output_dims, output_strides

__all__ = ["GraphBuilder", "same_structure"]

Lift = Callable[..., Dim]


def same_structure(runs: Sequence[RawTrace]) -> bool:
    """Whether all runs made the same calls on tensors of the same ranks; only sizes may differ."""
    first = runs[0]
    return all(
        len(run.nodes) == len(first.nodes)
        and len(run.tensors) == len(first.tensors)
        and len(run.storages) == len(first.storages)
        and all(a.op == b.op and a.module == b.module for a, b in zip(run.nodes, first.nodes, strict=True))
        and all(
            len(a.shape) == len(b.shape) and a.dtype == b.dtype and a.producer == b.producer and a.storage == b.storage
            for a, b in zip(run.tensors, first.tensors, strict=True)
        )
        for run in runs[1:]
    )


class GraphBuilder:
    """Builds one OpGraph from runs of the same structure at the ``points``, with ``lift`` for the sizes."""

    def __init__(
        self, runs: Sequence[RawTrace], lift: Lift, symbols: dict[str, Symbol], points: Sequence[dict[str, int]]
    ) -> None:
        self.runs, self.lift, self.symbols, self.points = runs, lift, symbols, points
        self.first = runs[0]
        self.specs: dict[TensorSpec, int] = {}
        self.calls: dict[Call, int] = {}
        self.spec_of: dict[int, int] = {}
        self._hinted = isinstance(lift, SizeLift)
        self._operand_strides: list[tuple[Dim, Fingerprint]] = []

    def build(self, **extras: Any) -> OpGraph:
        """The graph; ``extras`` are its remaining fields (parameters, notes, ...)."""
        calls = [self._call(position, node) for position, node in enumerate(self.first.nodes)]
        names = node_names(self.first.nodes)
        tensors = [self._tensor(i) for i in range(len(self.first.tensors))]
        nodes = [
            OpNode(
                name=names[i],
                op=node.op,
                module=node.module,
                module_type=node.module_type,
                call=calls[i],
                inputs=tuple(t.index for t in _refs(list(node.arguments.values()))),
                outputs=tuple(t.index for t in node.outputs),
                in_place=node.in_place,
                after=node.after,
                synchronizes=node.synchronizes,
                autocast=node.autocast,
                phase=node.phase,
                forward=node.forward,
            )
            for i, node in enumerate(self.first.nodes)
        ]
        return OpGraph(
            symbols=self.symbols,
            specs=list(self.specs),
            calls=list(self.calls),
            storages=self._storages(),
            tensors=tensors,
            nodes=nodes,
            inputs=list(self.first.inputs),
            outputs=list(self.first.outputs),
            gradients=dict(self.first.gradients),
            sparse_rows=dict(self.first.sparse_rows),
            let_go=dict(self.first.let_go),
            **extras,
        )

    # -- sizes ---------------------------------------------------------------------------------

    def _dim(self, values: Iterable[int], hint: Dim | None = None) -> Dim:
        fingerprint = tuple(values)
        if not self._hinted or hint is None or isinstance(hint, int):
            return self.lift(fingerprint)
        return self.lift(fingerprint, [(hint, self._evaluate(hint))])

    def _evaluate(self, expression: Dim) -> Fingerprint:
        return tuple(bind(expression, point) for point in self.points)

    def _spec(self, index: int, hints: dict[int, Dim] | None = None) -> int:
        """Index of the spec of tensor ``index``, lifted once."""
        known = self.spec_of.get(index)
        if known is not None:
            return known
        seen = [run.tensors[index] for run in self.runs]
        raw = seen[0]
        shape = tuple(self._dim([t.shape[d] for t in seen], (hints or {}).get(d)) for d in range(len(raw.shape)))
        spec = TensorSpec(shape, raw.dtype, Role(raw.role), "", self._strides(seen, shape))
        self.spec_of[index] = self.specs.setdefault(spec, len(self.specs))
        return self.spec_of[index]

    def _strides(self, seen: Sequence[Any], shape: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
        """None for contiguous tensors, else each stride lifted."""
        if all(t.strides == _contiguous(t.shape) for t in seen) or not seen[0].strides:
            return None
        return tuple(self._stride(seen, shape, d) for d in range(len(shape)))

    def _stride(self, seen: Sequence[Any], shape: tuple[Dim, ...], axis: int) -> Dim:
        """One stride: the elements of the dimensions that lie inside it, where they do in every run (a tensor that is
        dense in another order); else that of an operand, for views; else what the lift finds."""
        inside = [d for d in range(len(shape)) if d != axis and _lies_inside(seen[0], d, axis)]
        values = tuple(t.strides[axis] for t in seen)
        if values == tuple(math.prod(t.shape[d] for d in inside) for t in seen):
            return product(shape[d] for d in inside)
        if not self._hinted:
            return self.lift(values)
        return self.lift(values, self._operand_strides)

    def _storages(self) -> list[Storage]:
        hints: dict[int, Dim] = {}
        for index, tensor in enumerate(self.first.tensors):
            hints.setdefault(tensor.storage, list(self.specs)[self._spec(index)].nbytes) if self._hinted else None
        roles = {role.value: role for role in Role}
        return [
            Storage(self._dim([run.storages[s][0] for run in self.runs], hints.get(s)), dtype, roles[role])
            for s, (_, dtype, role) in enumerate(self.first.storages)
        ]

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, position: int, node: RawNode) -> int:
        alike = [run.nodes[position] for run in self.runs]
        arguments = tuple((name, self._argument([n.arguments.get(name) for n in alike])) for name in node.arguments)
        hints: dict[int, Dim] = {}
        if self._hinted:
            named = self._plain(arguments)
            hints = dict(output_dims(node.op, named))
            by_rule = ((stride, self._evaluate(stride)) for stride in output_strides(node.op, named))
            self._operand_strides = [*by_rule, *self._strides_of_operands(alike)]
        outputs = tuple(SpecRef(self._spec(t.index, hints if i == 0 else None)) for i, t in enumerate(node.outputs))
        return self.calls.setdefault(Call(node.op, arguments, outputs), len(self.calls))

    def _strides_of_operands(self, alike: Sequence[RawNode]) -> Iterator[tuple[Dim, Fingerprint]]:
        specs = list(self.specs)
        for operand in _refs(list(alike[0].arguments.values())):
            strides = specs[self._spec(operand.index)].strides
            for axis, stride in enumerate(strides or ()):
                yield stride, tuple(run.tensors[operand.index].strides[axis] for run in self.runs)

    def _plain(self, arguments: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
        """Arguments by name, with specs and expressions in place of what refers to them."""
        specs = list(self.specs)

        def plain(value: Any) -> Any:
            if isinstance(value, SpecRef):
                return specs[value.spec]
            if isinstance(value, DimCode):
                return value.dim
            return [plain(v) for v in value] if isinstance(value, tuple) else value

        return {name: plain(value) for name, value in arguments}

    def _argument(self, seen: list[Any]) -> Any:
        value = seen[0]
        if isinstance(value, TensorIndex) and all(isinstance(s, TensorIndex) for s in seen):
            return SpecRef(self._spec(value.index))
        if isinstance(value, list) and all(isinstance(s, list) and len(s) == len(value) for s in seen):
            return tuple(self._argument([s[i] for s in seen]) for i in range(len(value)))
        if all(isinstance(s, int) and not isinstance(s, bool) for s in seen):
            dim = self._dim(seen)
            return DimCode(dim) if is_symbolic(dim) else int(dim)
        if any(type(other) is not type(value) or (other != value and not isinstance(value, float)) for other in seen):
            raise TraceError(f"an argument changes with the size: {', '.join(dict.fromkeys(map(str, seen)))}")
        return value

    def _tensor(self, index: int) -> Tensor:
        raw = self.first.tensors[index]
        return Tensor(self._spec(index), raw.storage, raw.producer, raw.name)


def _lies_inside(tensor: Any, inner: int, outer: int) -> bool:
    """Whether a dimension is stepped through within one step of another; of equal strides, the later one is inside."""
    return (tensor.strides[inner], -inner) < (tensor.strides[outer], -outer)


def _contiguous(shape: Sequence[Any]) -> tuple[Any, ...]:
    """Strides of a dense row-major tensor; torch lets a size-1 dimension count as 1 as well."""
    strides: list[Any] = []
    step: Any = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * (1 if size == 0 else size)
    return tuple(reversed(strides))


def _refs(value: Any) -> Iterable[TensorIndex]:
    if isinstance(value, TensorIndex):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)


def node_names(nodes: Sequence[RawNode]) -> list[str]:
    """One readable, unique name a node: the module's path, with the operator where a module has several.

    ``layer1.0.conv1`` for a module's only operator, ``layer1.0.add`` in a block, ``#2`` for repeats.
    """
    ahead = NodePhase.FORWARD
    working = Counter(node.module for node in nodes if not is_free(node.op) and node.phase is ahead)
    used: dict[str, int] = defaultdict(int)
    names = []
    for node in nodes:
        op = node.op.rpartition(".")[2]
        alone = node.module and working[node.module] == 1 and not is_free(node.op) and node.phase is ahead
        name = node.module if alone else f"{node.module}.{op}" if node.module else op
        used[name] += 1
        names.append(name if used[name] == 1 else f"{name}#{used[name]}")
    return names
