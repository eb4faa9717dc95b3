"""The sizes at which a model is run to find the expressions behind its sizes."""

from __future__ import annotations

__all__ = ["spread"]

#: The last binary digits that points must tell apart: strides up to 64, and one digit more.
_DIGITS = 128

#: Sides that divide into windows of 7 and into strides of 8: padding and resampling are not needed there.
_ROUND = 56

#: Multiples of a step around the size, in another order for each axis.
_MULTIPLES = ((0, 1, -1, 14, 9), (0, 3, 2, -1, 11))


def spread(size: int, way: str, step: int = 1, place: int = 0) -> tuple[int, int, int, int, int]:
    """Five sizes, ``size`` first: near it, below it, and two far above (``way`` "shrink": all below).

    Each binary digit of the size, and of what is missing to the next power of two, is 0 in one of them and 1 in
    another, so that ``height//4`` is no multiple of ``height//8`` in all five, whichever way is rounded. For images one
    of them is a round number beside odd ones, so that padding and resampling show as another path. Axes (``place``)
    differ, so that they cannot be mixed up. With a ``step``: multiples of it.

    >>> spread(224, "image"), spread(224, "image", place=1)
    ((224, 261, 168, 1055, 545), (224, 299, 168, 1439, 801))
    >>> spread(224, "image", step=32)
    (224, 256, 192, 672, 512)
    """
    if step > 1:
        base = max(size // step, 3)
        first, second, third, fourth, fifth = (step * (base + m) for m in _MULTIPLES[place % 2])
        return first, second, third, fourth, fifth
    if way == "shrink":
        below = (size - 13, size - 40, size - 61, size - 27)
        first, second, third, fourth = (max(value, 1 + run) for run, value in enumerate(below, start=1))
        return size, first, second, third, fourth
    near, far, middle = (37, 893, 388) if way == "image" else (13, 331, 203)
    lower = _rounded(size * 4 // 5) if way == "image" else max(size * 4 // 7, 1)
    return (
        size,
        size + near * (1 + place) + place,
        lower,
        _ending(size + far + 381 * place, -1 - size),
        _ending(size + middle + 239 * place, 1 - size),
    )


def _rounded(size: int) -> int:
    for unit in (_ROUND, 8):
        if size >= 2 * unit:
            return size // unit * unit
    return max(size, 1)


def _ending(size: int, digits: int) -> int:
    """The largest number up to ``size`` with the last binary digits of ``digits``."""
    return size - (size - digits) % _DIGITS
