"""When storages live: from the launch that first touches them to the one that does so last."""

from __future__ import annotations

from typing import NamedTuple

from costmodel.graph import OpGraph
from costmodel.kernels.plan import KernelPlan, Launch
from costmodel.memory.allocator import Allocator
from costmodel.tensor import Role

__all__ = ["Lifetime", "lifetimes", "occupancy"]


class Lifetime(NamedTuple):
    """Storages that a launch is the first to touch, and those that nobody touches after it."""

    allocated: tuple[int, ...]
    freed: tuple[int, ...]


def lifetimes(plan: KernelPlan, graph: OpGraph) -> list[Lifetime]:
    """For each launch the activations whose life begins and ends with it; what the graph puts out and what the
    plan holds never ends.

    Inputs, parameters and buffers lie in memory before the step and after it. Sizes do not matter, so that the
    answer is kept for the launches of a plan.
    """
    kept: dict[int, tuple[tuple[Launch, ...], list[Lifetime]]] = graph.memo.setdefault("lifetimes", {})
    known = kept.get(id(plan.launches))
    if known is None or known[0] is not plan.launches:
        known = kept[id(plan.launches)] = (plan.launches, _find(plan, graph))
    return known[1]


def _find(plan: KernelPlan, graph: OpGraph) -> list[Lifetime]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, launch in enumerate(plan.launches):
        for storage in (*(read.storage for read in launch.reads), *launch.writes, *launch.held):
            if storage >= len(graph.storages) or graph.storages[storage].role is Role.ACTIVATION:
                first.setdefault(storage, index)
                last[storage] = index
    kept = plan.held | {graph.tensors[t].storage for t in graph.outputs}
    allocated: list[list[int]] = [[] for _ in plan.launches]
    freed: list[list[int]] = [[] for _ in plan.launches]
    for storage, index in first.items():
        allocated[index].append(storage)
    for storage, index in last.items():
        if storage not in kept:
            freed[index].append(storage)
    return [Lifetime(tuple(a), tuple(f)) for a, f in zip(allocated, freed, strict=True)]


def occupancy(plan: KernelPlan, graph: OpGraph, allocator: Allocator) -> list[float]:
    """B that ``allocator`` has handed out for activations while each launch runs."""
    nbytes, found = plan.storage_bytes, []
    for allocated, freed in lifetimes(plan, graph):
        for storage in allocated:
            allocator.take(nbytes[storage])
        found.append(allocator.allocated_bytes)
        for storage in freed:
            allocator.give_back(nbytes[storage])
    return found
