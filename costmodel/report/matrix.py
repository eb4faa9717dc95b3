"""A comparison at a glance: every model on every machine, and the causes that part times from FLOPs most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from costmodel.report.columns import quantity_column, text_column
from costmodel.report.document import Column, Table
from costmodel.units import format_percent, format_seconds

__all__ = ["fact_sentences", "machine_labels", "matrix_table", "signed"]

#: Facts on a page.
_FACTS = 3
#: Share of the longer of two times from which a cause is said to matter to a pair [1].
_MATTERS = 0.05


def machine_labels(comparison: Any) -> dict[str, str]:
    """The shortest name that each machine goes by."""
    machines = [analysis.hardware for analysis in comparison.analyses[0]]
    return {machine.name: min((machine.name, *machine.aliases), key=len) for machine in machines}


def matrix_table(comparison: Any) -> Table:
    """A line a model, the fewest MACs first: what it asks a sample, and on each machine its time, the ratio to that of
    the first model, and how many places it gains or loses against its place by MACs."""
    rows: dict[str, dict[str, Any]] = {}
    for found in comparison.contenders:
        row = rows.setdefault(
            found.model,
            {
                "model": found.model,
                "batch": found.batch,
                "params": found.params,
                "flops": found.flops,
                "flops_ratio": found.flops_ratio,
                "macs_per_sample": found.macs_per_sample,
                "activations_per_sample": found.activations_per_sample,
                "rank_macs": found.rank_macs,
            },
        )
        machine = found.machine
        row[f"latency_s_{machine}"] = found.latency_s
        row[f"latency_ratio_{machine}"] = found.latency_ratio
        row[f"places_gained_{machine}"] = found.moved
        row[f"shown_{machine}"] = (found.latency_ratio, found.moved)
    values = sorted(rows.values(), key=lambda row: row["rank_macs"])
    columns: list[Column] = [
        text_column("model", "model", shortest=13, importance=99),
        quantity_column(
            "macs_per_sample",
            "MACs",
            "MAC",
            [row["macs_per_sample"] for row in values],
            importance=97,
            decimals=2,
            least=1.0,
        ),
        quantity_column(
            "activations_per_sample", "act.", "", [row["activations_per_sample"] for row in values], importance=88
        ),
        quantity_column("params", "params", "", [row["params"] for row in values], importance=20),
        replace(quantity_column("flops", "FLOPs", "FLOP", [row["flops"] for row in values]), on_page=False),
    ]
    for machine, label in machine_labels(comparison).items():
        key = f"latency_s_{machine}"
        times = [row[key] for row in values]
        columns += [
            quantity_column(key, label, "s", times, decimals=2, least=1.0, importance=95),
            Column(key=f"shown_{machine}", heading=label, unit="×", render=_ratio_and_places, importance=96,
                   in_data=False),
            text_column(f"latency_ratio_{machine}", label, on_page=False),
            text_column(f"places_gained_{machine}", label, on_page=False),
        ]  # fmt: skip
    first = comparison.models[0]
    moved = any(found.moved for found in comparison.contenders)
    marks = "; ▲ places gained, ▼ lost by time against the place by MACs" if moved else ""
    return Table(
        columns=tuple(columns),
        rows=tuple(values),
        title=f"Time a step, × that of {first}; MACs and activations (act.) of one sample{marks}",
    )


def _ratio_and_places(pair: tuple[float, int]) -> str:
    """``▲2 0.45``: the mark in front, so that numbers stay below each other."""
    ratio, moved = pair
    mark = "" if not moved else f"{'▲' if moved > 0 else '▼'}{abs(moved)} "
    return f"{mark}{ratio:.2f}"


def fact_sentences(comparison: Any) -> Iterator[str]:
    """The three causes that part times from FLOPs most: how often, and where most."""
    short = machine_labels(comparison)
    pairs = (len(comparison.models) - 1) * len(comparison.machines)
    for fact in comparison.facts[:_FACTS]:
        often = sum(abs(share) >= _MATTERS for *_, share in fact.effects)
        of = f"{often} of {pairs} pairs" if pairs > 1 else "the pair"
        yield (
            f"{format_percent(fact.weight)}: {fact.label}, {format_percent(_MATTERS)} of the time or more in {of}; "
            + "; ".join(_where(comparison, fact, short))
        )


def _where(comparison: Any, fact: Any, short: dict[str, str]) -> Iterator[str]:
    """Where a cause costs a model most against the first, and where it saves most."""
    for said, sign in (("most against", 1), ("most in favour of", -1)):
        found = next((effect for effect in fact.effects if sign * effect[3] >= _MATTERS), None)
        if found is not None:
            model, machine, seconds, share = found
            nodes = _nodes(comparison, model, machine, fact.cause)
            yield (
                f"{said} {model} on {short[machine]}, {signed(seconds)} "
                f"({format_percent(abs(share))} of the longer time){nodes}"
            )


def _nodes(comparison: Any, model: str, machine: str, cause: str) -> str:
    """Where in the model on which it has the greater effect."""
    apart = next((a for a in comparison.apart(model, machine) if a.cause == cause), None)
    if apart is None or not apart.nodes:
        return ""
    whose = "" if apart.of == model else f"{apart.of}'s "
    return f", in {whose}{apart.nodes[0][0]}"


def signed(seconds: float) -> str:
    """``+1.2 ms``, ``−34 µs``."""
    return f"{'+' if seconds >= 0 else '−'}{format_seconds(abs(seconds))}"
