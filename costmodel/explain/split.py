"""The split of a prediction: from what FLOPs alone would say to the predicted latency, in named causes.

    flops_alone_s + sum of parts = latency

``flops_alone_s`` is all FLOPs of the step at one peak: that of the engine and dtype in which the run does most of its
multiply-accumulates (a TF32 tensor core for an fp32 ResNet on an A100). Every part belongs to one launch, the node that
it serves and a cause; each is a difference of two evaluations of the time model (see ``ladder.py``), so the sum holds
for every model, machine and mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from costmodel.analysis import Analysis
from costmodel.devices import ByFamily
from costmodel.execution import NodePhase
from costmodel.explain.causes import CAUSES, cause_of
from costmodel.explain.chains import fusible_share
from costmodel.explain.ladder import Rung, device_rungs, differences, parts_rungs, units_rung
from costmodel.hardware.profile import Peak
from costmodel.kernels import Kernel
from costmodel.timing import CONSTANTS
from costmodel.timing.cpu import cpu_step_times

__all__ = ["CauseShare", "Part", "Split", "headline_peak", "split"]


class Part(NamedTuple):
    """Seconds of one launch that one cause explains; negative for a gain. ``launch`` is None for work not run."""

    cause: str
    seconds: float
    node: int
    launch: int | None


@dataclass(frozen=True, slots=True)
class CauseShare:
    """A cause summed over the step: seconds, share of the latency, and its nodes, the largest first."""

    cause: str
    seconds: float
    share: float
    nodes: tuple[tuple[int, float], ...]

    @property
    def label(self) -> str:
        """What a page calls the cause."""
        return CAUSES[self.cause].label


class Split:
    """The parts of one analysis. ``parts`` in program order; all sums follow from them."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.peak = headline_peak(analysis)
        self._alone = _Alone(analysis, self.peak.flop_per_s)
        self.parts: tuple[Part, ...] = tuple(self._parts())

    @property
    def flops_alone_s(self) -> float:
        """All FLOPs of the step at :attr:`peak`."""
        return self.analysis.node_costs.total.flops / self.peak.flop_per_s  # type: ignore[operator, return-value]

    @property
    def latency_s(self) -> float:
        """What FLOPs alone say and all parts: the predicted latency."""
        return math.fsum((self.flops_alone_s, *(part.seconds for part in self.parts)))

    def seconds(self, *causes: str) -> float:
        """Seconds of one or more causes. Raises KeyError for an unknown one."""
        for cause in causes:
            CAUSES[cause]
        return math.fsum(part.seconds for part in self.parts if part.cause in causes)

    @cached_property
    def causes(self) -> tuple[CauseShare, ...]:
        """Every cause that occurs, in the order of :data:`CAUSES`."""
        by_cause: dict[str, dict[int, float]] = {}
        for part in self.parts:
            nodes = by_cause.setdefault(part.cause, {})
            nodes[part.node] = nodes.get(part.node, 0.0) + part.seconds
        return tuple(self._share(cause, by_cause[cause]) for cause in CAUSES if cause in by_cause)

    def _share(self, cause: str, nodes: dict[int, float]) -> CauseShare:
        seconds = math.fsum(nodes.values())
        ranked = sorted(nodes.items(), key=lambda item: (-abs(item[1]), item[0]))
        return CauseShare(cause, seconds, seconds / (self.latency_s or 1.0), tuple(ranked))

    @cached_property
    def by_node(self) -> dict[int, dict[str, float]]:
        """For each node its seconds by cause, what FLOPs alone say under ``flops``; they add to its row's latency."""
        found: dict[int, dict[str, float]] = {}
        for node, seconds in self._alone.by_node():
            causes = found.setdefault(node, {})
            causes["flops"] = causes.get("flops", 0.0) + seconds
        for part in self.parts:
            causes = found.setdefault(part.node, {})
            causes[part.cause] = causes.get(part.cause, 0.0) + part.seconds
        return found

    @cached_property
    def by_phase(self) -> dict[NodePhase, dict[str, float]]:
        """The same for each part of the step, in the order in which they begin; together they are the latency."""
        found: dict[NodePhase, dict[str, float]] = {}
        for node in sorted(self.by_node):
            causes = found.setdefault(self.analysis.bound.nodes[node].phase, {})
            for cause, seconds in self.by_node[node].items():
                causes[cause] = causes.get(cause, 0.0) + seconds
        return found

    def device_s(self, position: int) -> float:
        """Seconds that the device (or the CPU) is busy with a launch, waiting for the host left out."""
        return self.analysis.timeline[position].busy_s

    @property
    def busy_s(self) -> float:
        """Seconds that the device is busy."""
        return self.analysis.timeline.busy_s

    def _parts(self) -> Iterator[Part]:
        analysis = self.analysis
        fusible = {} if analysis.engine.fuses_pointwise else fusible_share(analysis.plan, analysis.bound)
        rungs_of = _ladders(analysis, self.peak.flop_per_s)
        for position, (launch, slot) in enumerate(zip(analysis.plan.launches, analysis.timeline, strict=True)):
            kernel = analysis.plan.kernels[launch.kernel]
            alone = self._alone.of_launch[position]
            rungs = rungs_of(position, kernel, alone)
            if slot.held_hz is not None:
                rungs.append(("power", slot.busy_s))
            rungs.append(("host", slot.latency_s))
            causes = differences(alone, rungs)
            _take_out_chain(causes, cause_of(kernel), fusible.get(position, 0.0))
            yield from (Part(cause, seconds, launch.nodes[0], position) for cause, seconds in causes.items())
        yield from (Part("not_run", -seconds, node, None) for node, seconds in self._alone.never_run)


def split(analysis: Analysis) -> Split:
    """The split of an analysis. Raises ProfileError where the machine lacks a peak that the run needs."""
    return Split(analysis)


def _take_out_chain(causes: dict[str, float], cause: str, share: float) -> None:
    """Give the ``share`` of a chain's traffic that fusion would save a name of its own."""
    if share and causes.get(cause, 0.0) > 0:
        causes["unfused"] = causes[cause] * share
        causes[cause] -= causes["unfused"]


def headline_peak(analysis: Analysis) -> Peak:
    """The peak that most FLOPs of contractions run at; of the fp32 vector lanes where there are none."""
    work: dict[tuple[str, str, str], int] = {}
    for launch in analysis.plan.launches:
        kernel = analysis.plan.kernels[launch.kernel]
        if kernel.matrix_flops:
            key = (kernel.engine, kernel.dtype, kernel.accumulate)
            work[key] = work.get(key, 0) + kernel.matrix_flops
    key = max(work, key=work.__getitem__) if work else ("vector", "fp32", "fp32")
    found = analysis.hardware.find_peak(*key)
    return found or analysis.hardware.peak("vector", "fp32")


class _Alone:
    """What FLOPs alone say, by launch: a node's contraction where it is multiplied, the rest where it runs last."""

    def __init__(self, analysis: Analysis, flop_per_s: float) -> None:
        self.analysis, self.flop_per_s = analysis, flop_per_s
        launches, kernels = analysis.plan.launches, analysis.plan.kernels
        self.of_launch = [kernels[launch.kernel].matrix_flops / flop_per_s for launch in launches]
        multiplied: dict[int, int] = {}
        last: dict[int, int] = {}
        for position, launch in enumerate(launches):
            multiplied[launch.nodes[0]] = multiplied.get(launch.nodes[0], 0) + kernels[launch.kernel].matrix_flops
            last.update(dict.fromkeys(launch.nodes, position))
        self.never_run: list[tuple[int, float]] = []
        for node in range(len(analysis.bound.nodes)):
            flops: int = analysis.node_costs.of_node(node).flops  # type: ignore[assignment]
            rest = (flops - multiplied.get(node, 0)) / flop_per_s
            if node in last:
                self.of_launch[last[node]] += rest
            elif rest:
                self.never_run.append((node, rest))

    def by_node(self) -> Iterator[tuple[int, float]]:
        """(node, seconds); the nodes of a fused kernel count for the first of them."""
        for launch, seconds in zip(self.analysis.plan.launches, self.of_launch, strict=True):
            yield launch.nodes[0], seconds
        yield from self.never_run


#: (position of a launch, its kernel, what FLOPs alone say) -> rungs up to its time on the device.
_Ladders = Callable[[int, Kernel, float], list[Rung]]


def _ladders(analysis: Analysis, flop_per_s: float) -> _Ladders:
    return _LADDERS.of(analysis.hardware)(analysis, flop_per_s)


def _gpu_ladders(analysis: Analysis, flop_per_s: float) -> _Ladders:
    hardware, known = analysis.hardware, dict[tuple[int, float, float], list[Rung]]()

    def rungs(position: int, kernel: Kernel, alone_s: float) -> list[Rung]:
        share = analysis.timeline[position].memory_share
        key = (analysis.plan.launches[position].kernel, alone_s, share)
        if key not in known:
            known[key] = device_rungs(kernel, hardware, alone_s, flop_per_s, share)
        return list(known[key])

    return rungs


def _cpu_ladders(analysis: Analysis, flop_per_s: float) -> _Ladders:
    """A CPU's step timed three times: as it is, without page faults, and with every byte from DRAM besides.

    A calibrated machine has no figure for the last: its times are measured with the caches as they were.
    """
    plan, graph, hardware = analysis.plan, analysis.bound, analysis.hardware
    usual, dry_hardware = CONSTANTS, hardware
    dry = replace(usual, cpu=replace(usual.cpu, page_fault_s=0.0))
    uncached = replace(dry, cpu=replace(dry.cpu, cache_speedup=1.0))
    if hardware.calibration is not None:
        dry_hardware = replace(hardware, calibration=replace(hardware.calibration, page_fault_s=0.0))
    ways = ((hardware, usual), (dry_hardware, dry), (dry_hardware, uncached))
    steps = [cpu_step_times(plan, graph, machine, analysis.issued, constants) for machine, constants in ways]

    def rungs(position: int, kernel: Kernel, alone_s: float) -> list[Rung]:
        return list(parts_rungs(kernel, hardware, alone_s, flop_per_s, *(step[position] for step in steps)))

    return rungs


def _roofline_ladders(analysis: Analysis, flop_per_s: float) -> _Ladders:
    """Machines without a model of their own: the larger of arithmetic, traffic and launch."""

    def rungs(position: int, kernel: Kernel, alone_s: float) -> list[Rung]:
        slot = analysis.timeline[position]
        units = units_rung(kernel, analysis.hardware, alone_s, flop_per_s)
        return [*units, ("achievable", slot.compute_s), (cause_of(kernel), slot.busy_s)]

    return rungs


#: How the time of a launch is taken apart, by family of machines.
_LADDERS = ByFamily[Callable[[Analysis, float], _Ladders]](
    cuda=_gpu_ladders, rocm=_gpu_ladders, cpu=_cpu_ladders, accelerator=_roofline_ladders
)
