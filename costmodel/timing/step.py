"""Time of one step: every launch in program order, with what is still in L2 and what the host needs.

A tensor that was written a short while ago is read from L2. "A short while" is counted in bytes: those
touched since the kernel that wrote it began, against the capacity of L2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import KernelPlan
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.flow import Flow, WrittenRead, flow_of
from costmodel.timing.gpu import GpuModel, gpu_model
from costmodel.timing.power import Load, windows
from costmodel.timing.timeline import KernelSeconds, Kind, Timeline

__all__ = ["Step", "gpu_timeline"]

#: Relative spread (one standard deviation) of the time of a kernel, by algorithm [1]: how far whole timm models that
#: are rich in it scatter around the prediction. Errors of one algorithm go together, those of different ones do not.
SPREAD = {
    "gemm": 0.06,
    "batched_gemm": 0.20,
    "early_batched_gemm": 0.20,
    "implicit_gemm": 0.12,
    "grouped_implicit_gemm": 0.25,
    "direct_depthwise": 0.25,
    "elementwise": 0.08,
    "normalization": 0.10,
    "cast": 0.08,
    "flash_attention": 0.12,
    "efficient_attention": 0.2,
    "latent_attention": 0.35,  # not measured: from what authors state of one machine
    "implicit_gemm_dgrad": 0.12,
    "implicit_gemm_wgrad": 0.15,
    "depthwise_dgrad": 0.25,
    "depthwise_wgrad": 0.25,
    "grouped_direct_wgrad": 0.4,
    "flash_attention_backward": 0.2,
    "efficient_attention_backward": 0.2,
    "factorization": 0.9,  # not measured: within four times either way
    "unknown": 0.9,  # nor is what no formula knows
}
SPREAD_ELSEWHERE = 0.15


class Step:
    """The timeline of a step on a GPU: two queues, the host's and the device's, and what is left in L2.

    ``issued`` says when the host has issued each launch [s]; a kernel starts when it has been issued and the one before
    it has ended. What a launch adds to the end of the step is its latency, so that the parts sum to the whole.
    Where the host reads a result (``OpNode.synchronizes``) it issues nothing more until the device has ended: the queue
    runs empty, and everything after it is issued that much later.
    The queue runs at full clock first; where a window of it draws more than the board may, it runs once more.
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
        """One slot a launch, in program order, at the clocks that the power limit leaves."""
        loads, alike, power = self.loads(), self.flow.alike, self._model.power
        full = self._queued([power.kind(load) for load in loads], alike)
        held = self._held(loads, full)
        if held is None:
            return full
        slower: dict[tuple[int, float], int] = {}
        of_launch = [slower.setdefault(each, len(slower)) for each in zip(alike, held, strict=True)]
        return self._queued([power.kind(loads[kind], clock_hz) for kind, clock_hz in slower], of_launch)

    def _queued(self, kinds: Sequence[Kind], of_launch: Sequence[int]) -> Timeline:
        """The launches in the two queues."""
        if not self.graph.synchronizing:
            return Timeline(kinds, of_launch, self.issued)
        return Timeline(kinds, of_launch, self._issued_after_reads([kinds[kind].busy_s for kind in of_launch]))

    @cached_property
    def _model(self) -> GpuModel:
        return gpu_model(self.hardware, self.constants)

    def loads(self) -> list[Load]:
        """What launches ask of the board, in the order of ``flow.examples``; kept for the machine that asked last: it
        may ask again, under another host."""
        known: tuple[GpuModel, list[Load]] | None = self.plan.memo.get("loads")
        if known is None or known[0] is not self._model:
            known = self.plan.memo["loads"] = self._model, self._loads()
        return known[1]

    def _loads(self) -> list[Load]:
        kernels, model = self.plan.kernels, self._model
        gain = 1 - 1 / self.constants.caches.speedup
        priced: dict[int, tuple[KernelSeconds, float, float, float]] = {}
        found = []
        for (which, *_), share in zip(self._finds, self._shares(), strict=True):
            kernel = kernels[which]
            if which not in priced:
                spread = SPREAD.get(kernel.algorithm, SPREAD_ELSEWHERE)
                priced[which] = (*model.priced(kernel), spread)
            part, clock_hz, switched_j, spread = priced[which]
            of_dram = 1.0 if share == 1 or not gain else max(0.0, 1 - (1 - share) / gain)
            found.append(Load(part, share, clock_hz, switched_j, model.power.moved_j(kernel, of_dram), spread))
        return found

    def _held(self, loads: Sequence[Load], full: Timeline) -> list[float] | None:
        """For each launch the clock that the power limit leaves it [Hz]; None where it slows none of them. ``full`` is
        the step at full clock."""
        power, constants = self._model.power, self.constants.power
        pause = constants.pause_s if any(kernel.alone for kernel in self.plan.kernels) else 0.0
        if full.latency_s < 2 * constants.window_s:
            launched = [(loads[kind], full.kinds[kind], count) for kind, count in full.counts.items()]
            clock_hz = power.held_hz(launched, full.waited_s, pause)
            return [clock_hz] * len(full) if clock_hz < math.inf else None
        held: list[float] = []
        waits = [full.waits.get(position, 0.0) for position in range(len(full))]
        latencies = [waited + full.kinds[kind].busy_s for waited, kind in zip(waits, full.of_launch, strict=True)]
        for first, beyond in windows(latencies, constants.window_s):
            counts = Counter(full.of_launch[first:beyond])
            launched = [(loads[kind], full.kinds[kind], count) for kind, count in counts.items()]
            held += [power.held_hz(launched, math.fsum(waits[first:beyond]), pause)] * (beyond - first)
        return held if any(clock_hz < math.inf for clock_hz in held) else None

    def _issued_after_reads(self, busy: Sequence[float]) -> list[float]:
        """When each launch is issued, where the host waits for the device now and then."""
        reading, sync_s = self.graph.synchronizing, self.hardware.overheads.sync_s
        issued = []
        ended = 0.0
        late = 0.0  # s that the host has fallen behind by waiting for the device
        for launch, planned, busy_s in zip(self.plan.launches, self.issued, busy, strict=True):
            issued.append(planned + late)
            ended = max(issued[-1], ended) + busy_s
            if launch.nodes[-1] in reading:
                late = max(late, ended + sync_s - planned)
        return issued

    @cached_property
    def flow(self) -> Flow:
        """Who reads from whom, and which launches are alike in that."""
        return flow_of(self.plan, self.graph)

    def memory_shares(self) -> list[float]:
        """For each launch, the share of its memory time that DRAM still serves, the rest being hits in L2.

        Of several kernels that one operator starts, each reads what the ones before it wrote, and of the operator's
        operands what they have left: a copy into another layout takes the tensor that it copies.
        """
        shares = self._shares()
        return [shares[kind] for kind in self.flow.alike]

    def _shares(self) -> list[float]:
        """The shares of launches of each kind, in the order of ``flow.examples``."""
        level, c = self.hardware.find_memory_level("l2"), self.constants.caches
        capacity = (level.capacity_bytes if level else None) or 0.0
        reach, fade, gain = c.gone * capacity, (c.gone - c.full) * capacity or 1.0, 1 - 1 / c.speedup
        shares = []
        for _, reads, taken, earlier, bytes_read, nbytes in self._finds:
            hits = 0.0
            for age, size in reads:
                left = reach - age
                if left > 0:
                    hits += size * min(left / fade, 1.0)
            if earlier:
                hits = max(hits - taken, 0.0)
                for age, size in earlier:
                    left = reach - age
                    if left > 0:
                        hits += size * min(left / fade, 1.0)
            served = min(hits, bytes_read)
            shares.append(1 - served / nbytes * gain if served else 1.0)
        return shares

    @cached_property
    def _finds(self) -> list[_Found]:
        """What may still be in a cache for launches of each kind, in the order of ``flow.examples``; the same for all
        machines that share the plan."""
        known: list[_Found] | None = self.plan.memo.get("finds")
        if known is None:
            known = self.plan.memo["finds"] = list(self._find())
        return known

    def _find(self) -> Iterator[_Found]:
        kernels, launches, alike = self.plan.kernels, self.plan.launches, self.plan.alike
        moved = [kernel.bytes for kernel in kernels]
        began = list(accumulate((moved[launch.kernel] for launch in launches), initial=0))  # B touched before each
        for position in self.flow.examples:
            now, flow = began[position], self.flow.launches[position]
            reads = [(now - began[read.writer], self._written(read)) for read in flow.reads]
            before = [(began[p], kernels[launches[p].kernel]) for p in range(flow.first, position)]
            earlier = [(now - started, kernel.bytes_written) for started, kernel in before]
            which = alike[launches[position].kernel]
            taken = sum(k.bytes_read for _, k in before)
            yield _Found(which, reads, taken, earlier, kernels[which].bytes_read, moved[which])

    def _written(self, read: WrittenRead) -> float:
        """B of what is read that its writer wrote: of a cache that grows in place the new rows, and none of the others,
        which the weights of a step have pushed out since they were read last."""
        nbytes, writer = self._bytes(read.storage, read.spec), self.plan.kernels[self.plan.launches[read.writer].kernel]
        return min(nbytes, writer.bytes_written) if writer.access == "cache_write" else nbytes

    def _bytes(self, storage: int, spec: int) -> float:
        """B of a tensor in a storage, in the dtype of the run."""
        stored, traced = self.plan.storage_bytes[storage], self.graph.storages
        if storage >= len(traced):
            return stored
        nbytes: float = self.graph.specs[spec].nbytes  # type: ignore[assignment]
        return nbytes * stored / (traced[storage].nbytes or 1)


class _Found(NamedTuple):
    """What a launch of a kernel may find in a cache: (B touched since, B) of each operand that the step wrote, and of
    what launches of the same operator wrote before it, which took ``taken`` B of the operands; its own reads and all
    its traffic [B]."""

    kernel: int
    reads: list[tuple[int, float]]
    taken: int
    earlier: list[tuple[int, int]]
    bytes_read: int
    bytes: int


def gpu_timeline(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float],
    constants: Constants = CONSTANTS,
) -> Timeline:
    """The timeline of a step on a GPU."""
    return Step(plan, graph, hardware, issued, constants).timeline()
