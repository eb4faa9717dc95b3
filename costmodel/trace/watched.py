"""Sizes that note when a model looks at how large its batch is.

A run at a large prime batch stands for every batch, as long as the batch decides how many elements there are and
nothing else. Python code can let it decide more: ``if x.shape[0] == 1``, ``for i in range(min(len(x), 3))``. So a run
at a prime hands out sizes that may hold the batch as :class:`WatchedSize`, whole numbers that arithmetic carries on and
that note a question whose answer could be another one at another batch. Where one was noted, a run at an ordinary batch
decides; a model that only passes its sizes on pays nothing.

What torch's own functions ask is not seen: a mode is off inside the functions that it is told of. The loops that they
do not bound by a constant are seen by :mod:`costmodel.trace.guard`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Watch", "WatchedSize", "plain"]


class Watch:
    """Hands out the sizes of a run at batch ``prime``; ``noted``: whether the model looked at how large they are."""

    def __init__(self, prime: int) -> None:
        self.prime, self.noted = prime, False
        self.least = prime // 8  #: smaller sizes are none of the batch: weights and images have such

    def __deepcopy__(self, memo: Any) -> Watch:
        return self

    def size(self, value: int) -> int:
        """``value``, watched if it may hold the batch."""
        return self.watched(value) if value >= self.least else value

    def shape(self, sizes: torch.Size) -> torch.Size:
        """``sizes``, those watched that may hold the batch."""
        if all(size < self.least for size in sizes):
            return sizes
        return torch.Size([self.size(size) for size in sizes])

    def watched(self, value: int) -> WatchedSize:
        """``value``, which follows from the batch."""
        found = WatchedSize(value)
        found.watch = self
        return found

    def is_multiple(self, value: int) -> bool:
        """Whether a plain ``value`` is the batch times something."""
        return value > 0 and value % self.prime == 0


class WatchedSize(int):
    """A whole number that follows from the batch of a run at a prime.

    >>> watch = Watch(1_000_003)
    >>> batch = watch.watched(1_000_003)
    >>> (batch * 4 // batch, batch > 0, batch * 3 == 3 * batch, watch.noted)
    (4, True, True, False)
    >>> batch % 8 == 0, watch.noted
    (False, True)
    """

    watch: Watch

    def _note_unless_settled(self, other: Any) -> None:
        """A comparison has the same answer at every batch between multiples of the batch, between one of them and no
        elements, and between sizes that are too large to be alike by chance."""
        mine, watch = plain(self), self.watch
        if isinstance(other, int):
            theirs = plain(other)
            multiples = watch.is_multiple(mine) and (theirs <= 0 or watch.is_multiple(theirs))
            if not multiples and (mine != theirs or mine < watch.least):
                watch.noted = True
        elif isinstance(other, float):
            watch.noted = True

    def __bool__(self) -> bool:
        self._note_unless_settled(0)
        return plain(self) != 0

    def _small_or_watched(self, result: int, others: tuple[Any, ...]) -> int:
        """A small number is no size of the batch: of two multiples it is the same at every batch (``rows // batch``),
        else (``batch % 8``) it may be anything there, and a loop over it could not be seen."""
        if abs(result) >= self.watch.least:
            return self.watch.watched(result)
        operands = map(plain, (self, *others))
        self.watch.noted = self.watch.noted or any(operand % self.watch.prime for operand in operands)
        return result

    __hash__ = int.__hash__


def plain(value: int) -> int:
    """A size as an ordinary number; a look at it is not noted."""
    return int.__add__(value, 0) if isinstance(value, WatchedSize) else value


def _compared(name: str) -> Callable[[WatchedSize, Any], Any]:
    ask = getattr(int, name)

    def compare(self: WatchedSize, other: Any) -> Any:
        self._note_unless_settled(other)
        return ask(self, other)

    return compare


def _carried(name: str) -> Callable[..., Any]:
    """Arithmetic on whole numbers; a fraction made of the batch is not followed any further."""
    work = getattr(int, name)

    def calculate(self: WatchedSize, *others: Any) -> Any:
        result = work(self, *others)
        if result is NotImplemented:
            self.watch.noted = self.watch.noted or any(isinstance(other, float) for other in others)
            return result
        if isinstance(result, tuple):
            return tuple(self._small_or_watched(part, others) for part in result)
        return self._small_or_watched(result, others)

    return calculate


def _lost(name: str) -> Callable[..., Any]:
    """What gives a number that is not followed any further."""
    work = getattr(int, name)

    def calculate(self: WatchedSize, *others: Any) -> Any:
        self.watch.noted = True
        return work(self, *others)

    return calculate


for _name in "eq ne lt le gt ge".split():
    setattr(WatchedSize, f"__{_name}__", _compared(f"__{_name}__"))
for _name in "add radd sub rsub mul rmul floordiv rfloordiv mod rmod divmod rdivmod neg pos abs lshift rshift".split():
    setattr(WatchedSize, f"__{_name}__", _carried(f"__{_name}__"))
for _name in "and rand or ror xor rxor truediv rtruediv pow rpow float int round trunc floor ceil".split():
    setattr(WatchedSize, f"__{_name}__", _lost(f"__{_name}__"))
setattr(WatchedSize, "bit_length", _lost("bit_length"))  # noqa: B010 - as the rest
