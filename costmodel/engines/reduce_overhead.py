"""``torch.compile(mode="reduce-overhead")``: Inductor's kernels, captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from costmodel.engines.capture import refuse_without_graphs
from costmodel.engines.engine import Advice
from costmodel.engines.inductor import Inductor
from costmodel.engines.registry import register
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.host import HostProfile, captured, costs_of
from costmodel.kernels.plan import KernelPlan

__all__ = ["ReduceOverhead"]


@register
class ReduceOverhead(Inductor):
    """Generated kernels without the host between them."""

    name = "reduce-overhead"
    title = "compiled and captured"
    help = "torch.compile(mode='reduce-overhead')"
    captures = True
    spellings = ("reduce_overhead", "compile-cudagraph")
    advice: ClassVar[Mapping[str, Advice]] = MappingProxyType({})
    compile_options: ClassVar[Mapping[str, Any]] = MappingProxyType({"mode": "reduce-overhead"})

    def lower(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
        """The kernels of the default mode. Raises InputError where the machine has no graphs to capture."""
        refuse_without_graphs(self.name, hardware)
        return super().lower(graph, execution, hardware)

    def issued(self, plan: KernelPlan, graph: OpGraph, execution: Execution, host: HostProfile) -> list[float]:
        """One call, then the device's own gaps."""
        return captured(plan, graph, host, costs_of(execution.software).reduce_overhead)
