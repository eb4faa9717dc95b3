"""Which models time a kernel and a step, by family of machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from costmodel.devices import ByFamily
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.timing.constants import Constants
from costmodel.timing.cpu import cpu_timeline
from costmodel.timing.gpu import gpu_kernel_time
from costmodel.timing.roofline import roofline_timeline
from costmodel.timing.step import gpu_timeline
from costmodel.timing.timeline import KernelSeconds, Timeline

__all__ = ["KERNEL_TIME", "STEP_TIMELINE"]

#: Seconds of one kernel by itself; None where a kernel's time hangs on the step around it, or nothing models it.
KERNEL_TIME = ByFamily[Callable[[Kernel, HardwareProfile], KernelSeconds] | None](
    cuda=gpu_kernel_time, rocm=gpu_kernel_time, cpu=None, accelerator=None
)
#: The timeline of one step: a slot for each launch, in program order, none of which starts before it is issued.
STEP_TIMELINE = ByFamily[Callable[[KernelPlan, OpGraph, HardwareProfile, Sequence[float], Constants], Timeline]](
    cuda=gpu_timeline, rocm=gpu_timeline, cpu=cpu_timeline, accelerator=roofline_timeline
)
