"""How long kernels take on a machine."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels import KernelPlan
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.families import KERNEL_TIME, STEP_TIMELINE
from costmodel.timing.interval import Drawn, HostLatencies, at_confidence, drawn, step_interval
from costmodel.timing.roofline import Estimate, estimate_kernel
from costmodel.timing.timeline import KernelSeconds, Slot, Timeline

__all__ = [
    "CONSTANTS",
    "KERNEL_TIME",
    "Constants",
    "Drawn",
    "Estimate",
    "HostLatencies",
    "KernelSeconds",
    "Slot",
    "Timeline",
    "at_confidence",
    "drawn",
    "estimate_kernel",
    "step_interval",
    "step_timeline",
]


def step_timeline(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float],
    constants: Constants = CONSTANTS,
) -> Timeline:
    """The timeline of one step of ``plan``: a slot for each launch, in program order.

    ``issued`` says for each launch when the host has issued it, in seconds since the step began; ``constants`` are the
    figures of the time model that no datasheet states.
    """
    return STEP_TIMELINE.of(hardware)(plan, graph, hardware, issued, constants)
