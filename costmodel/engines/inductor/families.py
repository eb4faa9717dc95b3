"""Which rules Inductor lowers a graph with, by family of machines."""

from __future__ import annotations

from collections.abc import Callable

from costmodel.devices import ByFamily
from costmodel.engines.inductor.cpu import compiled_cpu_plan
from costmodel.engines.inductor.fusion import compiled_plan
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import KernelPlan

__all__ = ["COMPILED_PLAN"]

#: Kernels of one compiled step; Triton's kernels are the same program on CUDA and ROCm.
COMPILED_PLAN = ByFamily[Callable[[OpGraph, Execution, HardwareProfile], KernelPlan]](
    cuda=compiled_plan, rocm=compiled_plan, cpu=compiled_cpu_plan, accelerator=compiled_plan
)
