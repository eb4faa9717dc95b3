"""Columns whose cells share one unit, so that the eye can compare and add them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from costmodel.report.document import Column

__all__ = [
    "NONE",
    "intensity_column",
    "number_column",
    "quantity_column",
    "share_column",
    "signed_share_column",
    "text_column",
]

#: What a page shows where there is nothing to show.
NONE = "–"

#: SI prefixes by power of 1000.
_PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}


def text_column(
    key: str, heading: str, *, render: Callable[[Any], str] = str, empty: str = NONE, **options: Any
) -> Column:
    """A left-aligned column of text; an empty or missing value shows as ``empty``, a dash."""
    return Column(
        key=key,
        heading=heading,
        align="left",
        render=lambda value: render(value) if value not in (None, "") else empty,
        **options,
    )


def quantity_column(
    key: str, heading: str, unit: str, values: Iterable[float | None], *, decimals: int = 1, least: float = 10.0,
    **options: Any,
) -> Column:  # fmt: skip
    """A column of ``values`` in ``unit`` whose one SI prefix suits the largest of them.

    The largest shows as a number from ``least`` to 1000 times that, and all cells have the same decimals
    (whole numbers without a prefix have none), so that parts visibly add up.

    >>> column = quantity_column("latency_s", "time", "s", [0.0031, 0.0000042])
    >>> column.unit, column.render(0.0031), column.render(0.0000042), column.render(0)
    ('µs', '3,100.0', '4.2', '0')
    """
    power = _power_for(max((abs(value) for value in values if value), default=0.0), least)
    if unit in ("", "B"):
        power = max(power, 0)
    return Column(
        key=key,
        heading=heading,
        unit=_PREFIXES[power] + unit,
        render=lambda value: _fixed(value, 1000.0**power, decimals=decimals if power != 0 or unit in ("s", "J") else 0),
        **options,
    )


def intensity_column(key: str, heading: str, **options: Any) -> Column:
    """A column of arithmetic intensities, headed by their unit; two decimals below 10, where memory bounds.

    >>> column = intensity_column("intensity_flop_per_byte", "FLOP/B")
    >>> column.render(0.125), column.render(142.36), column.render(None)
    ('0.12', '142.4', '–')
    """
    return Column(
        key=key,
        heading=heading,
        render=lambda value: _fixed(value, 1.0, decimals=1 if value is not None and value >= 10 else 2),
        **options,
    )


def number_column(key: str, heading: str, unit: str = "", *, decimals: int = 1, **options: Any) -> Column:
    """A column of plain numbers, all with the same decimals."""
    return Column(
        key=key, heading=heading, unit=unit, render=lambda value: _fixed(value, 1.0, decimals=decimals), **options
    )


def share_column(key: str, heading: str, **options: Any) -> Column:
    """A column of shares, kept as fractions and shown in percent.

    >>> share_column("share", "share").render(0.3771)
    '37.7'
    """
    return Column(key=key, heading=heading, unit="%", render=lambda value: _fixed(value, 0.01, decimals=1), **options)


def signed_share_column(key: str, heading: str, **options: Any) -> Column:
    """A column of shares above or below something, such as errors, shown in percent with their sign.

    >>> signed_share_column("error", "error").render(0.3771)
    '+37.7'
    """
    return Column(key=key, heading=heading, unit="%", render=lambda share: f"{100 * share:+.1f}", **options)


def _power_for(largest: float, least: float) -> int:
    """The power of 1000 at which ``largest`` lies in [least, 1000 * least)."""
    if not largest or not math.isfinite(largest):
        return 0
    power = math.floor((math.log10(largest) - math.log10(least)) / 3 + 1e-12)
    return min(max(power, min(_PREFIXES)), max(_PREFIXES))


def _fixed(value: float | None, scale: float, *, decimals: int) -> str:
    """A number at ``scale`` with fixed decimals; what rounds to zero but is not shows as ``<0.1``."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    text = f"{value / scale:,.{decimals}f}"
    smallest = f"{10.0**-decimals:.{decimals}f}"
    return f"<{smallest}" if not text.strip("-0.,") and value > 0 else text
