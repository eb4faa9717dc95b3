"""A choice as a page: the machines that will do, the best first, and why the others will not; and as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from costmodel.report.as_json import SCHEMA_VERSION
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Block, Column, Document, KeyValues, Notes, Paragraph, Table
from costmodel.report.summary import PREDICTED
from costmodel.units import format_percent, format_seconds

if TYPE_CHECKING:
    from costmodel.choices.choice import Choice

__all__ = ["choice_document", "choice_json", "options_table"]


def choice_document(choice: Choice, top: int | None = None) -> Document:
    """The page; ``top`` machines at most in each list (None or 0: all)."""
    blocks: list[Block] = [KeyValues(tuple(_facts(choice)))]
    if choice.options:
        blocks.append(options_table(choice, top))
    else:
        blocks.append(Paragraph("No machine keeps the limits."))
    if choice.excluded:
        kept = choice.excluded[: top or None]
        out = [f"{excluded.hw}: {excluded.reason}" for excluded in kept]
        out += [f"{len(choice.excluded) - len(kept)} more (--top 0 shows all)"] * (len(kept) < len(choice.excluded))
        blocks.append(Notes(tuple(out), title="Out"))
    sure = format_percent(choice.limits.confidence)
    bound = f"limits, throughput and cost are at the bound that a measurement keeps to with {sure}, by the interval"
    usual = "of peak: share of the time that the FLOPs alone would take at the peak that most of them run at"
    unpriced = [option.hw for option in choice.options if option.cost_per_million is None]
    prices = [f"no price is given for {', '.join(unpriced)}, ranked behind the others by throughput"]
    priced = prices * bool(unpriced and choice.ranked_by.startswith("cost"))
    blocks.append(Notes((bound, usual, *priced, *choice.notes, PREDICTED), title="Conventions"))
    return Document(_title(choice), tuple(blocks))


def _title(choice: Choice) -> str:
    machines = len(choice.options) + len(choice.excluded)
    return f"{choice.model}: {len(choice.options)} of {machines} machines keep the limits"


def _facts(choice: Choice) -> Iterator[tuple[str, str]]:
    limits = choice.limits
    asked = []
    if limits.max_latency_s is not None:
        asked.append(f"a step within {format_seconds(limits.max_latency_s)}")
    if limits.min_throughput_per_s is not None:
        asked.append(f"{limits.min_throughput_per_s:,.6g} samples/s or more")
    yield "asked for", f"{' and '.join(asked)}, at a confidence of {format_percent(limits.confidence)}"
    if choice.conditions:
        yield "conditions", choice.conditions
    yield "ranked by", choice.ranked_by


def options_table(choice: Choice, top: int | None = None) -> Table:
    """One line a machine."""
    rows = [asdict(option) for option in choice.options]
    shown = rows[: top or None]
    money = choice.prices.currency or "price"
    columns = [
        text_column("hw", "machine", importance=99, shortest=10),
        Column(key="batch", heading="batch", importance=98),
        quantity_column(
            "latency_s", "latency", "s", [row["latency_s"] for row in shown], decimals=2, least=1.0, importance=90
        ),
        quantity_column(
            "latency_bound_s",
            "at most",
            "s",
            [row["latency_bound_s"] for row in shown],
            decimals=2,
            least=1.0,
            importance=95,
        ),
        number_column("throughput_per_s", "throughput", "1/s", decimals=0, importance=80),
        number_column("throughput_bound_per_s", "at least", "1/s", decimals=0, importance=94),
        share_column("utilisation", "of peak", importance=70),
        quantity_column(
            "energy_per_sample_j", "energy", "J", [row["energy_per_sample_j"] for row in shown], importance=60
        ),
        quantity_column(
            "peak_memory_bytes",
            "memory",
            "B",
            [row["peak_memory_bytes"] for row in shown],
            decimals=0,
            least=100.0,
            importance=50,
        ),
        text_column("fits", "fits", render=lambda fits: "yes" if fits else "no", importance=40),
    ]
    if choice.ranked_by.startswith("cost"):
        cost = number_column("cost_per_million", "a million", money, decimals=2, importance=97)
        columns.insert(2, cost)
    return Table(columns=tuple(columns), rows=tuple(shown))


def choice_json(choice: Choice) -> dict[str, Any]:
    """Everything, in the order of the page."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": choice.model,
        "limits": asdict(choice.limits),
        "conditions": choice.conditions,
        "ranked_by": choice.ranked_by,
        "currency": choice.prices.currency,
        "options": [asdict(option) for option in choice.options],
        "excluded": [asdict(excluded) for excluded in choice.excluded],
        "notes": list(choice.notes),
    }
