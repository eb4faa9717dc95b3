"""Kernels as functions of the batch: lowered once with a batch that remembers what was asked of it.

Rules of kernels are plain code over integers. Run with sizes that are :class:`Affine` in the batch, they give kernels
whose FLOPs, bytes and shapes are ``constant + slope * batch``, and every comparison on the way narrows the batches for
which the rules would have gone the same way (:class:`Region`). For a batch in there the kernels are arithmetic. Sizes
that do anything else (a square, a remainder, a float, a key of a table) raise :class:`NotAffine`: such calls are
lowered at each batch anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, NoReturn

__all__ = ["Affine", "NotAffine", "Region", "by_batch"]


class NotAffine(Exception):
    """A size was used otherwise than in sums, multiples and comparisons."""


class Region:
    """The batches, from ``first`` to ``last``, for which every comparison so far comes out as at ``batch``."""

    def __init__(self, batch: int) -> None:
        self.batch, self.first, self.last = batch, 1, 2**31

    def __contains__(self, batch: int) -> bool:
        return self.first <= batch <= self.last

    def keep_sign(self, constant: int, slope: int) -> None:
        """Keep those for which ``constant + slope * batch`` is below 0, or is not, as it is here."""
        if slope == 0:
            return
        below = constant + slope * self.batch < 0
        if slope > 0:
            last_below = (-constant - 1) // slope
            self._narrow(1, last_below) if below else self._narrow(last_below + 1, self.last)
        else:
            first_below = constant // -slope + 1
            self._narrow(first_below, self.last) if below else self._narrow(1, first_below - 1)

    def keep_zero(self, constant: int, slope: int) -> None:
        """Keep those for which ``constant + slope * batch`` is 0, or is on the same side of it, as it is here."""
        self.keep_sign(constant, slope)
        self.keep_sign(-constant, -slope)

    def _narrow(self, first: int, last: int) -> None:
        self.first, self.last = max(self.first, first), min(self.last, last)


class Affine(int):
    """The integer ``constant + slope * batch`` at the batch of a region."""

    constant: int
    slope: int
    region: Region

    def __new__(cls, constant: int, slope: int, region: Region) -> Affine:
        """A number that remembers how it follows the batch."""
        self = super().__new__(cls, constant + slope * region.batch)
        self.constant, self.slope, self.region = constant, slope, region
        return self

    def _made(self, constant: int, slope: int) -> int:
        return Affine(constant, slope, self.region) if slope else constant

    def __add__(self, other: Any) -> Any:
        constant, slope = _parts(other)
        return self._made(self.constant + constant, self.slope + slope)

    def __sub__(self, other: Any) -> Any:
        constant, slope = _parts(other)
        return self._made(self.constant - constant, self.slope - slope)

    def __rsub__(self, other: Any) -> Any:
        constant, slope = _parts(other)
        return self._made(constant - self.constant, slope - self.slope)

    def __mul__(self, other: Any) -> Any:
        constant, slope = _parts(other)
        if slope:
            raise NotAffine
        return self._made(self.constant * constant, self.slope * constant)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return self._made(-self.constant, -self.slope)

    def __pos__(self) -> Any:
        return self

    def __floordiv__(self, other: Any) -> Any:
        """Exact where both parts divide, or where both numbers are multiples of the batch."""
        constant, slope = _parts(other)
        if slope and not constant and not self.constant:
            return self.slope // slope
        if slope or not constant or self.constant % constant or self.slope % constant:
            raise NotAffine
        return self._made(self.constant // constant, self.slope // constant)

    def __mod__(self, other: Any) -> Any:
        constant, slope = _parts(other)
        if slope or not constant or self.slope % constant:
            raise NotAffine
        return self.constant % constant

    def __lt__(self, other: Any) -> bool:
        constant, slope = _parts(other)
        self.region.keep_sign(self.constant - constant, self.slope - slope)
        return int.__lt__(self, other)

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __gt__(self, other: Any) -> bool:
        constant, slope = _parts(other)
        self.region.keep_sign(constant - self.constant, slope - self.slope)
        return int.__gt__(self, other)

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (int, float)):
            return False
        constant, slope = _parts(other)
        self.region.keep_zero(self.constant - constant, self.slope - slope)
        return int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __bool__(self) -> bool:
        return self != 0

    def _refuse(self, *others: Any) -> NoReturn:
        raise NotAffine

    __hash__ = __float__ = __int__ = __truediv__ = __rtruediv__ = __pow__ = __rpow__ = _refuse  # type: ignore[assignment]
    __rfloordiv__ = __rmod__ = __divmod__ = __rdivmod__ = __abs__ = __round__ = __ceil__ = __floor__ = _refuse  # type: ignore[assignment]
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __invert__ = __trunc__ = _refuse  # type: ignore[assignment]
    __str__ = __format__ = _refuse  # type: ignore[assignment]


def _parts(value: Any) -> tuple[int, int]:
    """(constant, slope) of a number."""
    if type(value) is Affine:
        return value.constant, value.slope
    if isinstance(value, int):
        return value, 0
    raise NotAffine


def by_batch(value: Any) -> Callable[[int], Any] | None:
    """``value``, a record of numbers, words and such records, as a function of the batch; None where it has no Affine.

    >>> by_batch(Affine(1, 3, Region(2)))(10), by_batch("gemm")
    (31, None)
    """
    if type(value) is Affine:
        constant, slope = value.constant, value.slope
        return lambda batch: constant + slope * batch
    if isinstance(value, tuple):
        return _record(lambda values: tuple(values), list(value), enumerate(value))
    if is_dataclass(value) and not isinstance(value, type):
        kind: Callable[..., Any] = type(value)
        names, by_name = _fields(type(value))
        parts = {name: getattr(value, name) for name in names}
        if by_name:
            return _record(lambda values: kind(**values), parts, parts.items())
        return _record(lambda values: kind(*values), list(parts.values()), enumerate(parts.values()))
    return None


@lru_cache(maxsize=64)  # kernels and their shapes
def _fields(kind: type) -> tuple[tuple[str, ...], bool]:
    """The names of a record's fields, and whether it is made by name."""
    found = fields(kind)
    return tuple(field.name for field in found), any(field.kw_only for field in found)


def _record(make: Callable[[Any], Any], plain: Any, parts: Iterable[tuple[Any, Any]]) -> Callable[[int], Any] | None:
    """A record made of ``plain``, a list or a dictionary in which the ``parts`` that follow the batch are replaced."""
    numbers, records = [], []
    for place, part in parts:
        if type(part) is Affine:  # the most, so that they are written out below
            numbers.append((place, part.constant, part.slope))
        elif (function := by_batch(part)) is not None:
            records.append((place, function))
    if not numbers and not records:
        return None

    def at(batch: int) -> Any:
        values = plain.copy()
        for place, constant, slope in numbers:
            values[place] = constant + slope * batch
        for place, function in records:
            values[place] = function(batch)
        return make(values)

    return at
