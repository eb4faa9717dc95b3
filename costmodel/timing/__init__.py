"""How long kernels take on a machine."""

from __future__ import annotations

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels import KernelPlan
from costmodel.timing.cpu import cpu_step_estimates
from costmodel.timing.interval import step_interval
from costmodel.timing.roofline import Estimate, estimate_kernel
from costmodel.timing.step import Step

__all__ = ["Estimate", "estimate_kernel", "estimate_plan", "step_interval"]


def estimate_plan(plan: KernelPlan, graph: OpGraph, hardware: HardwareProfile) -> list[Estimate]:
    """One estimate for each launch of ``plan``, in program order."""
    if hardware.is_gpu:
        return Step(plan, graph, hardware).estimates()
    if hardware.is_cpu:
        return cpu_step_estimates(plan, graph, hardware)
    times = [estimate_kernel(kernel, hardware) for kernel in plan.kernels]
    return [times[launch.kernel] for launch in plan.launches]
