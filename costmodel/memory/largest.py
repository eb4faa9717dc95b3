"""The largest batch that fits: a search over predicted needs, which grow with the batch nearly on a line."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["largest_batch"]

#: No step is larger than this [samples].
_MOST = 2**24


def largest_batch(spare: Callable[[int], float], start: int) -> int:
    """The largest batch at which ``spare(batch)`` [B], what is left over there, is not below 0; 0 where even one
    sample does not fit. It is taken to fall with the batch.

    >>> largest_batch(lambda batch: 1000 - 100 - 7 * batch, start=1)
    128
    >>> largest_batch(lambda batch: -batch, start=64)
    0
    """
    known = {start: spare(start)}

    def fits(batch: int) -> bool:
        if batch not in known:
            known[batch] = spare(batch)
        return known[batch] >= 0

    low, high = (start, start) if fits(start) else (0, start)
    while low == high:
        if high >= _MOST:
            return _MOST
        high = min(_MOST, 2 * high)
        low = high if fits(high) else low
    turn = 0  # every third step halves what is left, whatever the line says
    while high - low > 1:
        middle = (low + high) // 2 if turn % 3 == 2 else _crossing(known, low, high)
        turn += 1
        middle = min(max(middle, low + 1), high - 1)
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _crossing(known: dict[int, float], low: int, high: int) -> int:
    """Where the line through both ends crosses 0."""
    if low not in known:
        return (low + high) // 2
    above, below = known[low], known[high]
    if above == below or below == float("-inf"):
        return (low + high) // 2
    return low + int(above * (high - low) / (above - below))
