"""Footprint: the most memory that a step takes at once, and what lies there then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from costmodel.execution import Precision
from costmodel.execution.precision import torch_dtype
from costmodel.graph import OpGraph
from costmodel.kernels.plan import KernelPlan
from costmodel.memory.allocator import Allocator, ExactBytes
from costmodel.memory.liveness import occupancy
from costmodel.tensor import ITEMSIZE_BYTES, Role

__all__ = ["Footprint", "footprint", "run_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of a step in B: what lies there throughout, and the most activations alive at once.

    ``constant_bytes`` are tensors that the module holds beside parameters and buffers, as plain attributes.
    ``peak_launch`` is the launch during which they are; None where nothing is launched.
    """

    parameter_bytes: int
    buffer_bytes: int
    input_bytes: float
    constant_bytes: float
    activation_bytes: float
    peak_launch: int | None

    @property
    def peak_bytes(self) -> int:
        """All of it together."""
        return int(self._resident_bytes + self.activation_bytes)

    @property
    def _resident_bytes(self) -> float:
        return self.parameter_bytes + self.buffer_bytes + self.input_bytes + self.constant_bytes


def footprint(plan: KernelPlan, graph: OpGraph, precision: Precision, allocator: Allocator | None = None) -> Footprint:
    """The memory of one step of ``plan``; ``allocator`` (default: :class:`ExactBytes`) hands activations out."""
    taken = occupancy(plan, graph, ExactBytes() if allocator is None else allocator)
    peak = max(range(len(taken)), key=taken.__getitem__, default=None)
    inputs = {graph.tensors[t].storage for t in graph.inputs}
    brought = {
        t.storage for t in graph.tensors if t.producer is None and graph.storages[t.storage].role is Role.CONSTANT
    }
    return Footprint(
        parameter_bytes=run_bytes(graph.parameter_bytes_of, precision, graph.own_dtype),
        buffer_bytes=run_bytes(graph.buffer_bytes_of, precision, graph.own_dtype),
        input_bytes=sum(plan.storage_bytes[storage] for storage in inputs),
        constant_bytes=sum(plan.storage_bytes[storage] for storage in brought),
        activation_bytes=0.0 if peak is None else taken[peak],
        peak_launch=peak,
    )


def run_bytes(by_dtype: Mapping[str, int], precision: Precision, own: str = "float32") -> int:
    """B in a run of what takes ``by_dtype`` [B, by dtype] as the module has it.

    ``model.to(dtype)`` moves what is of the module's ``own`` dtype; what it keeps in another one stays there.

    >>> run_bytes({"float32": 400, "bfloat16": 10, "int64": 8}, Precision.of("bf16"))
    218
    >>> run_bytes({"float32": 400, "bfloat16": 10}, Precision.of("fp32"), own="bfloat16")
    420
    """
    new, old = ITEMSIZE_BYTES[torch_dtype(precision.weights)], ITEMSIZE_BYTES[own]
    return sum(n * new // old if dtype == own else n for dtype, n in by_dtype.items())
