"""The roofline: how long a kernel takes on a machine, and what holds it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.timeline import KernelSeconds, Kind, Timeline

__all__ = ["BOUNDS", "Estimate", "estimate_kernel", "roofline_timeline"]

#: Standard deviation of a kernel's time over the prediction, where a datasheet is all that is known [1].
SPREAD = 0.4
BOUNDS = ("compute", "memory", "launch", "free")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted times of one kernel by itself, in seconds.

    ``compute_s`` is arithmetic, ``memory_s`` traffic with device memory, ``launch_s`` what depends on neither: waiting
    for the host, start and drain. ``latency_s`` is what the launch adds to the step; ``spread_s`` one standard
    deviation of it. ``bound`` names the largest part: compute, memory, launch, or free.
    """

    compute_s: float
    memory_s: float
    launch_s: float
    latency_s: float
    spread_s: float
    bound: str


def estimate_kernel(kernel: Kernel, hardware: HardwareProfile) -> Estimate:
    """Roofline time of ``kernel`` on ``hardware`` at its datasheet roofs, for machines without a model of their own."""
    lanes = hardware.find_peak("vector", kernel.dtype if kernel.dtype == "fp64" else "fp32")
    compute = kernel.vector_flops / (lanes or hardware.peak("vector", "fp32")).flop_per_s
    if kernel.matrix_flops:
        compute += kernel.matrix_flops / hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate).flop_per_s
    memory = kernel.bytes / hardware.dram_bytes_per_s
    launch = kernel.starts * hardware.overheads.dispatch_s
    latency = max(compute, memory, launch)
    bound = "free" if not latency else "launch" if latency == launch else "compute" if latency == compute else "memory"
    return Estimate(compute, memory, launch, latency, SPREAD * latency, bound)


def roofline_timeline(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float],
    constants: Constants = CONSTANTS,
) -> Timeline:
    """The timeline of a step on such a machine: a launch waits where issuing takes longer than its work.

    Nobody has measured how far its host runs ahead, so each launch pays the datasheet's dispatch time by itself, and
    ``issued`` is not read.
    """
    found = [estimate_kernel(kernel, hardware) for kernel in plan.kernels]
    kinds, idle = [], []
    for kernel in found:
        busy = max(kernel.compute_s, kernel.memory_s)
        idle.append(kernel.latency_s - busy)
        part = KernelSeconds(kernel.compute_s, kernel.memory_s, 0.0)
        kinds.append(Kind(part, busy, kernel.launch_s - idle[-1], spread=SPREAD))
    starts, ended = [], 0.0
    for which in plan.called:
        starts.append(ended + idle[which])
        ended = starts[-1] + kinds[which].busy_s
    return Timeline(kinds, plan.called, starts)
