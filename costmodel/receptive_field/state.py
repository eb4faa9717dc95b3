"""State: the fields of a tensor, one for each axis of the model's input, and the tensor's axes that carry them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from costmodel.receptive_field.field import Field

__all__ = ["NotFollowed", "Site", "State", "joined", "reshaped"]


class NotFollowed(Exception):
    """An operator rearranges positions in a way that no single window describes."""


@dataclass(frozen=True, slots=True)
class Site:
    """One axis of the input as a tensor carries it: ``count`` positions along the tensor's axis ``axis``.

    ``axis`` is None where the tensor has one position only. Several sites on one axis are rows and columns that
    were flattened into tokens, the last running fastest.
    """

    field: Field
    axis: int | None
    count: int

    def whole(self) -> Site:
        """The same positions, each depending on all of them."""
        return replace(self, field=self.field.over(self.count))


#: One site for each spatial axis of the input.
State = tuple[Site, ...]


def joined(states: Iterable[State], rank: int, ranks: Sequence[int]) -> State:
    """What an element-wise function of several tensors sees, broadcast from the right as torch does.

    A tensor of one position (a pooled gate) is seen by all positions: the larger field counts.
    """
    aligned = [
        tuple(replace(s, axis=None if s.axis is None else s.axis + rank - own) for s in state)
        for state, own in zip(states, ranks, strict=True)
    ]
    result = aligned[0]
    for state in aligned[1:]:
        result = tuple(_joined_site(a, b) for a, b in zip(result, state, strict=True))
    return result


def _joined_site(a: Site, b: Site) -> Site:
    if a.count == b.count:
        if a.axis != b.axis and a.count > 1:
            raise NotFollowed("two axes of one tensor carry the same axis of the input")
        return replace(a, field=a.field.joined(b.field))
    finer, coarser = (a, b) if a.count > b.count else (b, a)
    return replace(finer, field=replace(finer.field, size=max(finer.field.size, coarser.field.size)))


def mapped(state: State, move: Callable[[int], int | None]) -> State:
    """The sites with their axes renumbered."""
    return tuple(s if s.axis is None else replace(s, axis=move(s.axis)) for s in state)


@dataclass(slots=True)
class _Atom:
    """A factor of a shape that a view keeps in one piece, with the sites that lie on it."""

    size: int
    sites: tuple[int, ...] = ()


def reshaped(state: State, old: Sequence[int], new: Sequence[int]) -> State:
    """The sites after a view from shape ``old`` to shape ``new``.

    Axes may be merged and split again; an axis of positions that is cut (window attention) is not followed.
    """
    axes: dict[int, int] = {}
    atoms = _atoms(state, old)
    for axis, size in enumerate(new):
        for index in _taken(atoms, size):
            axes[index] = axis
    return tuple(replace(s, axis=axes.get(i)) for i, s in enumerate(state))


def _atoms(state: State, shape: Sequence[int]) -> list[_Atom]:
    """The factors of ``shape`` larger than 1, from the left; flattened rows and columns apart."""
    atoms = []
    for axis, size in enumerate(shape):
        here = tuple(i for i, s in enumerate(state) if s.axis == axis and s.count > 1)
        if len(here) > 1 and math.prod(state[i].count for i in here) == size:
            atoms += [_Atom(state[i].count, (i,)) for i in here]
        elif size > 1:
            atoms.append(_Atom(size, here))
    return atoms


def _taken(atoms: list[_Atom], size: int) -> list[int]:
    """Take factors off the left of ``atoms`` that make up ``size``; the sites on them."""
    found: list[int] = []
    while size > 1:
        atom = atoms[0]
        if atom.size <= size and size % atom.size == 0:
            found += atom.sites
            size //= atom.size
            atoms.pop(0)
        elif atom.sites or atom.size % size:
            raise NotFollowed("a view cuts an axis of positions")
        else:
            atoms[0] = _Atom(atom.size // size)
            size = 1
    return found
