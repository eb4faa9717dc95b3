"""The best batch of one machine under limits: found by doubling, halving what is left, and trying whole tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["MOST", "largest", "smallest", "worth_trying"]

#: No larger batch is looked for.
MOST = 4096
#: Batches of these multiples fill tiles of matrix units and waves of a GPU better than their neighbours.
_MULTIPLES = (8, 16, 32, 64)

_T = TypeVar("_T")


def largest(holds: Callable[[int], bool], most: int = MOST) -> int:
    """The largest batch up to ``most`` for which ``holds`` is true, 0 where it is not for 1. It is taken to hold for
    all below one for which it does.

    >>> largest(lambda batch: batch <= 37), largest(lambda batch: False), largest(lambda batch: True, 100)
    (37, 0, 100)
    """
    if not holds(1):
        return 0
    low = 1
    while low < most:
        high = min(2 * low, most)
        if not holds(high):
            break
        low = high
    else:
        return most
    return _edge(holds, low, high)[0]


def smallest(holds: Callable[[int], bool], most: int = MOST) -> int | None:
    """The smallest batch up to ``most`` for which ``holds`` is true, None where it is for none of 1, 2, 4, ... It is
    taken to hold for all above one for which it does, up to the next power of two.

    >>> smallest(lambda batch: batch >= 37), smallest(lambda batch: False)
    (37, None)
    """
    low, high = 0, 1
    while not holds(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    return _edge(lambda batch: not holds(batch), low, high)[1]


def _edge(holds: Callable[[int], bool], low: int, high: int) -> tuple[int, int]:
    """Neighbours between ``low``, for which ``holds`` is true, and ``high``, for which it is not: the same of both."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def worth_trying(upper: int) -> Iterator[int]:
    """Batches up to ``upper`` among which the one of the highest throughput is: powers of two, those half-way between
    them, the largest itself, and the largest multiples of tiles.

    >>> sorted(worth_trying(37))
    [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 37]
    """
    found = {upper}
    power = 1
    while power <= upper:
        found |= {power, *([power + power // 2] if power > 1 and power + power // 2 <= upper else [])}
        power *= 2
    found |= {upper // multiple * multiple for multiple in _MULTIPLES if upper >= multiple}
    return iter(sorted(found))
