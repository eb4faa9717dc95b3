"""A captured eager step: the operators of eager PyTorch, recorded once as a CUDA graph and replayed with one call."""

from __future__ import annotations

from typing import ClassVar

from costmodel.engines.capture import refuse_without_graphs
from costmodel.engines.engine import Engine
from costmodel.engines.packed_layers import with_library_layers
from costmodel.engines.registry import register
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.host import HostProfile, captured, costs_of
from costmodel.kernels import KernelPlan, eager_plan

__all__ = ["CudaGraph"]


@register
class CudaGraph(Engine):
    """Eager kernels without the host between them."""

    name = "cudagraph"
    title = "captured as a CUDA graph"
    help = "the eager step, captured"
    captures = True
    spellings: ClassVar[tuple[str, ...]] = ("cudagraphs", "cuda_graph", "cuda-graph")

    def program(self, graph: OpGraph) -> OpGraph:
        """Layers with packed weights are those of their libraries."""
        return with_library_layers(graph)

    def lower(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
        """The kernels of eager mode. Raises InputError where the machine has no graphs to capture."""
        refuse_without_graphs(self.name, hardware)
        return eager_plan(graph, execution, hardware)

    def issued(self, plan: KernelPlan, graph: OpGraph, execution: Execution, host: HostProfile) -> list[float]:
        """One call, then the device's own gaps."""
        return captured(plan, graph, host, costs_of(execution.software).cudagraph)
