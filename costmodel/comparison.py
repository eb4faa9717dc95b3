"""Several models on several machines: FLOPs ratio against latency ratio, by network and by stage, and why they part.

A stage is all that runs on maps of one size (``56x56``), whatever a network calls its modules, so that stages of
different architectures stand side by side; ``head`` is what follows the last map. Where a graph has no maps, a stage
is a top-level module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from costmodel.analysis import Analysis
from costmodel.errors import InputError
from costmodel.explain import CAUSES, Split, split
from costmodel.graph import OpGraph

__all__ = ["HEAD", "Apart", "Comparison", "Contender", "Fact", "StageRow", "stages_of"]

HEAD = "head"
#: Batches at which the winner is looked for; where it differs between two, also at the power of two between them.
BATCHES = (1, 4, 16, 64, 256)


@dataclass(frozen=True, slots=True)
class Contender:
    """One model on one machine, with ratios to the first model on the same machine.

    ``batch`` samples a step; MACs and activations (elements out of convolutions and matrix products) are of one sample.
    ``rank_macs`` and ``rank_latency`` are places from 1, by MACs and by time a sample on this machine. ``fits``:
    whether the step fits the machine, None where nobody knows its memory.
    """

    model: str
    machine: str
    params: int
    flops: int
    flops_ratio: float
    latency_s: float
    latency_ratio: float
    batch: int
    macs_per_sample: int
    activations_per_sample: int
    latency_low_s: float
    latency_high_s: float
    rank_macs: int
    rank_latency: int
    peak_memory_bytes: int
    fits: bool | None

    @property
    def moved(self) -> int:
        """Places that it gains by time over its place by MACs; negative where it loses."""
        return self.rank_macs - self.rank_latency


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of one model on one machine; ratios to the first model's, None where that has no such stage."""

    model: str
    machine: str
    stage: str
    flops: int
    latency_s: float
    flops_ratio: float | None
    latency_ratio: float | None


@dataclass(frozen=True, slots=True)
class Apart:
    """How one cause parts a model from the first: seconds more than there, and the nodes with most of them.

    ``cause`` is ``flops`` for what FLOPs alone say. The nodes are ``of`` the model on which the cause has the greater
    effect, with their seconds there: negative for a gain.
    """

    cause: str
    seconds: float
    of: str
    nodes: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """What a page calls it."""
        return "FLOPs alone" if self.cause == "flops" else CAUSES[self.cause].label


@dataclass(frozen=True, slots=True)
class Fact:
    """One cause of what FLOPs do not say, over all models and machines.

    ``effects`` are (model, machine, seconds more than the first model there, share of the longer of the two times), the
    largest share first; ``weight`` is the sum of the shares' sizes over that of all causes [1].
    """

    cause: str
    effects: tuple[tuple[str, str, float, float], ...]
    weight: float

    @property
    def label(self) -> str:
        """What a page calls the cause."""
        return CAUSES[self.cause].label


class Comparison:
    """``analyses[m][h]``: the m-th model on the h-th machine. The first model is what others are held against.

    Raises InputError where there are fewer than two models, or two models of one name.
    """

    def __init__(self, analyses: Sequence[Sequence[Analysis]]) -> None:
        self.analyses = [list(row) for row in analyses]
        self.models = tuple(row[0].name for row in self.analyses)
        self.machines = tuple(analysis.hardware.name for analysis in self.analyses[0]) if self.analyses else ()
        if len(self.models) < 2:
            raise InputError(
                "a comparison needs two models or more\n  such as: costmodel compare resnet50 vgg16 --hw a100"
            )
        for names, what in ((self.models, "model"), (self.machines, "machine")):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InputError(f"the {what} {twice[0]} is asked for twice")

    @cached_property
    def splits(self) -> list[list[Split]]:
        """The split of every analysis."""
        return [[split(analysis) for analysis in row] for row in self.analyses]

    @cached_property
    def contenders(self) -> tuple[Contender, ...]:
        """Every model on every machine, machine by machine."""
        return tuple(self._contender(m, h) for h in range(len(self.machines)) for m in range(len(self.models)))

    def _contender(self, model: int, machine: int) -> Contender:
        totals, first = self.analyses[model][machine].totals, self.analyses[0][machine].totals
        batch = self.analyses[model][machine].execution.batch
        return Contender(
            model=self.models[model],
            machine=self.machines[machine],
            params=totals.params,
            flops=totals.flops,
            flops_ratio=_ratio(totals.flops, first.flops) or 0.0,
            latency_s=totals.latency_s,
            latency_ratio=_ratio(totals.latency_s, first.latency_s) or 0.0,
            batch=batch,
            macs_per_sample=totals.macs // batch,
            activations_per_sample=totals.activations // batch,
            latency_low_s=totals.latency_low_s,
            latency_high_s=totals.latency_high_s,
            rank_macs=self._ranks_by_macs[model],
            rank_latency=self._ranks_by_latency[machine][model],
            peak_memory_bytes=totals.peak_memory_bytes,
            fits=totals.fits,
        )

    @cached_property
    def _ranks_by_macs(self) -> list[int]:
        return _ranks([row[0].totals.macs / row[0].execution.batch for row in self.analyses])

    @cached_property
    def _ranks_by_latency(self) -> list[list[int]]:
        """By machine, then model."""
        columns = zip(*self.analyses, strict=True)
        return [_ranks([a.latency / a.execution.batch for a in column]) for column in columns]

    @cached_property
    def fastest(self) -> dict[str, str]:
        """For each machine the model with the least latency a sample."""
        return {
            name: min(self.analyses, key=lambda row: row[h].latency / row[h].execution.batch)[h].name
            for h, name in enumerate(self.machines)
        }

    def winners_by_batch(self, machine: str) -> tuple[tuple[int, str], ...]:
        """The fastest model at batch 1, and each batch (powers of two up to 256) from which another one is.

        Empty where a model's batch is a number that cannot change. Raises KeyError for a machine that is not compared.
        """
        h = _index(self.machines, machine)
        if any("batch" not in row[0].record.symbols for row in self.analyses):
            return ()
        winners = {batch: self._winner(h, batch) for batch in BATCHES}
        for low, high in pairwise(BATCHES):
            if winners[low] != winners[high]:
                winners[2 * low] = self._winner(h, 2 * low)
        ordered = sorted(winners.items())
        return tuple(pair for before, pair in zip([(0, ""), *ordered], ordered, strict=False) if before[1] != pair[1])

    def _winner(self, machine: int, batch: int) -> str:
        """The fastest model at a batch."""
        return min(self.analyses, key=lambda row: row[machine].at(batch=batch).latency)[machine].name

    # -- stages --------------------------------------------------------------------------------

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Names of all stages, the largest maps first, modules by first appearance, the head last."""
        found = dict.fromkeys(name for row in self.analyses for name in stages_of(row[0].bound))
        return tuple(sorted(found, key=_stage_order))

    @cached_property
    def stage_rows(self) -> tuple[StageRow, ...]:
        """Every stage of every model on every machine."""
        return tuple(
            row for h in range(len(self.machines)) for m in range(len(self.models)) for row in self._stage_rows(m, h)
        )

    def _stage_rows(self, model: int, machine: int) -> Iterator[StageRow]:
        sums, first = self._stage_sums(model, machine), self._stage_sums(0, machine)
        for stage in self.stages:
            if stage in sums:
                flops, seconds = sums[stage]
                there = first.get(stage, (0, 0.0))
                yield StageRow(
                    self.models[model], self.machines[machine], stage, flops, seconds, _ratio(flops, there[0]),
                    _ratio(seconds, there[1]),
                )  # fmt: skip

    def _stage_sums(self, model: int, machine: int) -> dict[str, tuple[int, float]]:
        """FLOPs and seconds by stage."""
        analysis = self.analyses[model][machine]
        sums: dict[str, tuple[int, float]] = {}
        for stage, row in zip(stages_of(analysis.bound), analysis.rows(), strict=True):
            flops, seconds = sums.get(stage, (0, 0.0))
            sums[stage] = (flops + row.flops, seconds + row.latency_s)
        return sums

    # -- why -----------------------------------------------------------------------------------

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """The causes that part times from FLOPs, over all models and machines, the weightiest first."""
        effects: dict[str, list[tuple[str, str, float, float]]] = {}
        for m, model in enumerate(self.models[1:], start=1):
            for h, machine in enumerate(self.machines):
                longer = max(self.analyses[0][h].latency, self.analyses[m][h].latency) or 1.0
                for apart in self.apart(model, machine):
                    if apart.cause != "flops":
                        effect = (model, machine, apart.seconds, apart.seconds / longer)
                        effects.setdefault(apart.cause, []).append(effect)
        sizes = {cause: math.fsum(abs(share) for *_, share in found) for cause, found in effects.items()}
        whole = math.fsum(sizes.values()) or 1.0
        return tuple(
            Fact(cause, tuple(sorted(effects[cause], key=lambda effect: -abs(effect[3]))), sizes[cause] / whole)
            for cause in sorted(sizes, key=lambda cause: (-sizes[cause], cause))
        )

    def apart(self, model: str, machine: str) -> tuple[Apart, ...]:
        """Why a model's latency differs from the first's, the largest difference first; they add up to it.

        Raises KeyError for a model or machine that is not compared.
        """
        m, h = _index(self.models, model), _index(self.machines, machine)
        there, here = self.splits[0][h], self.splits[m][h]
        found = [Apart("flops", here.flops_alone_s - there.flops_alone_s, model, ())]
        for cause in CAUSES:
            more, less = here.seconds(cause), there.seconds(cause)
            if more != less:
                greater = here if abs(more) > abs(less) else there
                found.append(Apart(cause, more - less, greater.analysis.name, _nodes(greater, cause)))
        return tuple(sorted(found, key=lambda apart: (-abs(apart.seconds), apart.cause)))


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise KeyError(name)
    return names.index(name)


def _nodes(found: Split, cause: str) -> tuple[tuple[str, float], ...]:
    """The nodes with most of a cause."""
    share = next((c for c in found.causes if c.cause == cause), None)
    nodes = found.analysis.bound.nodes
    return tuple((nodes[node].name, seconds) for node, seconds in share.nodes[:3]) if share else ()


def _ranks(values: Sequence[float]) -> list[int]:
    """The place of each, from 1 for the least; equal ones share a place.

    >>> _ranks([3.0, 1.0, 3.0, 2.0])
    [3, 1, 3, 2]
    """
    ordered = sorted(values)
    return [ordered.index(value) + 1 for value in values]


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference else None


# -- stages of a graph -------------------------------------------------------------------------------


def stages_of(graph: OpGraph) -> list[str]:
    """The stage of every node of a graph in numbers: size of the maps that it works on, ``head`` behind the last.

    Convolutions, pooling and normalization say their size, everything else takes it from what it reads.
    """
    own = [_map_size(graph, index) for index in range(len(graph.nodes))]
    if all(size is None or size == (1, 1) for size in own):
        return [node.module.partition(".")[0] or "(model)" for node in graph.nodes]
    returns = _leads_to_map(graph, own)
    found: list[str] = []
    for index, node in enumerate(graph.nodes):
        size, before = own[index], graph.predecessors(index)
        inherited = found[before[0]] if before else ""
        flat = size == (1, 1) or all(len(graph.specs[graph.tensors[t].spec].shape) <= 2 for t in node.outputs)
        if not returns[index] and (inherited == HEAD or flat):
            found.append(HEAD)
        elif size is not None and size != (1, 1):
            found.append(f"{size[0]}x{size[1]}")
        else:
            found.append(inherited or _first_size(own))
    return found


def _map_size(graph: OpGraph, index: int) -> tuple[int, int] | None:
    """Height and width of the maps that a node puts out, where the kind of operator tells: rows are (N, C, H, W)."""
    node = graph.nodes[index]
    shape = graph.specs[graph.tensors[node.outputs[0]].spec].shape if node.outputs else ()
    if len(shape) != 4:
        return None
    if any(word in node.op for word in ("conv", "pool", "batch_norm", "group_norm", "upsample")):
        return shape[2], shape[3]  # type: ignore[return-value]
    if "layer_norm" in node.op:  # over the last dimension: (N, H, W, C)
        return shape[1], shape[2]  # type: ignore[return-value]
    return None


def _leads_to_map(graph: OpGraph, own: Sequence[tuple[int, int] | None]) -> list[bool]:
    """For each node whether a map of more than one element is made from what it puts out, or it makes one itself."""
    leads = [size is not None and math.prod(size) > 1 for size in own]
    for index in range(len(graph.nodes) - 1, -1, -1):
        if leads[index]:
            for before in graph.predecessors(index):
                leads[before] = True
    return leads


def _first_size(own: Sequence[tuple[int, int] | None]) -> str:
    size = next(size for size in own if size is not None and size != (1, 1))
    return f"{size[0]}x{size[1]}"


def _stage_order(stage: str) -> tuple[int, int]:
    """Largest maps first, then modules in their order, the head last."""
    sides = stage.split("x")
    if len(sides) == 2 and all(side.isdigit() for side in sides):
        return 0, -int(sides[0]) * int(sides[1])
    return (2, 0) if stage == HEAD else (1, 0)
