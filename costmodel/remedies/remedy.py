"""Change and Remedy: a change of a run that may save memory, and what it does to one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Change", "Remedy", "flag_of"]

#: Words of ``Analysis.at`` -> flags of the command line, where they are not spelt alike.
_FLAGS: Mapping[str, str] = {"train_mode": "--train-mode"}


def flag_of(words: Mapping[str, Any]) -> str:
    """What to add to a command line for a run under these words.

    >>> flag_of({"dtype": "bf16", "batch": 8}), flag_of({"fused_optimizer": True})
    ('--dtype bf16 --batch 8', '--fused-optimizer')
    """
    said = []
    for name, value in words.items():
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        said.append(flag if value is True else f"{flag} {value}")
    return " ".join(said)


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what it is called, the words of :meth:`costmodel.Analysis.at` that make it, and what it means.

    ``is_last`` marks one that always works: combinations are looked for without it first.
    """

    name: str
    words: Mapping[str, Any] = field(hash=False)
    meaning: str
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Some changes together, evaluated on one step.

    ``saved_bytes``   B that the process takes less
    ``process_bytes`` B that it takes then; ``verdict`` and ``fits`` say whether the machine has them
    ``extra_s``       s that a step takes longer, below 0 where it is quicker; for another ``batch`` than before, s of
                      as many samples as the step had
    """

    changes: tuple[Change, ...]
    saved_bytes: int
    process_bytes: int
    verdict: str
    fits: bool | None
    extra_s: float
    batch: int

    @property
    def name(self) -> str:
        """What is changed, in words."""
        return " and ".join(change.name for change in self.changes)

    @property
    def words(self) -> dict[str, Any]:
        """What :meth:`costmodel.Analysis.at` takes for it."""
        return {name: value for change in self.changes for name, value in change.words.items()}

    @property
    def flags(self) -> str:
        """What to add to the command line."""
        return flag_of(self.words)
