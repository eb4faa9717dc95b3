"""``torch.compile`` with TorchInductor in its default mode: generated kernels between the libraries' own.

``fusion``, ``buffers``, ``kinds`` and ``schedule`` are what it does for a GPU, ``cpu`` for a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from costmodel.engines.engine import Advice, Engine
from costmodel.engines.registry import register
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.host import HostProfile, compiled, costs_of
from costmodel.kernels.answers import shared_plan
from costmodel.kernels.plan import KernelPlan

__all__ = ["Inductor"]


@register
class Inductor(Engine):
    """Generated code issues generated kernels and calls of libraries, one after the other."""

    name = "compile"
    title = "compiled"
    help = "torch.compile"
    spellings: ClassVar[tuple[str, ...]] = ("compiled", "dynamo", "inductor")
    fuses_pointwise = True
    idle_word = "fused"
    advice: ClassVar[Mapping[str, Advice]] = MappingProxyType(
        {"host": Advice('mode="reduce-overhead" replays the step as a CUDA graph', "reduce-overhead")}
    )
    compile_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def lower(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
        """Launches in an order that respects the data flow; each names every node whose arithmetic it does."""
        from costmodel.engines.inductor.families import COMPILED_PLAN  # only a compiled run pays for the scheduler

        return shared_plan(graph, execution, hardware, lambda g, e, machine: COMPILED_PLAN.of(machine)(g, e, machine))

    def issued(self, plan: KernelPlan, graph: OpGraph, execution: Execution, host: HostProfile) -> list[float]:
        """Guards once, then a launch for each generated kernel and a call for each of a library's."""
        return compiled(plan, graph, host, costs_of(execution.software))
