"""Time of one step: every launch in program order, with what is still in L2 and what the host needs.

A tensor that was written a short while ago is read from L2. "A short while" is counted in bytes: those
touched since the kernel that wrote it began, against the capacity of L2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, NamedTuple

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import KernelPlan
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.flow import Flow, flow_of
from costmodel.timing.gpu import GpuModel, gpu_model
from costmodel.timing.power import Load, Power, slowed, windows
from costmodel.timing.timeline import KernelSeconds, Slot, Timeline

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
    "implicit_gemm_dgrad": 0.12,
    "implicit_gemm_wgrad": 0.15,
    "depthwise_dgrad": 0.25,
    "depthwise_wgrad": 0.25,
    "grouped_direct_wgrad": 0.4,
    "flash_attention_backward": 0.2,
    "efficient_attention_backward": 0.2,
    "unknown": 0.5,
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
        kinds, of_launch = self._kinds(), self.flow.alike
        launched = [kinds[kind] for kind in of_launch]
        issued, ended = self._queue(launched)
        held = self._held(kinds, launched, issued, ended)
        if held is not None:
            which = list(zip(of_launch, held, strict=True))
            slower = {(kind, hz): self._held_kind(kinds[kind], hz) for kind, hz in set(which)}
            launched = [slower[each] for each in which]
            issued, ended = self._queue(launched)
        return Timeline(_slots(launched, issued, self._model.power), ended)

    def _queue(self, launched: Sequence[_Kind]) -> tuple[Sequence[float], float]:
        """When each launch is issued, and when the last has ended [s]."""
        busy = [kind.busy_s for kind in launched]
        issued = self._issued_after_reads(busy) if self.graph.synchronizing else self.issued
        ended = 0.0
        for issued_s, busy_s in zip(issued, busy, strict=True):
            ended = (issued_s if issued_s > ended else ended) + busy_s
        return issued, ended

    @cached_property
    def _model(self) -> GpuModel:
        return gpu_model(self.hardware, self.constants)

    def _kinds(self) -> list[_Kind]:
        """What launches that are alike have in common, in the order of ``flow.examples``, at full clock."""
        launches, kernels = self.plan.launches, self.plan.kernels
        found = []
        for position, load in zip(self.flow.examples, self.loads(), strict=True):
            spread = SPREAD.get(kernels[launches[position].kernel].algorithm, SPREAD_ELSEWHERE)
            found.append(_Kind(load, load.part, load.part.seconds(load.share), spread))
        return found

    def _held_kind(self, kind: _Kind, clock_hz: float) -> _Kind:
        """The same launches where the board holds this clock."""
        if clock_hz >= kind.load.clock_hz:
            return kind
        parts = slowed(kind.parts, kind.load.clock_hz, clock_hz)
        return _Kind(kind.load, parts, parts.seconds(kind.load.share), kind.spread, clock_hz)

    def loads(self) -> list[Load]:
        """What launches ask of the board, in the order of ``flow.examples``."""
        kernels, launches, model = self.plan.kernels, self.plan.launches, self._model
        gain = 1 - 1 / self.constants.caches.speedup
        found = []
        for position, share in zip(self.flow.examples, self._shares(), strict=True):
            kernel = kernels[launches[position].kernel]
            of_dram = max(0.0, 1 - (1 - share) / gain) if gain else 1.0
            part = model.seconds(kernel)
            switched_j, moved_j = model.switched_j(kernel), model.power.moved_j(kernel, of_dram)
            found.append(Load(part, share, model.clock_hz(kernel), switched_j, moved_j))
        return found

    def _held(
        self, kinds: Sequence[_Kind], launched: Sequence[_Kind], issued: Sequence[float], ended: float
    ) -> list[float] | None:
        """For each launch the clock that the power limit leaves it [Hz]; None where it slows none of them."""
        power, constants = self._model.power, self.constants.power
        pause = constants.pause_s if any(kernel.alone for kernel in self.plan.kernels) else 0.0
        if ended < 2 * constants.window_s:
            counts = _counted(kinds, self.flow.alike)
            waited = ended - math.fsum(kind.busy_s for kind in launched)
            clock_hz = power.held_hz(counts, waited, pause)
            return [clock_hz] * len(launched) if clock_hz < math.inf else None
        held: list[float] = []
        waits = list(_waits(launched, issued))
        latencies = [waited + kind.busy_s for waited, kind in zip(waits, launched, strict=True)]
        for first, beyond in windows(latencies, constants.window_s):
            counts = _counted(kinds, self.flow.alike[first:beyond])
            waited = math.fsum(waits[first:beyond])
            held += [power.held_hz(counts, waited, pause)] * (beyond - first)
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
        known: list[_Found] | None = self.plan.memo.get("finds")
        if known is None:
            known = self.plan.memo["finds"] = list(self._finds())
        shares = []
        for reads, taken, earlier, bytes_read, nbytes in known:
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

    def _finds(self) -> Iterator[_Found]:
        """What may still be in a cache for launches of each kind, in the order of ``flow.examples``."""
        kernels, launches = self.plan.kernels, self.plan.launches
        moved = [kernel.bytes for kernel in kernels]
        began = list(accumulate((moved[launch.kernel] for launch in launches), initial=0))  # B touched before each
        for position in self.flow.examples:
            now, flow = began[position], self.flow.launches[position]
            reads = [(now - began[read.writer], self._bytes(read.storage, read.spec)) for read in flow.reads]
            before = [(began[p], kernels[launches[p].kernel]) for p in range(flow.first, position)]
            earlier = [(now - started, kernel.bytes_written) for started, kernel in before]
            kernel = kernels[launches[position].kernel]
            yield _Found(reads, sum(k.bytes_read for _, k in before), earlier, kernel.bytes_read, kernel.bytes)

    def _bytes(self, storage: int, spec: int) -> float:
        """B of a tensor in a storage, in the dtype of the run."""
        stored, traced = self.plan.storage_bytes[storage], self.graph.storages
        if storage >= len(traced):
            return stored
        nbytes: float = self.graph.specs[spec].nbytes  # type: ignore[assignment]
        return nbytes * stored / (traced[storage].nbytes or 1)


class _Found(NamedTuple):
    """What a launch may find in a cache: (B touched since, B) of each operand that the step wrote, and of what launches
    of the same operator wrote before it, which took ``taken`` B of the operands; its own reads and all its traffic [B].
    """

    reads: list[tuple[int, float]]
    taken: int
    earlier: list[tuple[int, int]]
    bytes_read: int
    bytes: int


class _Kind(NamedTuple):
    """What is the same for launches that are alike; as in :class:`~costmodel.timing.timeline.Slot`."""

    load: Load
    parts: KernelSeconds
    busy_s: float
    spread: float
    held_hz: float | None = None

    def drawn(self, power: Power) -> tuple[float, float]:
        """Energy of one launch while it is busy [J], and what is drawn before it starts [W]."""
        clock_hz = self.load.clock_hz if self.held_hz is None else self.held_hz
        busy_j = power.static_w * self.busy_s + power.busy_j(self.load, clock_hz, self.busy_s)
        return busy_j, power.waiting_w(clock_hz)


def _counted(kinds: Sequence[_Kind], of_launch: Sequence[int]) -> Counter[Load]:
    """How many launches there are of each load, those of a kind counted before any is compared."""
    counts: Counter[Load] = Counter()
    for kind, count in Counter(of_launch).items():
        counts[kinds[kind].load] += count
    return counts


def _waits(kinds: Sequence[_Kind], issued: Sequence[float]) -> Iterator[float]:
    """How long the device idles before each launch, which starts when it is issued and the one before it has ended."""
    ended = 0.0
    for kind, issued_s in zip(kinds, issued, strict=True):
        start = issued_s if issued_s > ended else ended
        yield start - ended
        ended = start + kind.busy_s


#: A Slot of a tuple of its fields: there are many, and this takes half as long.
_slot: Callable[[tuple[Any, ...]], Slot] = partial(tuple.__new__, Slot)  # type: ignore[assignment]


def _slots(kinds: Sequence[_Kind], issued: Sequence[float], power: Power) -> Iterator[Slot]:
    """Launches in program order."""
    drawn = {key: kind.drawn(power) for key, kind in {id(kind): kind for kind in kinds}.items()}  # each kind once
    ended = 0.0
    for kind, issued_s in zip(kinds, issued, strict=True):
        load, parts, busy_s, spread, held_hz = kind
        start = issued_s if issued_s > ended else ended
        waited = start - ended
        ended = start + busy_s
        busy_j, waiting_w = drawn[id(kind)]
        yield _slot((issued_s, start, ended, waited, busy_s, waited + parts.fixed_s, parts, load.share, spread,
                     busy_j + waited * waiting_w, held_hz))  # fmt: skip


def gpu_timeline(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float],
    constants: Constants = CONSTANTS,
) -> Timeline:
    """The timeline of a step on a GPU."""
    return Step(plan, graph, hardware, issued, constants).timeline()
