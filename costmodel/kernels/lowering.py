"""lower(): a bound graph becomes the kernels of one step on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas import cost_of, default_cost, is_free
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.algorithm import algorithm_of, engine_for
from costmodel.kernels.plan import Execution, Kernel, KernelPlan, Launch
from costmodel.kernels.precision import NodeDtypes, assign_dtypes, contraction_dtype
from costmodel.symbols import product
from costmodel.tensor import ITEMSIZE_BYTES, TensorSpec

__all__ = ["lower"]


def lower(graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
    """Kernels of one step of ``graph`` (bound to numbers), in program order.

    Views launch nothing. Casts that autocast inserts are kernels of their own, ahead of the node that
    asked for them. Raises FormulaError when a formula fails.
    """
    return _Lowering(graph, execution, hardware).run()


class _Lowering:
    """Lowers each distinct (call, dtypes) once; nodes refer to the result."""

    def __init__(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> None:
        self.graph, self.execution, self.hardware = graph, execution, hardware
        self.kernels: dict[Kernel, int] = {}
        self.known: dict[tuple[Any, ...], int | None] = {}

    def run(self) -> KernelPlan:
        dtypes = assign_dtypes(self.graph, self.execution)
        launches: list[Launch] = []
        for index, (node, types) in enumerate(zip(self.graph.nodes, dtypes, strict=True)):
            for position in types.casts:
                launches.append(Launch(self._intern(self._cast(node.inputs[position], types.inputs[position])), (index,)))
            key = (node.call, types.inputs, types.outputs)
            if key not in self.known:
                self.known[key] = self._lower_call(node.call, types)
            kernel = self.known[key]
            if kernel is not None:
                launches.append(Launch(kernel, (index,)))
        return KernelPlan(tuple(self.kernels), tuple(launches), self._storage_scale(dtypes))

    def _intern(self, kernel: Kernel) -> int:
        return self.kernels.setdefault(kernel, len(self.kernels))

    def _cast(self, tensor: int, target: str) -> Kernel:
        """A copy into another dtype: reads what there is, writes the new."""
        spec = self.graph.specs[self.graph.tensors[tensor].spec]
        elements: int = product(spec.shape)  # type: ignore[assignment]
        source = "float32" if target != "float32" else "float16"
        return Kernel(
            op="aten._to_copy",
            algorithm="cast",
            bytes_read=elements * ITEMSIZE_BYTES[source],
            bytes_written=elements * ITEMSIZE_BYTES[target],
        )

    def _lower_call(self, index: int, types: NodeDtypes) -> int | None:
        call = self.graph.calls[index]
        if is_free(call.op):
            return None
        arguments = _retyped(self.graph.arguments(call), iter(types.inputs))
        results = _retyped(self.graph.results(call), iter(types.outputs))
        cost = cost_of(call.op, arguments, results)
        if cost is None:
            cost = default_cost(arguments, results)
        if not (cost.launches or cost.flops or cost.bytes):
            return None
        return self._intern(self._kernel(call.op, arguments, cost, types))

    def _kernel(self, op: str, arguments: dict[str, Any], cost: Cost, types: NodeDtypes) -> Kernel:
        algorithm = algorithm_of(op, arguments)
        kernel = Kernel(
            op=op,
            algorithm=algorithm,
            matrix_flops=cost.matrix_flops,  # type: ignore[arg-type]
            vector_flops=cost.vector_flops,  # type: ignore[arg-type]
            bytes_read=cost.bytes_read,  # type: ignore[arg-type]
            bytes_written=cost.bytes_written,  # type: ignore[arg-type]
            workspace_bytes=cost.workspace_bytes,  # type: ignore[arg-type]
            count=cost.launches,  # type: ignore[arg-type]
        )
        if not cost.matrix_flops:
            return kernel
        operand = next((d for d in types.inputs if d.startswith(("float", "bfloat"))), "float32")
        dtype = contraction_dtype(op, self.execution, operand, self.hardware.has_tf32)
        engine, dtype, accumulate = engine_for(algorithm, dtype, self.hardware)
        return replace(kernel, engine=engine, dtype=dtype, accumulate=accumulate)

    def _storage_scale(self, dtypes: Sequence[NodeDtypes]) -> tuple[float, ...]:
        """How much smaller each storage is than traced, by the dtype of the value first put into it."""
        scale = [1.0] * len(self.graph.storages)
        seen: set[int] = set()
        for node, types in zip(self.graph.nodes, dtypes, strict=True):
            for tensor, dtype in zip(node.outputs, types.outputs, strict=True):
                storage = self.graph.tensors[tensor].storage
                if storage not in seen:
                    seen.add(storage)
                    traced = self.graph.storages[storage].dtype
                    scale[storage] = ITEMSIZE_BYTES.get(dtype, 1) / ITEMSIZE_BYTES.get(traced, 1)
        return tuple(scale)


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
