"""Flow: which launch of a step wrote what another reads, and which launches are alike in that.

A network repeats itself, and so do its launches: the same kernel, reading what the same kernels before it wrote. What
they find in a cache is the same, whatever the sizes, so that it is worked out for one of each kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from costmodel.graph import OpGraph
from costmodel.kernels.plan import KernelPlan, Launch

__all__ = ["Flow", "LaunchFlow", "WrittenRead", "flow_of"]

#: Launches that are looked back over for likeness; one that reads from further back is a kind of its own.
_LOOKED_BACK = 32


class WrittenRead(NamedTuple):
    """A read of what the step wrote before: the launch that wrote it last, and the storage and spec that are read."""

    writer: int
    storage: int
    spec: int


class LaunchFlow(NamedTuple):
    """What of a launch decides its hits: the reads of what the step wrote before, and the first launch of its operator
    (by position; itself where it is the first)."""

    reads: tuple[WrittenRead, ...]
    first: int


class Flow(NamedTuple):
    """The data flow of a step by launch. ``alike[i]``: the kind of the i-th; ``examples``: one launch of each kind."""

    launches: tuple[LaunchFlow, ...]
    alike: tuple[int, ...]
    examples: tuple[int, ...]


def flow_of(plan: KernelPlan, graph: OpGraph) -> Flow:
    """The data flow of a plan; sizes do not matter, so that it is kept for the launches of a plan."""
    kept: dict[int, tuple[tuple[Launch, ...], Flow]] = graph.memo.setdefault("data flow", {})
    known = kept.get(id(plan.launches))
    if known is None or known[0] is not plan.launches:
        known = kept[id(plan.launches)] = (plan.launches, _find(plan, graph))
    return known[1]


def _find(plan: KernelPlan, graph: OpGraph) -> Flow:
    launches = _reads(plan.launches)
    kinds: dict[Any, int] = {}
    alike: list[int] = []
    examples: list[int] = []
    for position, flow in enumerate(launches):
        kind = kinds.setdefault(_likeness(plan, graph, position, flow), len(kinds))
        if kind == len(examples):
            examples.append(position)
        alike.append(kind)
    return Flow(tuple(launches), tuple(alike), tuple(examples))


def _reads(launches: Sequence[Launch]) -> list[LaunchFlow]:
    writer: dict[int, int] = {}  # storage -> the launch that wrote it last
    found: list[LaunchFlow] = []
    first = 0
    for position, launch in enumerate(launches):
        before = launches[position - 1] if position else launch
        if (before.nodes, before.writes) != (launch.nodes, launch.writes):
            first = position
        reads = [WrittenRead(writer[r.storage], r.storage, r.spec) for r in launch.reads if r.storage in writer]
        found.append(LaunchFlow(tuple(reads), first))
        writer.update(dict.fromkeys(launch.writes, position))
    return found


def _likeness(plan: KernelPlan, graph: OpGraph, position: int, flow: LaunchFlow) -> Any:
    """Equal for launches that find the same in a cache: the kernels from the first that matters on, and what is read
    from how far back, in which dtype."""
    start = min([flow.first, *(read.writer for read in flow.reads)])
    if position - start > _LOOKED_BACK:
        return position
    kernels = tuple([launch.kernel for launch in plan.launches[start : position + 1]])
    reads = tuple([(position - r.writer, r.spec, _stored_as(plan, graph, r.storage)) for r in flow.reads])
    return kernels, reads, position - flow.first


def _stored_as(plan: KernelPlan, graph: OpGraph, storage: int) -> Any:
    """How a storage of the run relates to the graph's: B of one for B of the other; one that only the run has is what
    its writer makes of the spec."""
    if storage >= len(graph.storages):
        return "of the run"
    return plan.storage_bytes[storage] / (graph.storages[storage].nbytes or 1)
