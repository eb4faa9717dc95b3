"""Watches a run at a large batch, or at a large size, and stops it where the number of operators grows with that.

A model that loops over its samples (rows, chunks, ghost batches) makes a million calls at the large prime that stands
for the batch. Such a loop has to cut the batch into pieces first: the guard stops the run before the first cut
(:class:`Suspicious`), and one run at the batch asked for says how many calls there may be (:class:`Limit`). The run at
the prime is then made again with that limit and either ends (what was cut is one piece of the batch) or is given up
(:class:`Exploded`). Before the cut both runs are alike, so that all three together cost at most three runs at the batch
asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.errors import TraceError

__all__ = ["Exploded", "Guard", "Limit", "Stopped", "Suspicious"]

#: Calls of one operator in one module that look like a loop, though nothing was cut: one over ``range(len(x))``, say.
_MANY_CALLS = 256


class Stopped(TraceError):
    """A guard ended a run; the text says why."""


class Suspicious(Stopped):
    """The model may be looping over the batch: run it at the batch asked for to know."""


class Exploded(Stopped):
    """The number of operators grows with the batch or with a size."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a run of the same structure can have: operators, and results of one operator."""

    nodes: int
    pieces: int


class Guard:
    """``batch``: the prime that stands for the batch (0: the batch is no prime). ``limit``: of a run known to end."""

    def __init__(self, batch: int = 0, limit: Limit | None = None) -> None:
        self.batch, self.limit = batch, limit
        self._calls: Counter[tuple[str, str]] = Counter()

    def before(
        self,
        op: str,
        names: Sequence[str],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        module: str,
        nodes: int,
    ) -> None:
        """Called before each recorded call. Raises :class:`Suspicious` or :class:`Exploded`."""
        if self.limit is not None and nodes >= self.limit.nodes:
            raise Exploded(f"the number of operators grows with it ({op} in {module or 'the model'})")
        if not self.batch:
            return
        pieces = _PIECES.get(op)
        if pieces is not None:
            self._cut(op, module, *pieces({**dict(zip(names, args, strict=False)), **kwargs}, self.batch))
        if self.limit is None:
            self._calls[op, module] += 1
            if self._calls[op, module] > _MANY_CALLS:
                raise Suspicious(f"{op} is called again and again in {module or 'the model'}")

    def _cut(self, op: str, module: str, count: int, whole: bool) -> None:
        """``count`` results come of the cut; ``whole``: each of them is a multiple of the batch."""
        if self.limit is not None and count > self.limit.pieces:
            raise Exploded(
                f"the number of operators grows with it ({op} in {module or 'the model'} cuts it into pieces)"
            )
        if self.limit is None and not whole:
            raise Suspicious(f"{op} in {module or 'the model'} cuts it into pieces")


def _cut_size(arguments: Mapping[str, Any], batch: int, default_dim: int = 0) -> int:
    """Length of the dimension that is cut where the batch lies in it, else 0."""
    shape = getattr(arguments.get("input"), "shape", ())
    dim = arguments.get("dim", default_dim)
    if not shape or not isinstance(dim, int):
        return 0
    size = int(shape[dim])
    return size if size and size % batch == 0 else 0


def _split(arguments: Mapping[str, Any], batch: int) -> tuple[int, bool]:
    size = _cut_size(arguments, batch)
    piece = arguments.get("split_size", 0)
    if not size or not isinstance(piece, int) or piece < 1:
        return 1, True
    return -(-size // piece), piece % batch == 0


def _split_with_sizes(arguments: Mapping[str, Any], batch: int) -> tuple[int, bool]:
    pieces = list(arguments.get("split_sizes") or ())
    return len(pieces), not _cut_size(arguments, batch) or all(piece % batch == 0 for piece in pieces)


def _unbind(arguments: Mapping[str, Any], batch: int) -> tuple[int, bool]:
    size = _cut_size(arguments, batch)
    return max(size, 1), not size


def _select(arguments: Mapping[str, Any], batch: int) -> tuple[int, bool]:
    return 1, not _cut_size(arguments, batch)


def _slice(arguments: Mapping[str, Any], batch: int) -> tuple[int, bool]:
    size = _cut_size(arguments, batch)
    start, end, step = arguments.get("start") or 0, arguments.get("end"), arguments.get("step") or 1
    if not size or not all(isinstance(v, int) for v in (start, step)):
        return 1, True
    return 1, len(range(size)[start : end if isinstance(end, int) else None : step]) % batch == 0


#: (number of results, whether each keeps the batch whole) of the operators that cut a dimension.
_PIECES = {
    "aten.split": _split,
    "aten.split_with_sizes": _split_with_sizes,
    "aten.unbind": _unbind,
    "aten.select": _select,
    "aten.slice": _slice,
}
