"""How far predictions are from measurements: quantiles, rank correlation, coverage. Plain Python, no array library."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Score", "fitted_scale", "quantile", "ranks", "relative_errors", "score", "spearman"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of n pairs: |pred/measured - 1| at the median and the 90th percentile, its signed median (bias), as fractions.

    ``spearman`` is None for fewer than two rows, or where all predictions or all measurements are equal.
    """

    n: int
    median_ape: float
    p90_ape: float
    bias: float
    spearman: float | None


def score(predicted: Sequence[float], measured: Sequence[float]) -> Score:
    """Score predictions against measurements, both of the same unit and above 0.

    >>> score([1.25, 2.5, 6.0], [1.0, 2.0, 4.0])
    Score(n=3, median_ape=0.25, p90_ape=0.45, bias=0.25, spearman=1.0)
    """
    errors = relative_errors(predicted, measured)
    sizes = [abs(error) for error in errors]
    return Score(
        n=len(errors),
        median_ape=quantile(sizes, 0.5),
        p90_ape=quantile(sizes, 0.9),
        bias=quantile(errors, 0.5),
        spearman=spearman(predicted, measured),
    )


def relative_errors(predicted: Sequence[float], measured: Sequence[float]) -> list[float]:
    """pred/measured - 1 for each pair."""
    return [p / m - 1 for p, m in zip(predicted, measured, strict=True)]


def quantile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics (Hyndman and Fan 1996, definition 7; numpy's default).

    >>> quantile([4, 1, 2, 3], 0.5), quantile([1, 2], 0.9)
    (2.5, 1.9)
    """
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1 on; equal values share the mean of theirs.

    >>> ranks([30, 10, 10])
    [3.0, 1.5, 1.5]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for index in order[start : end + 1]:
            found[index] = (start + end) / 2 + 1
        start = end + 1
    return found


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's correlation of the ranks; None where it is not defined.

    >>> spearman([1, 2, 3], [10, 20, 15])
    0.5
    """
    if len(x) < 2 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return statistics.correlation(ranks(x), ranks(y))


def fitted_scale(work: Sequence[float], measured: Sequence[float]) -> float:
    """The c for which ``c * work`` has the least median |log error|; rows without work are left out (0: none has any).

    With d = log(measured / work) the median of |d - log c| is least at the middle of the shortest interval that holds
    half of the d (least median of squares in one dimension, Rousseeuw 1984).

    >>> round(fitted_scale([1, 2, 4, 8], [3, 6, 12, 1000]), 9)
    3.0
    """
    logs = sorted(math.log(m / w) for w, m in zip(work, measured, strict=True) if w > 0)
    if not logs:
        return 0.0
    half = len(logs) // 2 + 1
    start = min(range(len(logs) - half + 1), key=lambda i: logs[i + half - 1] - logs[i])
    return math.exp((logs[start] + logs[start + half - 1]) / 2)
