"""Time of one step: every launch in program order, with what is still in L2 and what the host needs.

A tensor that was written a short while ago is read from L2. "A short while" is counted in bytes: those
touched since the kernel that wrote it began, against the capacity of L2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import KernelPlan, Launch, Read
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
    Where the host reads a result (``OpNode.synchronizes``) it issues nothing more until the device has ended: the queue
    runs empty, and everything after it is issued that much later.
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
        whole = [part.seconds() for part in parts]
        spreads = [SPREAD.get(kernel.algorithm, SPREAD_ELSEWHERE) for kernel in kernels]
        slots: list[Slot] = []
        ended = 0.0
        late = 0.0  # s that the host has fallen behind by waiting for the device
        reading = self.graph.synchronizing
        for launch, share, planned in zip(self.plan.launches, self.memory_shares(), self.issued, strict=True):
            part = parts[launch.kernel]
            busy = whole[launch.kernel] if share == 1.0 else part.seconds(share)
            issued = planned + late
            start = issued if issued > ended else ended
            waited, ended = start - ended, start + busy
            fixed = waited + part.fixed_s
            slots.append(Slot(issued, start, ended, waited, busy, fixed, part, share, spreads[launch.kernel]))
            if reading and launch.nodes[-1] in reading:
                late = max(late, ended + self.hardware.overheads.sync_s - planned)
        return Timeline(tuple(slots))

    def memory_shares(self) -> list[float]:
        """For each launch, the share of its memory time that DRAM still serves, the rest being hits in L2.

        Of several kernels that one operator starts, each reads what the ones before it wrote, and of the operator's
        operands what they have left: a copy into another layout takes the tensor that it copies.
        """
        level, c = self.hardware.find_memory_level("l2"), self.constants.caches
        capacity = (level.capacity_bytes if level else None) or 0.0
        reach, fade, gain = c.gone * capacity, (c.gone - c.full) * capacity or 1.0, 1 - 1 / c.speedup
        touched = 0.0  # B since the step began
        began_at: dict[int, float] = {}  # storage -> touched when its writer began
        earlier: list[tuple[float, int]] = []  # kernels of the same operator: touched when each began, what it wrote
        taken = 0.0  # B that these have read
        shares: list[float] = []
        moved = [(kernel.bytes_read, kernel.bytes_written) for kernel in self.plan.kernels]
        for kernel, reads, again, writes in _flow(self.plan, self.graph):
            read, written = moved[kernel]
            hits = 0.0
            for storage, spec in reads:
                left = reach - (touched - began_at[storage])
                if left > 0:
                    hits += self._bytes(storage, spec) * min(left / fade, 1.0)
            if again:
                hits = max(hits - taken, 0.0)
                for began, result in earlier:
                    left = reach - (touched - began)
                    if left > 0:
                        hits += result * min(left / fade, 1.0)
            elif earlier:
                taken = 0.0
                earlier.clear()
            shares.append(1 - min(hits, read) / (read + written) * gain if hits and read else 1.0)
            for storage in writes:
                began_at[storage] = touched
            earlier.append((touched, written))
            taken += read
            touched += read + written
        return shares

    def _bytes(self, storage: int, spec: int) -> float:
        """B of a tensor in a storage, in the dtype of the run."""
        stored, traced = self.plan.storage_bytes[storage], self.graph.storages
        if storage >= len(traced):
            return stored
        nbytes: float = self.graph.specs[spec].nbytes  # type: ignore[assignment]
        return nbytes * stored / (traced[storage].nbytes or 1)


class _Flow(NamedTuple):
    """What of a launch decides its hits: its kernel, the reads of what the step wrote before, whether it belongs to
    the same operator as the launch before it, and what it writes."""

    kernel: int
    reads: tuple[Read, ...]
    again: bool
    writes: tuple[int, ...]


def _flow(plan: KernelPlan, graph: OpGraph) -> list[_Flow]:
    """The data flow by launch; sizes do not matter, so that it is kept for the launches of a plan."""
    kept: dict[int, tuple[tuple[Launch, ...], list[_Flow]]] = graph.memo.setdefault("data flow", {})
    known = kept.get(id(plan.launches))
    if known is None or known[0] is not plan.launches:
        known = kept[id(plan.launches)] = (plan.launches, _find_flow(plan.launches))
    return known[1]


def _find_flow(launches: Sequence[Launch]) -> list[_Flow]:
    written: set[int] = set()
    found: list[_Flow] = []
    before: Launch | None = None
    for launch in launches:
        again = before is not None and (before.nodes, before.writes) == (launch.nodes, launch.writes)
        reads = tuple(read for read in launch.reads if read.storage in written)
        found.append(_Flow(launch.kernel, reads, again, launch.writes))
        written.update(launch.writes)
        before = launch
    return found


def gpu_timeline(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float],
    constants: Constants = CONSTANTS,
) -> Timeline:
    """The timeline of a step on a GPU."""
    return Step(plan, graph, hardware, issued, constants).timeline()
