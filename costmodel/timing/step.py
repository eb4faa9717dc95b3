"""Time of one step: every launch in program order, with what is still in L2 and what the host needs.

A tensor that was written a short while ago is read from L2. "A short while" is counted in bytes: those
touched since the kernel that wrote it began, against the capacity of L2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.tensor import Role
from costmodel.timing.gpu import KernelSeconds, gpu_kernel_time
from costmodel.timing.host import host_weight
from costmodel.timing.roofline import Estimate

__all__ = ["STEP", "CacheConstants", "Step"]

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


class Step:
    """Estimates of all launches of a step: two queues, the host's and the device's, and what is left in L2.

    The host issues operators one after the other; a kernel starts when it has been issued and the one before it
    has ended. What a launch adds to the end of the step is its latency, so that the parts sum to the whole.
    """

    def __init__(
        self, plan: KernelPlan, graph: OpGraph, hardware: HardwareProfile, constants: CacheConstants | None = None
    ) -> None:
        self.plan, self.graph, self.hardware, self.constants = plan, graph, hardware, constants or STEP

    def estimates(self) -> list[Estimate]:
        """One estimate a launch, in program order. Seconds."""
        parts = [gpu_kernel_time(kernel, self.hardware) for kernel in self.plan.kernels]
        shares = self._memory_shares()
        issued = self._issue_times()
        found: list[Estimate] = []
        ended = 0.0
        for launch, share in zip(self.plan.launches, shares, strict=True):
            part = parts[launch.kernel]
            busy = part.seconds(share)
            start = max(ended, issued[len(found) if self.plan.compiled else launch.nodes[-1]])
            waited, ended = start - ended, start + busy
            found.append(_estimate(self.plan.kernels[launch.kernel], part, share, busy, waited))
        return found

    def _issue_times(self) -> list[float]:
        """When the host has issued each node or, in a compiled step, each launch."""
        if self.plan.compiled:
            return [(i + 1) * self.hardware.overheads.dispatch_s for i in range(len(self.plan.launches))]
        weights: list[float] | None = self.graph.memo.get("host weights")
        if weights is None:
            weights = self.graph.memo["host weights"] = list(accumulate(host_weight(n.op) for n in self.graph.nodes))
        dispatch = self.hardware.overheads.dispatch_s
        return [weight * dispatch for weight in weights]

    def _memory_shares(self) -> list[float]:
        """For each launch, the share of its memory time that DRAM still serves, the rest being hits in L2."""
        level = self.hardware.find_memory_level("l2")
        capacity = (level.capacity_bytes if level else None) or 0.0
        reads, writes = _data_flow(self.graph)
        nbytes: list[float] = [spec.nbytes for spec in self.graph.specs]  # type: ignore[misc]
        kernels, c = self.plan.kernels, self.constants
        scale = self.plan.storage_scale or (1.0,) * len(self.graph.storages)
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
                        hits += nbytes[spec] * scale[storage] * min(left / fade, 1.0)
            shares.append(1 - min(hits, kernel.bytes_read) / moved * gain if hits else 1.0)
            for source in launch.nodes:
                for storage in writes[source]:
                    began_at[storage] = touched
            earlier.append((touched, kernel.bytes_written))
            last_node = node
            touched += moved
        return shares


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


def _estimate(kernel: Kernel, part: KernelSeconds, share: float, busy: float, waited: float) -> Estimate:
    memory = (part.memory_s + part.serial_s) * share
    compute, fixed = part.compute_s, waited + part.fixed_s
    if memory >= compute:
        bound = "memory" if memory >= fixed else "launch"
    else:
        bound = "compute" if compute >= fixed else "launch"
    latency = waited + busy
    spread = SPREAD.get(kernel.algorithm, SPREAD_ELSEWHERE)
    return Estimate(compute, memory, fixed, latency, spread * latency, bound if latency else "free")
