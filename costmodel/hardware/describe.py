"""A hardware profile as rows for people: what its file states, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from costmodel.hardware.catalogue import shipped_directory
from costmodel.hardware.profile import ACHIEVABLE_DRAM_FRACTION, HardwareProfile
from costmodel.hardware.read import read_raw
from costmodel.hardware.schema import Table, source_of, tables
from costmodel.units import format_percent, format_quantity, format_seconds

__all__ = ["Fact", "describe"]


class Fact(NamedTuple):
    """One line of a description; ``source`` is empty for what identifies the machine."""

    section: str
    key: str
    value: str
    source: str


def describe(profile: HardwareProfile) -> list[Fact]:
    """All figures as the file writes them, with their sources, then what the time model derives from them.

    The source of an unverified figure begins with "unverified".
    """
    raw = read_raw(profile.path)
    facts = list(_identity(profile))
    for table in tables(raw):
        facts += _table_facts(table, raw)
    facts += _derived(profile)
    assumed = tuple(f"assumed of {profile.generation.title}: {words}" for words in profile.generation.assumptions)
    facts += [Fact("notes", str(index), note, "") for index, note in enumerate((*profile.notes, *assumed), start=1)]
    return facts


def _identity(profile: HardwareProfile) -> Iterator[Fact]:
    for key in ("name", "title", "vendor", "kind", "architecture", "compute_capability"):
        if value := getattr(profile, key):
            yield Fact("machine", key, value, "")
    yield Fact("machine", "generation", f"{profile.generation.name} ({profile.generation.title})", "")
    if profile.aliases:
        yield Fact("machine", "aliases", ", ".join(profile.aliases), "")
    shipped = shipped_directory() / profile.path.name
    overrides = shipped.is_file() and not shipped.samefile(profile.path)
    yield Fact(
        "machine", "file", str(profile.path) + (" (wins over the shipped file of this name)" if overrides else ""), ""
    )


def _table_facts(table: Table, raw: Mapping[str, Any]) -> Iterator[Fact]:
    hidden = {"source", "verified", "unverified", "why", "accumulate"}
    for key, value in table.values.items():
        if key in hidden or key.endswith("_source"):
            continue
        source = table.values.get("why", "") if key == "tolerance" else source_of(raw, table.values, key)
        doubtful = table.values.get("verified") is False and key not in ("measured_bandwidth", "type")
        if doubtful or key in table.values.get("unverified", ()):
            source = f"unverified: {source}"
        yield Fact(table.name, key, _written(value), source)


def _written(value: Any) -> str:
    """A value of the file as text; what a figure is made of becomes a product."""
    if isinstance(value, list):
        return (" + " if any(isinstance(part, dict) for part in value) else ", ").join(map(_written, value))
    if isinstance(value, dict):
        words = {"flop_per_clock": "FLOP/clock", "bus_bits": "bit"}
        return " x ".join(f"{part} {words[key]}" if key in words else str(part) for key, part in value.items())
    return str(value)


def _derived(profile: HardwareProfile) -> Iterator[Fact]:
    share = profile.achievable_dram_fraction
    kind = profile.dram.kind
    known = kind in ACHIEVABLE_DRAM_FRACTION
    source = "this file, or the default for " + (kind if known else "memory types without a measurement")
    yield Fact("derived", "achievable DRAM share", format_percent(share), source)
    for peak in profile.peaks.values():
        ridge = profile.ridge_point(peak.engine, peak.dtype, peak.accumulate)
        key = f"ridge point, {peak.engine} {peak.dtype} ({peak.accumulate})"
        yield Fact("derived", key, format_quantity(ridge, "FLOP/B"), "peak / DRAM bandwidth")
    source = f"this file, or the default for a {profile.kind}"
    yield Fact("derived", "fixed time of a kernel", format_seconds(profile.kernel_fixed_s), source)
    yield Fact("derived", "dispatch of an operator", format_seconds(profile.overheads.dispatch_s), source)
    yield Fact("derived", "synchronization", format_seconds(profile.overheads.sync_s), source)
