"""When storages live: from the launch that first touches them to the one that does so last."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from costmodel.execution import NodePhase
from costmodel.graph import OpGraph
from costmodel.kernels.plan import KernelPlan, Launch
from costmodel.memory.allocator import Allocator
from costmodel.tensor import CACHED, Role

__all__ = ["Lifetime", "caches", "lifetimes", "occupancy", "scratch"]


class Lifetime(NamedTuple):
    """Storages that a launch is the first to touch, and those that nobody touches after it."""

    allocated: tuple[int, ...]
    freed: tuple[int, ...]


def lifetimes(plan: KernelPlan, graph: OpGraph) -> list[Lifetime]:
    """For each launch the storages of the step whose life begins and ends with it.

    A storage lives from the first launch that touches it to the last, and, run by Python, as long as a variable there
    holds it. What the graph puts out and gradients of parameters live to the end of the step; so do the copies of
    weights that autocast keeps, in training no longer than somebody reads them once the forward pass, and autocast with
    it, is over. Inputs, parameters, buffers and the optimizer's state lie in memory before the step and after it; keys
    and values that a step of writing finds are there when it begins, and gone once their longer copies are made. Sizes
    do not matter, so that the answer is kept for the launches of a plan.
    """
    kept: dict[int, tuple[tuple[Launch, ...], list[Lifetime]]] = graph.memo.setdefault("lifetimes", {})
    known = kept.get(id(plan.launches))
    if known is None or known[0] is not plan.launches:
        known = kept[id(plan.launches)] = (plan.launches, _find(plan, graph))
    return known[1]


def caches(graph: OpGraph) -> frozenset[int]:
    """Storages of the keys and values that a step of writing finds."""
    tensors = (graph.tensors[index] for index in graph.inputs)
    return frozenset(tensor.storage for tensor in tensors if tensor.name.startswith(CACHED))


def _find(plan: KernelPlan, graph: OpGraph) -> list[Lifetime]:
    there = caches(graph)
    first: dict[int, int] = dict.fromkeys(there, 0) if plan.launches else {}
    last: dict[int, int] = {}
    for index, launch in enumerate(plan.launches):
        for storage in (*(read.storage for read in launch.reads), *launch.writes, *launch.held):
            of_step = storage >= len(graph.storages) or graph.storages[storage].role is Role.ACTIVATION
            if of_step or storage in there:
                first.setdefault(storage, index)
                last[storage] = index
    put_out = (graph.tensors[t].storage for t in (*graph.outputs, *graph.gradients.values()))
    kept = {plan.gradients.get(storage, storage) for storage in put_out}
    phases = [graph.nodes[launch.nodes[0]].phase for launch in plan.launches]
    if NodePhase.BACKWARD in phases:
        forward_ends = phases.index(NodePhase.BACKWARD) - 1
        last |= {storage: max(last[storage], forward_ends) for storage in plan.held if storage in last}
    else:
        kept |= plan.held
    if plan.by_python:
        last |= _held_longer(plan, graph, last)
    allocated: list[list[int]] = [[] for _ in plan.launches]
    freed: list[list[int]] = [[] for _ in plan.launches]
    for storage, index in first.items():
        allocated[index].append(storage)
    for storage, index in last.items():
        if storage not in kept:
            freed[index].append(storage)
    return [Lifetime(tuple(a), tuple(f)) for a, f in zip(allocated, freed, strict=True)]


def _held_longer(plan: KernelPlan, graph: OpGraph, last: Mapping[int, int]) -> dict[int, int]:
    """Storages that a variable of Python's keeps beyond the last launch that touches them -> the last launch that it
    keeps them for: a block's input, say, while the block runs."""
    if not graph.let_go:
        return {}
    launched = [launch.nodes[0] for launch in plan.launches]
    found = {storage: bisect_right(launched, node) - 1 for storage, node in graph.let_go.items() if storage in last}
    return {storage: index for storage, index in found.items() if index > last[storage]}


def occupancy(plan: KernelPlan, graph: OpGraph, allocator: Allocator) -> list[float]:
    """B that ``allocator`` has handed out for storages of the step while each launch runs."""
    nbytes, found = plan.storage_bytes, []
    for allocated, freed in lifetimes(plan, graph):
        for storage in allocated:
            allocator.take(nbytes[storage])
        found.append(allocator.allocated_bytes)
        for storage in freed:
            allocator.give_back(nbytes[storage])
    return found


def scratch(plan: KernelPlan, graph: OpGraph) -> list[tuple[int, ...]]:
    """For each launch the sizes [B] of what kernels take besides, each until the last kernel of its operator has run.

    What the gradients of a convolution are converted to is one block: both maps for each of the two, as what
    nvidia-smi shows of fp32 training steps grows with the batch (timm's networks on an A100).
    """
    found: list[tuple[int, ...]] = []
    for nodes, launches in groupby(plan.launches, key=lambda launch: launch.nodes):
        kernels = [plan.kernels[launch.kernel] for launch in launches]
        together = 0
        if graph.nodes[nodes[0]].phase is NodePhase.BACKWARD:
            together = sum(kernel.scratch_bytes for kernel in kernels if kernel.algorithm in _CONVERSIONS)
        taken: tuple[int, ...] = ()
        for kernel in kernels:
            nbytes = kernel.scratch_bytes
            if together and kernel.algorithm in _CONVERSIONS:
                taken = taken if together in taken else (*taken, together)
            elif nbytes:
                taken = (*taken, nbytes)
            found.append(taken)
    return found


#: Kernels with which a library's call begins and ends where it works in another layout than its operands.
_CONVERSIONS = frozenset({"nchw_to_nhwc", "nhwc_to_nchw"})
