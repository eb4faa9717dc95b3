"""Time of one step: every launch in program order, with what is still in L2 and what the host needs.

A tensor that was written a short while ago is read from L2. "A short while" is counted in bytes: those
touched since the kernel that wrote it began, against the capacity of L2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import KernelPlan
from costmodel.tensor import Role
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.gpu import gpu_model
from costmodel.timing.timeline import Slot, Timeline

__all__ = ["Step", "gpu_timeline"]

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


class Step:
    """The timeline of a step on a GPU: two queues, the host's and the device's, and what is left in L2.

    ``issued`` says when the host has issued each launch [s]; a kernel starts when it has been issued and the one before
    it has ended. What a launch adds to the end of the step is its latency, so that the parts sum to the whole.
    """

    def __init__(
        self,
        plan: KernelPlan,
        graph: OpGraph,
        hardware: HardwareProfile,
        issued: Sequence[float],
        constants: Constants = CONSTANTS,
    ) -> None:
        self.plan, self.graph, self.hardware, self.issued = plan, graph, hardware, issued
        self.constants = constants

    def timeline(self) -> Timeline:
        """One slot a launch, in program order."""
        kernels = self.plan.kernels
        model = gpu_model(self.hardware, self.constants)
        parts = [model.seconds(kernel) for kernel in kernels]
        spreads = [SPREAD.get(kernel.algorithm, SPREAD_ELSEWHERE) for kernel in kernels]
        slots: list[Slot] = []
        ended = 0.0
        for launch, share, issued in zip(self.plan.launches, self.memory_shares(), self.issued, strict=True):
            part = parts[launch.kernel]
            busy = part.seconds(share)
            start = issued if issued > ended else ended
            waited, ended = start - ended, start + busy
            fixed = waited + part.fixed_s
            slots.append(Slot(issued, start, ended, waited, busy, fixed, part, share, spreads[launch.kernel]))
        return Timeline(tuple(slots))

    def memory_shares(self) -> list[float]:
        """For each launch, the share of its memory time that DRAM still serves, the rest being hits in L2."""
        level = self.hardware.find_memory_level("l2")
        capacity = (level.capacity_bytes if level else None) or 0.0
        reads, writes = _data_flow(self.graph)
        nbytes: list[float] = [spec.nbytes for spec in self.graph.specs]  # type: ignore[misc]
        kernels, c = self.plan.kernels, self.constants.caches
        stored, traced = self.plan.storage_bytes, self.graph.storages
        reach, fade, gain = c.gone * capacity, (c.gone - c.full) * capacity or 1.0, 1 - 1 / c.speedup
        touched = 0.0  # B since the step began
        began_at: dict[int, float] = {}  # storage -> touched when its writer began
        earlier: list[tuple[float, int]] = []  # kernels of the same operator: touched when each began, what it wrote
        shares: list[float] = []
        last_node = -1
        for launch in self.plan.launches:
            kernel, node = kernels[launch.kernel], launch.nodes[-1]
            moved = kernel.bytes_read + kernel.bytes_written
            hits = 0.0
            if node == last_node:
                for began, written in earlier:
                    left = reach - (touched - began)
                    if left > 0:
                        hits += written * min(left / fade, 1.0)
            else:
                earlier.clear()
                several = len(launch.nodes) > 1
                for storage, spec in {p for n in launch.nodes for p in reads[n]} if several else reads[node]:
                    left = reach - (touched - began_at.get(storage, -math.inf))
                    if left > 0:
                        scale = stored[storage] / (traced[storage].nbytes or 1)
                        hits += nbytes[spec] * scale * min(left / fade, 1.0)
            shares.append(1 - min(hits, kernel.bytes_read) / moved * gain if hits else 1.0)
            for source in launch.nodes:
                for storage in writes[source]:
                    began_at[storage] = touched
            earlier.append((touched, kernel.bytes_written))
            last_node = node
            touched += moved
        return shares


def gpu_timeline(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float],
    constants: Constants = CONSTANTS,
) -> Timeline:
    """The timeline of a step on a GPU."""
    return Step(plan, graph, hardware, issued, constants).timeline()


def _data_flow(graph: OpGraph) -> tuple[list[tuple[tuple[int, int], ...]], list[tuple[int, ...]]]:
    """Per node, the (storage, spec) of the activations that it reads and the storages that it writes; kept in memo."""
    known: tuple[list[tuple[tuple[int, int], ...]], list[tuple[int, ...]]] | None = graph.memo.get("data flow")
    if known is None:
        kept = [storage.role is Role.ACTIVATION for storage in graph.storages]
        tensors = graph.tensors
        reads = [
            tuple((tensors[t].storage, tensors[t].spec) for t in node.inputs if kept[tensors[t].storage])
            for node in graph.nodes
        ]
        writes = [tuple(tensors[t].storage for t in node.outputs) for node in graph.nodes]
        known = graph.memo["data flow"] = (reads, writes)
    return known
