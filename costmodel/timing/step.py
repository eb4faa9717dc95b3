"""Time of one step: every launch in program order, with what is still in L2 and what the host needs.

A tensor that was written a short while ago is read from L2. "A short while" is counted in bytes: those
touched since the kernel that wrote it began, against the capacity of L2.
"""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.tensor import Role
from costmodel.timing.gpu import KernelSeconds, gpu_kernel_time
from costmodel.timing.host import host_seconds
from costmodel.timing.roofline import Estimate

__all__ = ["STEP", "CacheConstants", "L2Reuse", "Step"]

#: Relative spread (one standard deviation) of the time of a kernel, by algorithm [1]: how far whole timm models that
#: are rich in it scatter around the prediction. Errors of one algorithm go together, those of different ones do not.
SPREAD = {
    "gemm": 0.06,
    "batched_gemm": 0.20,
    "implicit_gemm": 0.12,
    "grouped_implicit_gemm": 0.25,
    "direct_depthwise": 0.25,
    "elementwise": 0.08,
    "normalization": 0.10,
    "cast": 0.08,
    "flash_attention": 0.12,
    "efficient_attention": 0.2,
    "unknown": 0.5,
}
SPREAD_ELSEWHERE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConstants:
    """How L2 serves a tensor that was just written.

    ``full`` and ``gone``: bytes touched since, over the capacity, up to which all and from which none is left.
    ``speedup``: rate of hits over that of DRAM on large-L2 GPUs (5 TB/s against 1 TB/s on an RTX 4090, an L40S).
    """

    full: float = 0.6
    gone: float = 1.4
    speedup: float = 5.0


STEP = CacheConstants()


class L2Reuse:
    """Walks the launches of a plan and says, for each, what share of its memory time is left after hits in L2."""

    def __init__(self, graph: OpGraph, hardware: HardwareProfile, constants: CacheConstants = STEP) -> None:
        level = hardware.find_memory_level("l2")
        self.capacity = (level.capacity_bytes if level and level.capacity_bytes else 0.0) or 1.0
        self.graph, self.constants = graph, constants
        self.touched = 0.0  # B since the step began
        self.written_at: dict[int, float] = {}  # storage -> touched when its writer began
        self.node = -1
        self.previous = 0.0

    def memory_share(self, kernel: Kernel, node: int) -> float:
        """Share of the kernel's memory time that DRAM still has to serve; then count its traffic."""
        began = self.touched
        hits = 0.0
        if node != self.node:
            for index in self.graph.nodes[node].inputs:
                tensor = self.graph.tensors[index]
                hits += self._hits(tensor.storage, self.graph.specs[tensor.spec].nbytes)  # type: ignore[arg-type]
        else:  # a later kernel of the same operator reads what the one before wrote
            hits = kernel.bytes_read * self._left(began - self.previous)
        self.node, self.previous = node, began
        hits = min(hits, kernel.bytes_read)
        self.touched += kernel.bytes
        for tensor in self.graph.nodes[node].outputs:
            self.written_at[self.graph.tensors[tensor].storage] = began
        moved = kernel.bytes or 1
        return 1 - hits / moved * (1 - 1 / self.constants.speedup)

    def _hits(self, storage: int, nbytes: float) -> float:
        written = self.written_at.get(storage)
        if written is None or self.graph.storages[storage].role is not Role.ACTIVATION:
            return 0.0
        return nbytes * self._left(self.touched - written)

    def _left(self, distance: float) -> float:
        """Share of a tensor that is still in L2 after ``distance`` bytes."""
        c = self.constants
        return min(1.0, max(0.0, (c.gone - distance / self.capacity) / (c.gone - c.full)))


class Step:
    """Estimates of all launches of a step: two queues, the host's and the device's.

    The host issues operators one after the other; a kernel starts when it has been issued and the one before it
    has ended. What a launch adds to the end of the step is its latency, so that the parts sum to the whole.
    """

    def __init__(self, plan: KernelPlan, graph: OpGraph, hardware: HardwareProfile) -> None:
        self.plan, self.graph, self.hardware = plan, graph, hardware

    def estimates(self) -> list[Estimate]:
        """One estimate a launch, in program order. Seconds."""
        parts = [gpu_kernel_time(kernel, self.hardware) for kernel in self.plan.kernels]
        reuse = L2Reuse(self.graph, self.hardware)
        issued = self._issue_times()
        found, ended = [], 0.0
        for launch in self.plan.launches:
            kernel, part = self.plan.kernels[launch.kernel], parts[launch.kernel]
            share = reuse.memory_share(kernel, launch.nodes[0])
            busy = part.seconds(share)
            start = max(ended, issued[launch.nodes[-1]])
            waited, ended = start - ended, start + busy
            found.append(_estimate(kernel, part, share, busy, waited))
        return found

    def _issue_times(self) -> list[float]:
        """When the host has issued each node; a compiled step is issued by one call, kernel by kernel."""
        clock, times = 0.0, []
        for node in self.graph.nodes:
            clock += host_seconds(node.op, self.hardware)
            times.append(clock)
        return times


def _estimate(kernel: Kernel, part: KernelSeconds, share: float, busy: float, waited: float) -> Estimate:
    memory = part.memory_s * share
    longest = max(waited, part.compute_s, memory, part.fixed_s)
    bound = "compute" if longest == part.compute_s else "memory" if longest == memory else "launch"
    latency = waited + busy
    spread = SPREAD.get(kernel.algorithm, SPREAD_ELSEWHERE)
    return Estimate(
        part.compute_s, memory, waited + part.fixed_s, latency, spread * latency, bound if latency else "free"
    )
