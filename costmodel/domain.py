"""Sizes that a graph leaves open: where they may lie, and where the graph is known to say what the model does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from costmodel.symbols import LARGEST_SIZE, Binding

__all__ = ["Domain", "Point", "Symbol", "any_batch", "point_of"]

#: Sizes of the open symbols, by name, as :func:`point_of` writes them.
Point = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A size that the graph leaves open: its value when nobody says otherwise, and where it may lie.

    ``maximum``: the largest that the model can take (the end of a table of positions); None where nothing is known.
    """

    name: str
    default: int
    multiple_of: int = 1
    minimum: int = 1
    maximum: int | None = None

    def allows(self, size: int) -> bool:
        """Whether ``size`` lies where the symbol may."""
        fits = size >= self.minimum and size % self.multiple_of == 0
        return fits and (self.maximum is None or size <= self.maximum)


def point_of(sizes: Binding, *, each_batch: bool = False) -> Point:
    """``sizes`` as one of ``Domain.points``. Every batch above one is 2: only a size of 1 is special to PyTorch (it
    broadcasts, and whatever stride it has is dense), so that what holds for one batch holds for all; unless the model
    looks at how large it is (``each_batch``).

    >>> point_of({"height": 224, "batch": 64})
    (('batch', 2), ('height', 224))
    """
    few = 0 if each_batch else 2
    return tuple((name, min(size, few or size) if name == "batch" else size) for name, size in sorted(sizes.items()))


def any_batch(*, one: bool) -> tuple[int, int]:
    """The batches that a run at a large prime stands for; ``one``: whether 1 is among them.

    >>> any_batch(one=False)[0]
    2
    """
    return 1 if one else 2, LARGEST_SIZE


@dataclass(frozen=True, slots=True)
class Domain:
    """Where runs of the model made the very calls that a graph says.

    ``between``: the smallest and the largest size of each symbol in the runs that the graph was made of. Those runs
    differ in every rounding and make the same calls, so a branch between them would have to come and go again; sizes
    between them are held to be alike. ``points``: other sizes at which a run agreed. ``each_batch``: the model looks at
    how large its batch is, so that a run at one says nothing of another.
    """

    between: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    points: frozenset[Point] = frozenset()
    each_batch: bool = False

    def holds(self, sizes: Binding) -> bool:
        """Whether the graph is known to hold at ``sizes``, one for each open symbol."""
        if point_of(sizes, each_batch=self.each_batch) in self.points:
            return True
        inside = (low <= sizes[name] <= high for name, (low, high) in self.between.items() if name in sizes)
        return self.between.keys() >= sizes.keys() and all(inside)

    def also(self, sizes: Binding) -> Domain:
        """The domain with one more point."""
        return replace(self, points=self.points | {point_of(sizes, each_batch=self.each_batch)})
