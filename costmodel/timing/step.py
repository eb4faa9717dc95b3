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

__all__ = ["STEP", "CacheConstants", "L2Reuse"]


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

    def memory_share(self, kernel: Kernel, node: int) -> float:
        """Share of the kernel's memory time that DRAM still has to serve; then count its traffic."""
        began = self.touched
        hits = 0.0
        if node != self.node:
            self.inputs_began = began
            for tensor in self.graph.nodes[node].inputs:
                hits += self._hits(self.graph.tensors[tensor].storage, self.graph.specs[self.graph.tensors[tensor].spec].nbytes)
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
        """Share of a tensor that is still in L2 after ``distance`` bytes.

        """
        c = self.constants
        return min(1.0, max(0.0, (c.gone - distance / self.capacity) / (c.gone - c.full)))


def step_times(plan: KernelPlan, graph: OpGraph, hardware: HardwareProfile) -> list[tuple[KernelSeconds, float]]:
    """For each launch, the parts of its kernel's time and its seconds."""
    parts = [gpu_kernel_time(kernel, hardware) for kernel in plan.kernels]
    reuse = L2Reuse(graph, hardware)
    times = []
    for launch in plan.launches:
        share = reuse.memory_share(plan.kernels[launch.kernel], launch.nodes[0])
        times.append((parts[launch.kernel], parts[launch.kernel].seconds(share)))
    return times
