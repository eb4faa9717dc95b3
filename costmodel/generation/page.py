"""A prompt and its steps as a page, and as data."""

from __future__ import annotations

import math
from typing import Any

from costmodel.generation.cache import cache_traffic
from costmodel.generation.run import Generation
from costmodel.report.as_json import SCHEMA_VERSION
from costmodel.report.columns import quantity_column
from costmodel.report.document import Column, Document, KeyValues, Notes, Table
from costmodel.units import format_bytes, format_count, format_percent, format_quantity, format_seconds

__all__ = ["generation_data", "generation_document", "steps_table"]


def generation_document(found: Generation) -> Document:
    """The page: times, what a step reads, and a line for each predicted step."""
    step, cache = found.steps[-1], found.cache
    low, high = (format_seconds(seconds) for seconds in found.interval_s)
    energy = (
        "" if math.isnan(found.energy_j) else f"; {format_quantity(found.energy_j / found.new_tokens, 'J')} a token"
    )
    fits = {True: "fits", False: "does not fit", None: "the machine's memory is not known"}[found.fits]
    pairs = [
        ("first token", f"{format_seconds(found.first_token_s)} for {found.what_is_read}"),
        ("speed", f"{format_count(found.tokens_per_s)} tokens/s{energy}"),
        ("all tokens", f"{format_seconds(found.total_s)} ({low} to {high}) for {found.new_tokens:,} tokens"),
        ("a step", _ends(found)),
        *([("between steps", _between(found))] if found.between_s else []),
        ("weights", f"{format_bytes(cache.weight_bytes)} read in each step"),
        ("cache", _cached(found)),
        ("memory", f"{format_bytes(found.peak_memory_bytes)} allocated: {fits}{_room(found)}"),
    ]
    notes = [*found.prompt.record.notes, *_crossing(found)]
    title = f"{step.name} on {step.hardware.title}: {found.new_tokens:,} tokens, batch {found.batch}"
    return Document(title, (KeyValues(tuple(pairs)), steps_table(found), Notes(tuple(dict.fromkeys(notes)))))


def _ends(found: Generation) -> str:
    first, last = (format_seconds(step.latency) for step in (found.steps[0], found.steps[-1]))
    return first if first == last else f"{first}, growing to {last}"


def _between(found: Generation) -> str:
    return f"{format_seconds(found.between_s)} in which the host chooses the next token (generate of transformers)"


def _cached(found: Generation) -> str:
    cache = found.cache
    grown = f", {format_bytes(cache.token_bytes)} a token" if cache.token_bytes else ", whatever the context"
    return f"{format_bytes(cache.bytes)} in the last step{grown}: {format_percent(cache.share)} of what it reads"


def _room(found: Generation) -> str:
    room = found.cache.room_tokens
    if room is None or not found.fits:
        return ""
    return f", and leaves room for {room:,} tokens more"


def _crossing(found: Generation) -> list[str]:
    cache = found.cache
    if cache.equal is None or cache.equal_context is None:
        return []
    return [
        f"the cache is as much traffic as the weights from a context of {cache.equal_context:,.0f} tokens on "
        f"(context = {cache.equal})"
    ]


def steps_table(found: Generation) -> Table:
    """A row for each predicted step."""
    rows = tuple(
        {
            "context": context,
            "latency_s": step.latency,
            "bytes_read": step.totals.bytes_read,
            "cache_bytes": cache_traffic(step).bytes,
        }
        for context, step in zip(found.contexts, found.steps, strict=True)
    )

    def column(key: str, heading: str, unit: str) -> Column:
        return quantity_column(key, heading, unit, [row[key] for row in rows])

    columns = (
        Column(key="context", heading="context", unit="tokens", render="{:,}".format),
        column("latency_s", "time", "s"),
        column("bytes_read", "read", "B"),
        column("cache_bytes", "cache", "B"),
    )
    return Table(columns=columns, rows=rows, title="Steps, by what they find in the cache")


def generation_data(found: Generation) -> dict[str, Any]:
    """The JSON value."""
    low, high = found.interval_s
    cache = found.cache
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": found.prompt.name, "source": found.prompt.source, "notes": list(found.prompt.record.notes)},
        "hardware": {"name": found.prompt.hardware.name},
        "execution": {"batch": found.batch, **found.prompt.execution.words},
        "seq_len": found.seq_len,
        "new_tokens": found.new_tokens,
        "first_token_s": found.first_token_s,
        "tokens_per_s": found.tokens_per_s,
        "total_s": found.total_s,
        "between_s": found.between_s,
        "total_low_s": low,
        "total_high_s": high,
        "energy_j": None if math.isnan(found.energy_j) else found.energy_j,
        "peak_memory_bytes": found.peak_memory_bytes,
        "fits": found.fits,
        "cache": {
            "bytes": cache.bytes, "token_bytes": cache.token_bytes, "state_bytes": cache.state_bytes,
            "by_layer": dict(cache.by_layer), "weight_bytes": cache.weight_bytes,
            "equal_context": None if cache.equal is None else str(cache.equal), "room_tokens": cache.room_tokens,
        },
        "steps": steps_table(found).records(),
    }  # fmt: skip
