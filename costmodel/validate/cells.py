"""Cells of a measured row as checked values. A :class:`RowError` says why the row cannot be used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from costmodel.engines import engine_spellings
from costmodel.execution import layout, phase, precision

__all__ = [
    "SAID_FOR_ALL",
    "Flags",
    "RowError",
    "checked_word",
    "latency",
    "optional_size",
    "phase_word",
    "size",
    "text",
]


class RowError(Exception):
    """Why one row cannot be used. Equal reasons read alike, so that they can be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the user says of files that do not say it themselves; empty where nothing was said.

    ``conditions`` are further ones of the run, by the names of Execution's fields.
    """

    device: str = ""
    dtype: str = ""
    layout: str = ""
    mode: str = ""
    phase: str = ""
    torch: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)

    def over(self, other: Flags) -> Flags:
        """These flags, and ``other`` where they say nothing.

        >>> Flags(dtype="fp32").over(Flags(dtype="fp16", layout="nhwc")).layout
        'nhwc'
        """
        return Flags(**{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(Flags)})


#: What may be said for all rows that do not say it, by the names of columns and of the command's options.
SAID_FOR_ALL = tuple(f.name for f in fields(Flags) if f.name != "conditions")
#: Phases whose rows can be judged.
_MODELLED = (phase.Phase.INFERENCE.value, phase.Phase.TRAINING.value)
_WORDS = {"dtype": precision.SPELLINGS, "layout": layout.SPELLINGS, "mode": engine_spellings()}


def text(record: Mapping[str, str], column: str, default: str = "") -> str:
    """A cell, or ``default`` where it is absent or empty; RowError where there is neither."""
    value = (record.get(column) or "").strip() or default
    if not value:
        raise RowError(f"missing value: {column}" if column in record else f"missing column: {column}")
    return value


def checked_word(record: Mapping[str, str], kind: str, default: str) -> str:
    """The dtype, layout or mode of a row in our words; RowError for another."""
    value = text(record, kind, default)
    if value.lower() not in _WORDS[kind]:
        raise RowError(f"unknown {kind}: {value}")
    return _WORDS[kind][value.lower()]


def phase_word(record: Mapping[str, str], default: str) -> str:
    """The phase of a row in our word; RowError for an unknown one, and for one without a time model yet."""
    value = text(record, "phase", default or "inference").lower()
    if value not in phase.SPELLINGS:
        raise RowError(f"unknown phase: {value}")
    found = phase.SPELLINGS[value]
    if found not in _MODELLED:
        raise RowError(f"phase={value}: not yet modelled")
    return found


def number(record: Mapping[str, str], column: str) -> float:
    """A finite number; RowError names the column and says whether it is empty, NaN or no number."""
    value = text(record, column)
    try:
        parsed = float(value)
    except ValueError:
        raise RowError(f"not a number: {column}") from None
    if math.isnan(parsed):
        raise RowError(f"NaN: {column}")
    if math.isinf(parsed):
        raise RowError(f"infinite: {column}")
    return parsed


def latency(record: Mapping[str, str], column: str, unit_s: float) -> float:
    """A time of more than 0, in seconds."""
    value = number(record, column)
    if value <= 0:
        raise RowError(f"{column} is not above 0")
    return value * unit_s


def size(record: Mapping[str, str], column: str) -> int:
    """A whole number of at least 1 (files write 224.0 too)."""
    value = number(record, column)
    if value == 0:
        raise RowError(f"{column} 0")
    if value < 0 or value != int(value):
        raise RowError(f"{column} is no whole number of at least 1")
    return int(value)


def optional_size(record: Mapping[str, str], column: str) -> int | None:
    """The same, or None where the column or the value is absent."""
    return size(record, column) if (record.get(column) or "").strip() else None
