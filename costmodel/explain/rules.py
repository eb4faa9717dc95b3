"""The rulebook: every rule, and :func:`findings`, which asks them all.

The sheets: ``rules_run`` (host, starts, precision, branches), ``rules_memory`` (traffic without arithmetic),
``rules_convolution`` (how FLOPs of convolutions differ), ``rules_training`` (backward, normalizations, optimizer).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from costmodel.analysis import Analysis
from costmodel.explain import rules_convolution, rules_memory, rules_run, rules_training
from costmodel.explain.case import LEAST_EFFECT, Case
from costmodel.explain.rule import RULES, Finding, ranked

__all__ = ["SHEETS", "findings"]

SHEETS = (rules_run, rules_memory, rules_convolution, rules_training)


def findings(analysis: Analysis, *, channels_last: Callable[[], Analysis | None] | None = None) -> tuple[Finding, ...]:
    """What every rule has to say about an analysis, ranked by the seconds at stake.

    ``channels_last`` gives the same model traced in that layout, for what a change of layout would save.
    Raises ProfileError where the machine lacks a peak that the run needs.
    """
    case = Case(analysis, channels_last)
    if not analysis.latency:
        return ()
    return tuple(ranked(_advised(found, case) for speak in RULES.values() for found in speak(case)))


def _advised(found: Finding, case: Case) -> Finding:
    """The finding without its change, where that would save nothing."""
    if found.saving_s is None or case.matters(found.saving_s, LEAST_EFFECT):
        return found
    return replace(found, change="", saving_s=None)
