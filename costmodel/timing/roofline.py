"""The roofline: how long a kernel takes on a machine, and what holds it back."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel

__all__ = ["BOUNDS", "Estimate", "estimate_kernel"]

BOUNDS = ("compute", "memory", "launch", "free")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted times of one kernel, in seconds.

    ``latency_s`` is the largest of ``compute_s`` (FLOP over the peak of their engine), ``memory_s``
    (bytes over the bandwidth of device memory) and ``launch_s`` (the host's time to start it).
    ``low_s`` and ``high_s`` enclose the latency that a measurement may show.
    """

    compute_s: float
    memory_s: float
    launch_s: float
    latency_s: float
    low_s: float
    high_s: float
    bound: str


def estimate_kernel(kernel: Kernel, hardware: HardwareProfile) -> Estimate:
    """Roofline time of ``kernel`` on ``hardware`` at its datasheet roofs.

    The lower end of the interval is the roofline without launch time: no run of this algorithm can be
    faster unless data stay in cache. The upper end assumes that a kernel reaches half of its roof and
    is started one at a time.
    """
    compute = kernel.vector_flops / hardware.peak("vector", "fp32").flop_per_s
    if kernel.matrix_flops:
        compute += kernel.matrix_flops / hardware.peak(kernel.engine, kernel.dtype, kernel.accumulate).flop_per_s
    memory = kernel.bytes / hardware.dram_bytes_per_s
    launch = kernel.count * hardware.overheads.dispatch_s
    latency = max(compute, memory, launch)
    bound = "free" if not latency else "launch" if latency == launch else "compute" if latency == compute else "memory"
    roof = max(compute, memory)
    return Estimate(compute, memory, launch, latency, roof, launch + 2 * roof, bound)
