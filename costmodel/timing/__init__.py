"""How long kernels take on a machine."""

from __future__ import annotations

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels import KernelPlan
from costmodel.timing.cpu import cpu_timeline
from costmodel.timing.interval import step_interval
from costmodel.timing.roofline import Estimate, estimate_kernel, roofline_timeline
from costmodel.timing.step import Step
from costmodel.timing.timeline import KernelSeconds, Slot, Timeline

__all__ = ["Estimate", "KernelSeconds", "Slot", "Timeline", "estimate_kernel", "step_interval", "step_timeline"]


def step_timeline(plan: KernelPlan, graph: OpGraph, hardware: HardwareProfile) -> Timeline:
    """The timeline of one step of ``plan``: a slot for each launch, in program order."""
    if hardware.is_gpu:
        return Step(plan, graph, hardware).timeline()
    if hardware.is_cpu:
        return cpu_timeline(plan, graph, hardware)
    return roofline_timeline(plan, hardware)
