"""choose(): for each machine the best batch within limits, ranked; and each machine that is out, with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from costmodel.analysis import Analysis
from costmodel.api import analyze
from costmodel.choices.prices import Prices
from costmodel.choices.search import MOST, largest, smallest, worth_trying
from costmodel.errors import CostmodelError, InputError
from costmodel.execution.execution import USUAL_HOST
from costmodel.explain import headline_peak
from costmodel.hardware import HardwareProfile
from costmodel.sweeps.grid import machines_of
from costmodel.timing import at_confidence
from costmodel.units import format_bytes, format_count, format_percent, format_seconds, parse_quantity

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Choice", "Excluded", "Limits", "Option", "choose"]

#: The end of the interval: what nine of ten measurements lie between has one of twenty above it.
DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``max_latency_s`` of a step, ``min_throughput_per_s`` of samples, both to be kept with ``confidence`` [1].

    Raises InputError where neither is said, and for values that cannot be.
    """

    max_latency_s: float | None = None
    min_throughput_per_s: float | None = None
    confidence: float = DEFAULT_CONFIDENCE

    def __post_init__(self) -> None:
        if self.max_latency_s is None and self.min_throughput_per_s is None:
            raise InputError(
                "nothing is asked of the machines\n"
                "  say --max-latency 20ms or --min-throughput 2000 (max_latency=, min_throughput=)"
            )
        for what, value in (("max_latency", self.max_latency_s), ("min_throughput", self.min_throughput_per_s)):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{what} must be above 0, not {value}")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence is a probability between 0 and 1, not {self.confidence}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One machine at one batch.

    ``latency_bound_s`` and ``throughput_bound_per_s`` are kept with the confidence that was asked for, ``latency_s``
    and ``throughput_per_s`` predicted. ``utilisation`` is the share of the step that its FLOPs would take at the peak
    that most of them run at [1]; ``energy_per_sample_j`` None where it is not modelled; ``cost_per_million`` is at the
    bound, None without a price; ``fits`` None where nobody knows the machine's memory.
    """

    hw: str
    batch: int
    latency_s: float
    latency_bound_s: float
    throughput_per_s: float
    throughput_bound_per_s: float
    utilisation: float
    energy_per_sample_j: float | None
    peak_memory_bytes: int
    fits: bool | None
    cost_per_million: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A machine that keeps no batch within the limits, why, and the batch that comes closest, where there is one."""

    hw: str
    reason: str
    closest: Option | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The machines that are within the limits, the best first, and those that are out."""

    model: str
    limits: Limits
    conditions: str
    options: tuple[Option, ...]
    excluded: tuple[Excluded, ...]
    prices: Prices = field(default_factory=Prices)
    notes: tuple[str, ...] = ()

    @property
    def ranked_by(self) -> str:
        """What decides the order."""
        if any(option.cost_per_million is not None for option in self.options):
            return "cost per million samples"
        return "throughput" if self.limits.max_latency_s is not None else "latency"

    def to_markdown(self) -> str:
        """The page as GitHub markdown."""
        from costmodel.choices.page import choice_document
        from costmodel.report import render

        return render(choice_document(self), "markdown")

    def to_json(self) -> str:
        """Options and excluded machines as JSON text."""
        from costmodel.choices.page import choice_json
        from costmodel.report.as_json import dump_json

        return dump_json(choice_json(self))

    def _repr_html_(self) -> str:
        from costmodel.choices.page import choice_document
        from costmodel.report.as_html import html_fragment

        return html_fragment(choice_document(self))


def choose(
    model: str | nn.Module,
    inputs: Any = None,
    *,
    hw: str | HardwareProfile | Sequence[str | HardwareProfile] = "all",
    max_latency: float | str | None = None,
    min_throughput: float | None = None,
    confidence: float = DEFAULT_CONFIDENCE,
    prices: Prices | None = None,
    **conditions: Any,
) -> Choice:
    """For each machine the best batch that keeps the limits and fits: with a ``max_latency`` [s, or a text with a unit]
    that of the highest throughput, with a ``min_throughput`` [samples/s] alone the smallest, which is answered soonest.

    Limits are kept with ``confidence`` [1]: at the end of the interval around the prediction, and not in its middle.
    ``conditions`` are those of :func:`costmodel.analyze` but the batch. Machines are ranked by what a million samples
    cost where there are ``prices``, else by throughput, or by latency where only a throughput is asked for.
    Raises InputError where nothing is asked for, and what :func:`costmodel.analyze` raises.
    """
    seconds = parse_quantity(max_latency, "s") if isinstance(max_latency, str) else max_latency
    limits = Limits(max_latency_s=seconds, min_throughput_per_s=min_throughput, confidence=confidence)
    machines = machines_of([hw] if isinstance(hw, (str, HardwareProfile)) else hw)
    if not machines:
        raise InputError("no machine is named\n  `costmodel hw list` shows them")
    prices = prices or Prices()
    options: list[Option] = []
    excluded: list[Excluded] = []
    first = _first(model, inputs, machines, conditions)
    for machine in machines:
        found = _on(first, machine, limits, prices, conditions)
        if isinstance(found, Option):
            options.append(found)
        else:
            excluded.append(found)
    choice = Choice(
        model=first.name,
        limits=limits,
        conditions=_said(first, conditions),
        options=tuple(options),
        excluded=tuple(excluded),
        prices=prices,
        notes=_notes(first, conditions),
    )
    return Choice(**{**_fields(choice), "options": tuple(sorted(options, key=_order(choice.ranked_by)))})


def _fields(choice: Choice) -> dict[str, Any]:
    return {name: getattr(choice, name) for name in choice.__dataclass_fields__}


def _order(ranked_by: str) -> Any:
    if ranked_by == "throughput":
        return lambda option: -option.throughput_bound_per_s
    if ranked_by == "latency":
        return lambda option: option.latency_bound_s
    none = float("inf")
    return lambda o: (none if o.cost_per_million is None else o.cost_per_million, -o.throughput_bound_per_s)


def _first(
    model: str | nn.Module, inputs: Any, machines: Sequence[HardwareProfile], conditions: Mapping[str, Any]
) -> Analysis:
    """The model on some machine that takes the conditions; raises what the last one raises where none does."""
    plain = {name: word for name, word in conditions.items() if name not in ("dtype", "mode", "power_limit")}
    return analyze(model, inputs, hw=machines[0], **plain)


def _said(first: Analysis, conditions: Mapping[str, Any]) -> str:
    sizes = [f"{name} {size}" for name, size in first.execution.sizes.items()]
    words = first.execution.words | {name: str(conditions[name]) for name in ("dtype", "mode") if name in conditions}
    return ", ".join((*words.values(), *sizes))


def _notes(first: Analysis, conditions: Mapping[str, Any]) -> tuple[str, ...]:
    missing = first.node_costs.uncosted
    named = ", ".join(f"{op} ({count})" for op, count in missing.most_common())
    found: tuple[str, ...] = (f"operators without a formula: {named}",) if missing else ()
    if conditions.get("host", USUAL_HOST) == USUAL_HOST:
        found += ("intervals reach over the hosts that a GPU is met with; --host NAME says yours, and narrows them",)
    return found


class _Candidates:
    """The batches of one machine, each worked out once."""

    def __init__(self, analysis: Analysis, limits: Limits, prices: Prices) -> None:
        self.analysis, self.limits, self.prices = analysis, limits, prices
        self._known: dict[int, tuple[float, float]] = {}
        self._fits: dict[int, bool | None] = {}

    def at(self, batch: int) -> Analysis:
        return self.analysis.at(batch=batch)

    def times(self, batch: int) -> tuple[float, float]:
        """(predicted, kept with the confidence) [s]; infinite where no tensor can be as large."""
        if batch not in self._known:
            try:
                analysis = self.at(batch)
                totals = analysis.totals
                bound = at_confidence(
                    totals.latency_low_s, totals.latency_s, totals.latency_high_s, self.limits.confidence
                )
                self._known[batch] = totals.latency_s, bound
                self._fits[batch] = analysis.memory.fits
            except InputError:
                self._known[batch], self._fits[batch] = (float("inf"), float("inf")), False
        return self._known[batch]

    def fits(self, batch: int) -> bool:
        self.times(batch)
        return self._fits[batch] is not False

    def is_quick(self, batch: int) -> bool:
        most = self.limits.max_latency_s
        return most is None or self.times(batch)[1] <= most

    def is_plenty(self, batch: int) -> bool:
        least = self.limits.min_throughput_per_s
        return least is None or batch / self.times(batch)[1] >= least

    def option(self, batch: int) -> Option:
        analysis, (seconds, bound) = self.at(batch), self.times(batch)
        totals, hw = analysis.totals, analysis.hardware.name
        flops = analysis.node_costs.total.flops
        known = totals.energy_low_j is not None
        return Option(
            hw=hw,
            batch=batch,
            latency_s=seconds,
            latency_bound_s=bound,
            throughput_per_s=batch / seconds,
            throughput_bound_per_s=batch / bound,
            utilisation=float(flops / headline_peak(analysis).flop_per_s / seconds),  # type: ignore[operator]
            energy_per_sample_j=totals.energy_j / batch if known else None,
            peak_memory_bytes=totals.peak_memory_bytes,
            fits=self._fits[batch],
            cost_per_million=self.prices.per_million(hw, batch / bound),
        )


def _on(
    first: Analysis, machine: HardwareProfile, limits: Limits, prices: Prices, conditions: Mapping[str, Any]
) -> Option | Excluded:
    """The best batch of one machine, or why there is none."""
    words = {name: word for name, word in conditions.items() if name in ("dtype", "mode", "power_limit")}
    try:
        analysis = first.at(hw=machine, **words)
        own = analysis.execution.batch
        found = _Candidates(analysis.in_hand(), limits, prices)
        return _chosen(found, machine.name, "batch" in analysis.record.symbols, own)
    except CostmodelError as error:
        return Excluded(hw=machine.name, reason=str(error).splitlines()[0])


def _chosen(found: _Candidates, hw: str, is_open: bool, own: int) -> Option | Excluded:
    limits = found.limits
    if not is_open:
        batches = [own]
    elif limits.max_latency_s is None:
        least = smallest(lambda batch: found.is_plenty(batch) or not found.fits(batch))
        batches = [MOST] if least is None else [least]
    else:
        upper = largest(lambda batch: found.is_quick(batch) and found.fits(batch))
        batches = list(worth_trying(upper)) if upper else [1]
    kept = [batch for batch in batches if found.fits(batch) and found.is_quick(batch) and found.is_plenty(batch)]
    if kept:
        return found.option(max(kept, key=lambda batch: (batch / found.times(batch)[1], -batch)))
    return _excluded(found, hw, batches)


def _excluded(found: _Candidates, hw: str, batches: Sequence[int]) -> Excluded:
    """Why no batch will do, said of the one that comes closest."""
    limits = found.limits
    sure = format_percent(limits.confidence)
    if not found.fits(batches[0]) and (len(batches) == 1 or not found.fits(1)):
        last = largest(found.fits) if batches[0] > 1 else 0
        if last and limits.min_throughput_per_s is not None:
            return _too_little(found, hw, last, f"batch {last}, the largest that fits,")
        need = format_bytes(found.at(batches[0]).memory.process_bytes)
        usable = found.at(batches[0]).memory.usable_bytes
        have = format_bytes(usable.usual) if usable else "what there is"
        return Excluded(hw=hw, reason=f"batch {batches[0]} needs {need} of {have}")
    if limits.max_latency_s is not None and not found.is_quick(batches[0]):
        seconds, bound = found.times(batches[0])
        said = f"batch {batches[0]} takes {format_seconds(seconds)}, up to {format_seconds(bound)} at {sure}"
        return Excluded(hw=hw, reason=said, closest=found.option(batches[0]))
    best = max((b for b in batches if found.fits(b)), key=lambda batch: batch / found.times(batch)[1])
    return _too_little(found, hw, best, f"batch {best}")


def _too_little(found: _Candidates, hw: str, batch: int, what: str) -> Excluded:
    option = found.option(batch)
    sure = format_percent(found.limits.confidence)
    said = (
        f"{what} gives {format_count(option.throughput_per_s)} samples/s, "
        f"at least {format_count(option.throughput_bound_per_s)} at {sure}"
    )
    return Excluded(hw=hw, reason=said, closest=option)
