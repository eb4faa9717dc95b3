"""The gate: analyses held to budgets and to a baseline, and what made them grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.analysis import Analysis
from costmodel.budgets.baseline import Baseline, Entry
from costmodel.budgets.layers import Growth, grown_by, layers_of
from costmodel.budgets.quantities import QUANTITIES, REGRESSIONS, BudgetQuantity
from costmodel.errors import InputError, librarian
from costmodel.version import VERSION

__all__ = ["Held", "Verdict", "hold", "parse_allowance"]

#: Growth below this is the rounding of a file [1].
_NOISE = 1e-8
DEFAULT_ALLOWANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One quantity held to one limit.

    ``kind`` is "budget" or "baseline"; ``before`` the baseline's value; ``by`` the layers that explain a limit that is
    broken: those that grew, or those that take most.
    """

    quantity: BudgetQuantity
    kind: str
    value: float
    limit: float
    before: float | None = None
    by: tuple[Growth, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the limit holds."""
        return not self.quantity.exceeds(self.value, self.limit * (1 + _NOISE))

    @property
    def used(self) -> float | None:
        """Share of the limit that is used; None of a limit of 0."""
        if self.quantity.is_floor:
            return self.limit / self.value if self.value else None
        return self.value / self.limit if self.limit else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One model on one machine, and everything that it was held to; ``notes`` are what the numbers leave open."""

    model: str
    hw: str
    said: str
    held: tuple[Held, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all limits hold."""
        return all(each.ok for each in self.held)


def parse_allowance(text: str) -> dict[str, float]:
    """``2%`` or ``1%,latency=5%`` -> allowed growth [1] by quantity of a baseline.

    Raises InputError for what is no share, and for another quantity.

    >>> parse_allowance("2%,latency=5%")["macs"], parse_allowance("2%,latency=5%")["latency"]
    (0.02, 0.05)
    """
    found = dict.fromkeys(REGRESSIONS, DEFAULT_ALLOWANCE)
    for part in text.split(","):
        name, equals, share = part.strip().rpartition("=")
        if equals and name not in REGRESSIONS:
            raise InputError(librarian(f"a baseline keeps no {name!r}", there_is=REGRESSIONS))
        is_percent = share.endswith("%")
        try:
            value = float(share.removesuffix("%")) / (100 if is_percent else 1)
        except ValueError:
            value = -1.0
        if not is_percent and 1 <= value < float("inf"):  # whoever writes 2 means two percent, not three times as much
            raise InputError(librarian(f"{part!r} is {100 * value:g} %", do=f"Write {share}% or 0.02."))
        if not 0 <= value < float("inf"):
            raise InputError(librarian(f"{part!r} is no share", do="Write such as 2%, or 1%,latency=5%."))
        found.update({name: value} if equals else dict.fromkeys(REGRESSIONS, value))
    return found


def hold(
    entry: Entry,
    analysis: Analysis,
    *,
    budget: Mapping[str, float] | None = None,
    baseline: Baseline | None = None,
    allowance: Mapping[str, float] | None = None,
    confidence: float | None = None,
) -> Verdict:
    """Hold an analysis, and the ``entry`` that it would leave in a baseline, to ``budget`` and ``baseline``.

    ``confidence`` [1] holds times and energies to a budget with that probability, by their intervals; without it, and
    against a baseline, the predicted values count. Raises InputError where the baseline has no such entry.
    """
    held = [_budget(name, limit, analysis, confidence) for name, limit in (budget or {}).items()]
    notes = list(_notes(analysis))
    if baseline is not None:
        before = baseline.find(entry)
        allowed = {**dict.fromkeys(REGRESSIONS, DEFAULT_ALLOWANCE), **(allowance or {})}
        held += [_regression(name, before, entry, allowed[name]) for name in REGRESSIONS if name in before.totals]
        if baseline.version != VERSION:
            written = f"{baseline.path} was written by costmodel {baseline.version}, this is {VERSION}"
            notes.append(f"{written}: times may differ by that alone")
    said = ", ".join(f"{name} {value}" for name, value in entry.conditions.items())
    return Verdict(model=entry.model, hw=entry.hw, said=said, held=tuple(held), notes=tuple(notes))


def _notes(analysis: Analysis) -> Sequence[str]:
    missing = analysis.node_costs.uncosted
    if not missing:
        return ()
    named = ", ".join(f"{op} ({count})" for op, count in missing.most_common())
    return (f"operators without a formula, whose FLOPs are not counted: {named}",)


def _budget(name: str, limit: float, analysis: Analysis, confidence: float | None) -> Held:
    quantity = QUANTITIES[name]
    value = quantity.value(analysis, confidence)
    by: tuple[Growth, ...] = ()
    if quantity.exceeds(value, limit):
        key = quantity.of_layer or ("latency_s" if name in ("throughput", "energy") else "")
        layers = layers_of(analysis) if key else ()
        most = sorted(layers, key=lambda layer: -layer.amounts[key])
        by = tuple(
            Growth(layer.name, layer.name, layer.op, 0, layer.amounts[key]) for layer in most if layer.amounts[key]
        )
        if name == "memory":
            by = tuple(Growth(kind, kind, "", 0, nbytes) for kind, nbytes in _by_size(analysis.memory.moment.by_kind))
    return Held(quantity=quantity, kind="budget", value=value, limit=limit, by=by)


def _by_size(amounts: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(amounts.items(), key=lambda item: -item[1])


def _regression(name: str, before: Entry, now: Entry, allowed: float) -> Held:
    quantity = QUANTITIES[name]
    had, has = before.totals[name], now.totals[name]
    held = Held(quantity=quantity, kind="baseline", value=has, limit=had * (1 + allowed), before=had)
    if held.ok:
        return held
    if quantity.of_layer:
        by = grown_by(quantity.of_layer, before.layers, now.layers)
    else:
        kinds = dict.fromkeys((*before.memory, *now.memory))
        both = [Growth(kind, kind, "", before.memory.get(kind, 0), now.memory.get(kind, 0)) for kind in kinds]
        by = sorted((g for g in both if g.amount_before != g.amount_now), key=lambda g: g.amount_before - g.amount_now)
    return Held(quantity=quantity, kind="baseline", value=has, limit=held.limit, before=had, by=tuple(by))


def check_asked(budget: Mapping[str, Any] | None, baseline: Baseline | None) -> None:
    """Raise InputError where nothing is held to anything."""
    if not budget and baseline is None:
        do = "Say --budget latency=10ms,macs=5G or --baseline costs.json."
        raise InputError(librarian("nothing is checked: there is neither a budget nor a baseline", do=do))
