"""The sizes at which a model is run to find the expressions behind its sizes."""

from __future__ import annotations

__all__ = ["spread"]

#: The last binary digits that points must tell apart: strides up to 64, and one digit more.
_DIGITS = 128

#: Sides that divide into windows of 7 and into strides of 8: padding and resampling are not needed there.
_ROUND = 56

#: Sides that divide into windows of 6, 7, 8, 12, 14, 16 and 24 at strides up to 32; the second beside the first.
_ROUNDEST = (1344, 672)

#: Multiples of a step around the size, in another order for each axis.
_MULTIPLES = ((0, 1, -1, 14, 9, 28), (0, 3, 2, -1, 11, 28))


def spread(size: int, way: str, step: int = 1, place: int = 0) -> tuple[int, ...]:
    """Six sizes, ``size`` first: near it, below it, two far above and a round one (``way`` "shrink": all below).

    Each binary digit of the size, and of what is missing to the next power of two, is 0 in one of them and 1 in
    another, so that ``height//4`` is no multiple of ``height//8`` in all of them, whichever way is rounded. There are
    round numbers among them beside odd ones, so that padding and resampling show as another path. Axes (``place``)
    differ, so that they cannot be mixed up. With a ``step``: multiples of it.

    >>> spread(224, "image"), spread(224, "image", place=1)
    ((224, 261, 168, 1055, 545, 1344), (224, 299, 168, 1439, 801, 1344))
    >>> spread(224, "image", step=32)
    (224, 256, 192, 672, 512, 1120)
    """
    if step > 1:
        base = max(size // step, 3)
        return tuple(step * (base + m) for m in _MULTIPLES[place % 2])
    if way == "shrink":
        below = (size - 13, size - 40, size - 61, size - 27, size - 35)
        return size, *(max(value, 1 + run) for run, value in enumerate(below, start=1))
    near, far, middle = (37, 893, 388) if way == "image" else (13, 331, 203)
    lower = _rounded(size * 4 // 5, _ROUND) if way == "image" else max(size * 4 // 7, 1)
    return (
        size,
        size + near * (1 + place) + place,
        lower,
        _ending(size + far + 381 * place, -1 - size),
        _ending(size + middle + 239 * place, 1 - size),
        next(n for n in _ROUNDEST if n != size) if way == "image" else _rounded(3 * size, _DIGITS),
    )


def _rounded(size: int, unit: int) -> int:
    """The largest multiple of ``unit`` up to ``size``, or of 8 where that is too coarse."""
    for step in (unit, 8):
        if size >= 2 * step:
            return size // step * step
    return max(size, 1)


def _ending(size: int, digits: int) -> int:
    """The largest number up to ``size`` with the last binary digits of ``digits``."""
    return size - (size - digits) % _DIGITS
