"""Quantities with units, read and written.

Prefixes k, M, G, T, P are decimal, as in every datasheet (1 GB/s is 1e9 B/s); Ki, Mi, Gi, Ti are
binary and belong to bytes alone. A rate is FLOP/s, never "FLOPS"; tera-operations of an integer
engine ("TOP/s") are read as FLOP/s, since one formula serves both.

Binary prefixes are read, and never written: what costmodel prints is decimal, traffic, parameters and memory alike, so
that two figures of a page can be held against each other and against a bandwidth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from costmodel.errors import InputError, librarian, near_matches

__all__ = [
    "UNITS",
    "format_bytes",
    "format_count",
    "format_percent",
    "format_quantity",
    "format_seconds",
    "parse_quantity",
]

_LARGE: Mapping[str, float] = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_SMALL: Mapping[str, float] = {"m": 1e-3, "µ": 1e-6, "n": 1e-9}
_BINARY: Mapping[str, float] = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}

#: Base unit -> the spellings that are read, each with its factor to the base unit.
UNITS: Mapping[str, Mapping[str, float]] = {
    "FLOP/s": {f"{p}{word}/s": f for word in ("FLOP", "OP") for p, f in _LARGE.items()},
    "FLOP": {f"{p}FLOP": f for p, f in _LARGE.items()},
    "B/s": {f"{p}B/s": f for p, f in {**_LARGE, **_BINARY}.items()},
    "B": {f"{p}B": f for p, f in {**_LARGE, **_BINARY}.items()},
    "bit/s": {f"{p}bit/s": f for p, f in _LARGE.items()},
    "Hz": {f"{p}Hz": f for p, f in _LARGE.items()},
    "s": {f"{p}s": f for p, f in {"": 1.0, "u": 1e-6, **_SMALL}.items()},
    "W": {f"{p}W": f for p, f in {"m": 1e-3, **_LARGE}.items()},
    "J": {f"{p}J": f for p, f in {"m": 1e-3, **_LARGE}.items()},
}

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


def parse_quantity(text: str, unit: str) -> float:
    """The value of ``text`` in the base ``unit`` (a key of :data:`UNITS`).

    Raises :class:`InputError` when the text is no number with a unit, or one of another dimension.

    >>> parse_quantity("1.41 GHz", "Hz"), parse_quantity("40 MiB", "B"), parse_quantity("2.5 us", "s")
    (1410000000.0, 41943040.0, 2.5e-06)
    """
    spellings = UNITS[unit]
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(librarian(f"{text!r} is not a quantity in {unit}", do=_example(unit)))
    number, word = float(match[1]), match[2].replace("μ", "µ")  # Greek mu and the micro sign look alike
    if word not in spellings:
        raise InputError(_unknown_unit(text, word, unit))
    return _scaled(number, spellings[word])


def _scaled(number: float, factor: float) -> float:
    """``number * factor``; dividing for factors below 1, so that 2.5 us is exactly 2.5e-06."""
    return number * factor if factor >= 1 else number / round(1 / factor)


def _example(unit: str) -> str:
    prefixed = next((s for s in ("TFLOP/s", "GB/s", "MiB", "GHz", "µs", "Gbit/s", "GFLOP") if s in UNITS[unit]), unit)
    return f'Write a number, a space and a unit, such as "2.5 {prefixed}".'


def _unknown_unit(text: str, word: str, unit: str) -> str:
    asked = f"{text!r} has no unit" if not word else f"{text!r} has the unit {word!r}, which is not one of {unit}"
    do = _example(unit)
    if word.upper().endswith("FLOPS"):
        do += '\nA rate is written FLOP/s, never "FLOPS".'
    if word in ("KB", "KB/s"):
        do += "\nWrite kB for 1000 B and KiB for 1024 B."
    near = [s for s in near_matches(word, UNITS[unit], limit=2) if s != word] if word else []
    return librarian(asked, there_is=list(UNITS[unit]), near=near, do=do)


def format_quantity(value: float, unit: str = "", digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and a decimal prefix, for people.

    Values below 1 get a small prefix only in seconds; whole numbers below 1000 stay whole.

    >>> format_quantity(4.09e9, "FLOP"), format_quantity(25.557e6), format_quantity(8.12e-4, "s")
    ('4.09 GFLOP', '25.6 M', '812 µs')
    """
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    if float(value).is_integer() and abs(value) < 1000:
        return f"{int(value)} {unit}".rstrip()
    for prefix, factor in _prefixes(unit):
        number = _significant(value / factor, digits)
        if abs(number) >= 1 or factor == _smallest(unit):
            return f"{_fixed(number, digits)} {prefix}{unit}".rstrip()
    raise AssertionError("the smallest prefix always fits")


def _smallest(unit: str) -> float:
    return 1e-9 if unit == "s" else 1.0


def _prefixes(unit: str) -> list[tuple[str, float]]:
    """Prefixes for a unit, largest first; seconds have no kiloseconds."""
    table = {"": 1.0, **_SMALL} if unit == "s" else _LARGE
    return sorted(table.items(), key=lambda item: -item[1])


def _significant(number: float, digits: int) -> float:
    """``number`` rounded to significant digits, but never above the decimal point."""
    if number == 0:
        return 0.0
    return round(number, max(0, digits - 1 - math.floor(math.log10(abs(number)))))


def _fixed(number: float, digits: int) -> str:
    """A rounded number with its trailing zeros: 4.00, 25.6, 812."""
    if number == 0:
        return "0"
    return f"{number:.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"


def format_bytes(value: float, digits: int = 3) -> str:
    """Bytes with a decimal prefix.

    >>> format_bytes(102_760_448)
    '103 MB'
    """
    return format_quantity(value, "B", digits)


def format_seconds(value: float, digits: int = 3) -> str:
    """A duration, in s, ms, µs or ns.

    >>> format_seconds(0.00123), format_seconds(11.2e-6), format_seconds(75)
    ('1.23 ms', '11.2 µs', '75 s')
    """
    return format_quantity(value, "s", digits)


def format_count(value: float, digits: int = 3) -> str:
    """A plain number with a prefix.

    >>> format_count(11_689_512), format_count(53)
    ('11.7 M', '53')
    """
    return format_quantity(value, "", digits)


def format_percent(fraction: float, digits: int = 2) -> str:
    """A fraction as a percentage with at least ``digits`` significant digits.

    >>> format_percent(0.18), format_percent(0.0673), format_percent(1.337)
    ('18 %', '6.7 %', '134 %')
    """
    if not math.isfinite(fraction):
        return f"{fraction} %"
    number = _significant(100 * fraction, digits)
    return f"{_fixed(number, digits)} %"
