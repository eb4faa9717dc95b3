"""Evaluates changes on one analysis: each by itself, and the smallest combination after which the step fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from costmodel.analysis import Analysis
from costmodel.errors import CostmodelError
from costmodel.remedies.changes import changes_of
from costmodel.remedies.remedy import Change, Remedy

__all__ = ["Remedies", "remedies"]

#: Combinations hold no more changes than this.
_MOST_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class Remedies:
    """``each``: changes in order of disruption; ``smallest``: the fewest of them, and of those the least disruptive,
    after which the step fits, or smaller batches where nothing else does; None where nothing helps. ``refused``:
    changes that cannot be evaluated, and why.
    """

    each: tuple[Remedy, ...]
    smallest: Remedy | None
    refused: tuple[tuple[Change, str], ...] = ()


def remedies(analysis: Analysis) -> Remedies:
    """What can be changed about a run so that its step takes less memory.

    Every remedy is the step predicted again with the change made: nothing is estimated from a share.
    """
    each: list[Remedy] = []
    refused: list[tuple[Change, str]] = []
    for change in changes_of(analysis):
        try:
            each.append(_evaluated(analysis, (change,)))
        except CostmodelError as error:
            refused.append((change, str(error).splitlines()[0]))
    saving = [remedy for remedy in each if remedy.saved_bytes > 0]
    return Remedies(tuple(saving), _smallest(analysis, saving), tuple(refused))


def _evaluated(analysis: Analysis, changes: Sequence[Change]) -> Remedy:
    words = {name: value for change in changes for name, value in change.words.items()}
    other = analysis.at(**words)
    before, after = analysis.memory, other.memory
    samples = analysis.execution.batch / other.execution.batch
    return Remedy(
        changes=tuple(changes),
        saved_bytes=before.process_bytes - after.process_bytes,
        process_bytes=after.process_bytes,
        verdict=after.verdict.word,
        fits=after.fits,
        extra_s=other.latency * samples - analysis.latency,
        batch=other.execution.batch,
    )


def _smallest(analysis: Analysis, saving: Sequence[Remedy]) -> Remedy | None:
    last = next((remedy for remedy in saving if remedy.changes[0].is_last and remedy.fits), None)
    saving = [remedy for remedy in saving if not remedy.changes[0].is_last]
    alone = next((remedy for remedy in saving if remedy.fits), None)
    if alone is not None:
        return alone
    for number in range(2, min(len(saving), _MOST_TOGETHER) + 1):
        for several in combinations([remedy.changes[0] for remedy in saving], number):
            if len({name for change in several for name in change.words}) < sum(len(c.words) for c in several):
                continue  # two that say different things about one condition
            try:
                found = _evaluated(analysis, several)
            except CostmodelError:
                continue
            if found.fits:
                return found
    return last
