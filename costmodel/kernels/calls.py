"""Calls of a graph in the dtypes of a run: what every engine's lowering starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from costmodel.execution import Execution, Precision
from costmodel.formulas import cost_or_default
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.node_dtypes import NodeDtypes
from costmodel.kernels.operator import Operator
from costmodel.kernels.precision import assign_dtypes, converted
from costmodel.tensor import ITEMSIZE_BYTES, TensorSpec

__all__ = ["Calls", "run_dtypes", "storage_scale", "typed_call"]


def typed_call(graph: OpGraph, index: int, types: NodeDtypes) -> tuple[str, dict[str, Any], Any]:
    """Operator, arguments and results of the ``index``-th call of a graph, its tensors in the dtypes of the run."""
    call = graph.calls[index]
    arguments, results = graph.arguments(call), graph.results(call)
    if types.as_traced:
        return call.op, arguments, results
    return call.op, _retyped(arguments, iter(types.inputs)), _retyped(results, iter(types.outputs))


def run_dtypes(graph: OpGraph, execution: Execution) -> list[NodeDtypes]:
    """Dtypes of every node in a run, in program order; kept with the graph."""
    key = ("run dtypes", execution.precision, execution.software)
    known: list[NodeDtypes] | None = graph.memo.get(key)
    if known is None:
        known = graph.memo[key] = assign_dtypes(graph, execution)
    return known


def storage_scale(graph: OpGraph, dtypes: Sequence[NodeDtypes], precision: Precision) -> tuple[float, ...]:
    """How much smaller each storage is than traced, by the dtype of the value first found in it or put into it; what no
    node meets (an encoder's weights in a step of its decoder) is converted with the rest of the model."""
    scale = [1.0] * len(graph.storages)
    seen: set[int] = set()
    for node, types in zip(graph.nodes, dtypes, strict=True):
        before = zip(node.inputs, types.had or types.inputs, strict=True)  # as it lay in memory, ahead of any cast
        for tensor, dtype in (*before, *zip(node.outputs, types.outputs, strict=True)):
            storage = graph.tensors[tensor].storage
            if storage not in seen:
                seen.add(storage)
                scale[storage] = _narrower(graph, storage, dtype)
    for left, dtype in zip(graph.tensors, converted(graph, precision), strict=True):
        if left.storage not in seen and left.producer is None:
            scale[left.storage] = _narrower(graph, left.storage, dtype)
    return tuple(scale)


def _narrower(graph: OpGraph, storage: int, dtype: str) -> float:
    return ITEMSIZE_BYTES.get(dtype, 1) / ITEMSIZE_BYTES.get(graph.storages[storage].dtype, 1)


def _retyped(value: Any, dtypes: Iterator[str]) -> Any:
    """``value`` with the dtypes of its tensor specs replaced, in order."""
    if isinstance(value, TensorSpec):
        dtype = next(dtypes)
        return value if dtype == value.dtype else TensorSpec(value.shape, dtype, value.role, value.name, value.strides)
    if isinstance(value, dict):
        return {name: _retyped(item, dtypes) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_retyped(item, dtypes) for item in value)
    return value


class Calls:
    """The operators of one binding of a graph, in one run on one machine; each is put together once."""

    def __init__(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> None:
        self.graph, self.execution, self.hardware = graph, execution, hardware
        self._known: dict[tuple[int, NodeDtypes], Operator] = {}

    def operator(self, index: int, types: NodeDtypes) -> Operator:
        """The ``index``-th call with these dtypes. Raises FormulaError where its formula fails."""
        key = (index, types)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self.like(*typed_call(self.graph, index, types))
        return found

    def like(self, op: str, arguments: dict[str, Any], results: Any) -> Operator:
        """A call that is not in the graph, such as one whose operands an engine has laid out anew."""
        return Operator(op, arguments, results, cost_or_default(op, arguments, results), self.execution, self.hardware)
