"""Eager PyTorch: Python calls operator after operator, and each launches the kernels that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from costmodel.engines.engine import Advice, Engine
from costmodel.engines.packed_layers import with_library_layers
from costmodel.engines.registry import register
from costmodel.execution import Execution, Phase
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.host import HostProfile, costs_of, operators
from costmodel.kernels import KernelPlan, eager_plan

__all__ = ["Eager"]


@register
class Eager(Engine):
    """Every operator by itself, in program order."""

    name = "eager"
    title = "in eager mode"
    help = "PyTorch as it comes"
    phases: ClassVar[frozenset[Phase]] = frozenset(Phase)
    advice: ClassVar[Mapping[str, Advice]] = MappingProxyType(
        {
            "host": Advice("torch.compile issues the step from generated code", "compile"),
            "starts": Advice("torch.compile fuses what it can", "compile"),
            "traffic": Advice("torch.compile fuses chains", "compile"),
        }
    )

    def program(self, graph: OpGraph) -> OpGraph:
        """Layers with packed weights are those of their libraries."""
        return with_library_layers(graph)

    def lower(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
        """Views launch nothing; casts that autocast inserts run ahead of the node that asked for them."""
        return eager_plan(graph, execution, hardware)

    def issued(self, plan: KernelPlan, graph: OpGraph, execution: Execution, host: HostProfile) -> list[float]:
        """The host pays for every node, views too, one after the other."""
        autocast = execution.precision.autocast is not None
        return operators(plan, graph, host, costs_of(execution.software), autocast)
