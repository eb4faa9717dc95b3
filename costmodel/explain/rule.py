"""A rule looks at a case and speaks in one sentence, with seconds, or is silent.

Adding an explanation is one function under :func:`rule` in a sheet of rules (``rules_*.py``); ``rules.py`` names the
sheets. What a change would save is found by evaluating the changed design, never asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from costmodel.explain.case import Case

__all__ = ["RULES", "Finding", "Rule", "listed", "rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One explanation.

    ``rule``              name of the rule that spoke
    ``nodes``             operators concerned, by name, those with most at stake first
    ``seconds_at_stake``  predicted seconds of the step that the finding is about
    ``message``           one sentence
    ``evidence``          quantities behind it, by name, units in the names
    ``change``            what to do about it; empty where nothing is known
    ``saving_s``          what that takes off the predicted time of the step (where the change is another batch: of the
                          time a batch of the present size), by evaluating the changed design; None where it cannot be,
                          or where the host hides it
    ``is_gain``           whether the seconds are not lost but spared: why the step is faster than one would think
    """

    rule: str
    nodes: tuple[str, ...]
    seconds_at_stake: float
    message: str
    evidence: Mapping[str, float | str]
    change: str = ""
    saving_s: float | None = None
    is_gain: bool = False


Rule = Callable[[Case], Iterable[Finding]]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of this name. Raises ValueError where there is one already."""

    def register(function: Rule) -> Rule:
        if name in RULES:
            raise ValueError(f"there are two rules {name!r}")
        RULES[name] = function
        return function

    return register


def listed(names: Sequence[str], most: int = 2) -> str:
    """Names for a sentence: the first few, and how many more.

    >>> listed(["conv1", "conv2"]), listed(["a", "b", "c", "d"])
    ('conv1, conv2', 'a, b and 2 more')
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def ranked(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings by the seconds at stake, most first, of equal ones by name; gains, which cost nothing, at the end."""
    yield from sorted(findings, key=lambda found: (found.is_gain, -found.seconds_at_stake, found.rule, found.nodes))
