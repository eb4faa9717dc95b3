"""Words for numbers, so that a sentence follows its number when the model changes."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.units import format_count, format_percent, format_quantity, format_seconds

__all__ = ["count", "listed", "macs", "more", "percent", "seconds", "slower", "times"]


def seconds(value: float) -> str:
    """``3.76 ms``."""
    return format_seconds(value)


def percent(share: float) -> str:
    """``12 %`` of a fraction."""
    return format_percent(share)


def count(value: float) -> str:
    """``25.6 M``."""
    return format_count(value)


def macs(value: float) -> str:
    """``4.09 GMAC``."""
    return format_quantity(value, "MAC")


def times(ratio: float) -> str:
    """A ratio: ``13.6 times``, ``0.31 times``.

    >>> times(13.6), times(0.31), times(2)
    ('13.6 times', '0.31 times', '2.0 times')
    """
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.1f} times" if ratio >= 1 else f"{ratio:.2f} times"


def more(ratio: float) -> str:
    """How much more or less, from a ratio.

    >>> more(1.122), more(0.97), more(1.0001)
    ('12.2 % more', '3.0 % less', 'as much')
    """
    off = 100 * (ratio - 1)
    return "as much" if abs(off) < 0.05 else f"{abs(off):.1f} % {'more' if off > 0 else 'less'}"


def slower(ratio: float) -> str:
    """How much slower or faster, from a ratio of times: slower by the time added, faster by the speed gained.

    >>> slower(1.05), slower(0.5), slower(3.2), slower(0.8)    # 1 / 0.8 = 1.25 times the speed
    ('5.0 % slower', '2.0 times faster', '3.2 times slower', '25.0 % faster')
    """
    if 0.67 < ratio < 1.5:
        off = 100 * (ratio - 1) if ratio > 1 else 100 * (1 / ratio - 1)
        return "as fast" if off < 0.05 else f"{off:.1f} % {'slower' if ratio > 1 else 'faster'}"
    return f"{ratio:.1f} times slower" if ratio > 1 else f"{1 / ratio:.1f} times faster"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
