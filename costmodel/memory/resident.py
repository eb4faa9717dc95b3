"""What lies in memory throughout a step: parameters, buffers, inputs, constants and the optimizer's state, each with
the bytes of its own storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from costmodel.memory.liveness import caches
from costmodel.tensor import Role

if TYPE_CHECKING:
    from costmodel.graph import OpGraph
    from costmodel.memory.footprint import Footprint

__all__ = ["Resident", "resident"]


class Resident(NamedTuple):
    """A tensor that lies in memory throughout: its role, name ("" where it has none) and bytes."""

    role: Role
    name: str
    nbytes: float


#: Order in which they come into memory: the module is moved to its device, a tensor at a time, then inputs are.
_ORDER = (Role.PARAMETER, Role.BUFFER, Role.INPUT, Role.CONSTANT, Role.STATE)


def resident(memory: Footprint) -> list[Resident]:
    """Every tensor that lies there throughout, in the order in which it comes there. Keys and values that a step of
    writing finds are none: they go when their longer copies are made.

    What the step touches has the bytes of its storage: packed weights those of what is packed, their scales and zero
    points beside them. Of parameters and buffers that it never touches only a sum is known; such parameters share it
    by their elements.
    """
    graph, nbytes = memory.graph, memory.plan.storage_bytes
    touched = graph.memo.get("resident")
    if touched is None:
        touched = graph.memo["resident"] = _touched(graph)
    parameters, buffers, rest = (
        [Resident(role, name, nbytes[storage]) for role, name, storage in kind] for kind in touched
    )
    parameters += _untouched(memory, parameters)
    buffers.append(Resident(Role.BUFFER, "", memory.buffer_bytes - sum(one.nbytes for one in buffers)))
    return [one for one in (*parameters, *buffers, *rest) if one.nbytes > 0]


def _touched(graph: OpGraph) -> tuple[list[tuple[Role, str, int]], ...]:
    """(role, name, storage) of what the step does not make: parameters, buffers, and the rest."""
    found: dict[int, tuple[Role, str, int]] = {}
    there = caches(graph)
    for tensor in graph.tensors:
        storage = tensor.storage
        role = graph.storages[storage].role
        if tensor.producer is None and role in _ORDER and storage not in there:
            found.setdefault(storage, (role, tensor.name, storage))
    place = {name: index for index, name in enumerate(graph.parameters)}

    def comes(one: tuple[Role, str, int]) -> tuple[int, int]:
        """As the module registers its parameters; the parts of a packed one after it."""
        role, name, _ = one
        return _ORDER.index(role), place.get(name, place.get(name.rpartition(".")[0], len(place)))

    whole = sorted(found.values(), key=comes)
    own = (Role.PARAMETER, Role.BUFFER)
    return *([one for one in whole if one[0] is role] for role in own), [one for one in whole if one[0] not in own]


def _untouched(memory: Footprint, touched: list[Resident]) -> Iterator[Resident]:
    """Parameters that no operator of the step reads."""
    left = memory.parameter_bytes - sum(one.nbytes for one in touched)
    if left <= 0:
        return
    names = {one.name for one in touched}
    others = {name: count for name, count in memory.graph.parameters.items() if name not in names}
    elements = sum(others.values())
    for name, count in others.items():
        yield Resident(Role.PARAMETER, name, left * count / elements)
