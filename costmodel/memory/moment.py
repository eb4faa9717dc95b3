"""Moment: when a step holds most memory, and what it holds then, by kind and by module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from costmodel.execution import NodePhase
from costmodel.memory.liveness import caches, lifetimes, scratch
from costmodel.memory.resident import Resident, resident
from costmodel.tensor import Role

if TYPE_CHECKING:
    from costmodel.graph import OpGraph
    from costmodel.memory.footprint import Footprint

__all__ = ["KINDS", "Holding", "Moment", "moment_of"]

#: What lies in memory, in the order of pages and data.
KINDS = (
    "parameters", "buffers", "inputs", "constants", "KV cache", "optimizer state", "gradients", "autocast copies",
    "saved for backward", "activations", "scratch", "library workspace",
)  # fmt: skip

_OF_ROLE = {
    "parameter": "parameters", "buffer": "buffers", "input": "inputs", "constant": "constants",
    "state": "optimizer state",
}  # fmt: skip


class Holding(NamedTuple):
    """Memory [B] of one kind that one module (its path; "" for none) holds."""

    kind: str
    module: str
    nbytes: float


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment of the peak: the operator ``during`` which it is, its ``phase`` and module, and what lies there then.

    The holdings add up to the allocated bytes, but for the rounding of blocks.
    """

    during: str
    module: str
    phase: str
    holdings: tuple[Holding, ...]

    @property
    def nbytes(self) -> float:
        """B of all that lies there."""
        return sum(holding.nbytes for holding in self.holdings)

    @property
    def by_kind(self) -> dict[str, float]:
        """B by kind, without kinds that hold nothing."""
        found = dict.fromkeys(KINDS, 0.0)
        for holding in self.holdings:
            found[holding.kind] += holding.nbytes
        return {kind: nbytes for kind, nbytes in found.items() if nbytes}

    def by_module(self, depth: int = 2) -> dict[str, dict[str, float]]:
        """B by kind of the modules at ``depth`` levels below the model, what holds most first."""
        found: dict[str, dict[str, float]] = {}
        for kind, module, nbytes in self.holdings:
            within = found.setdefault(".".join(module.split(".")[:depth]), {})
            within[kind] = within.get(kind, 0.0) + nbytes
        return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))


def moment_of(memory: Footprint, launch: int | None) -> Moment:
    """What lies in memory during a launch of the footprint's plan; without one, what lies there throughout. The parts
    of a packed weight (``fc.weight.scales``) are those of the weight's module."""
    graph, plan = memory.graph, memory.plan
    holdings = [Holding(_OF_ROLE[one.role.value], _owner(one, graph), one.nbytes) for one in resident(memory)]
    if memory.library_bytes:
        holdings.append(Holding("library workspace", "", memory.library_bytes))
    if launch is None:
        return Moment("", "", "", _merged(holdings))
    node = graph.nodes[plan.launches[launch].nodes[0]]
    kind_of, owner = _kinds(memory, launch), _owners(memory)
    for storage in _alive(memory, launch):
        holdings.append(Holding(kind_of(storage), owner.get(storage, ""), plan.storage_bytes[storage]))
    if memory.has_blocks:
        beside = sum(scratch(plan, graph)[launch])
        if beside:
            holdings.append(Holding("scratch", node.module, beside))
    return Moment(node.name, node.module, node.phase.value, _merged(holdings))


def _owner(one: Resident, graph: OpGraph) -> str:
    """The module that a parameter belongs to, or a part of a packed one; what else lies there is nobody's."""
    if one.role is not Role.PARAMETER:
        return ""
    name = one.name if one.name in graph.parameters else one.name.rpartition(".")[0]
    return name.rpartition(".")[0]


def _merged(holdings: list[Holding]) -> tuple[Holding, ...]:
    found: dict[tuple[str, str], float] = {}
    for kind, module, nbytes in holdings:
        if nbytes:
            found[kind, module] = found.get((kind, module), 0.0) + nbytes
    return tuple(Holding(*key, nbytes) for key, nbytes in found.items())


def _alive(memory: Footprint, launch: int) -> list[int]:
    found: dict[int, None] = {}
    for index, (allocated, freed) in enumerate(lifetimes(memory.plan, memory.graph)):
        found.update(dict.fromkeys(allocated))
        if index == launch:
            break
        for storage in freed:
            found.pop(storage, None)
    return list(found)


def _owners(memory: Footprint) -> dict[int, str]:
    """The module of the operator that made a storage."""
    graph, plan = memory.graph, memory.plan
    found: dict[int, str] = dict.fromkeys(caches(graph), "")
    for tensor in graph.tensors:
        if tensor.producer is not None:
            found.setdefault(tensor.storage, graph.nodes[tensor.producer].module)
    for launch in plan.launches:
        for storage in launch.writes:
            found.setdefault(storage, graph.nodes[launch.nodes[0]].module)
    return found


def _kinds(memory: Footprint, launch: int) -> Callable[[int], str]:
    """What kind a storage is that is alive during ``launch``."""
    graph, plan = memory.graph, memory.plan
    cached = set(caches(graph))
    if memory.execution.phase.generates:
        cached |= {graph.tensors[t].storage for t in graph.outputs[1:]}
    gradients = {graph.tensors[t].storage for t in graph.gradients.values()}
    gradients |= set(plan.gradients.values())
    phases = [graph.nodes[one.nodes[0]].phase for one in plan.launches]
    made: dict[int, NodePhase] = {}
    read_last: dict[int, NodePhase] = {}
    for one, phase in zip(plan.launches, phases, strict=True):
        for storage in (*(read.storage for read in one.reads), *one.writes, *one.held):
            made.setdefault(storage, phase)
            read_last[storage] = phase

    def kind(storage: int) -> str:
        if storage in cached:
            return "KV cache"
        if storage in gradients:
            return "gradients"
        if storage in plan.held:
            return "autocast copies"
        if made[storage] is NodePhase.FORWARD and read_last[storage] is not NodePhase.FORWARD:
            return "saved for backward"
        return "activations"

    return kind
