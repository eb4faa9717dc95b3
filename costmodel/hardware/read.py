"""From a TOML file to a HardwareProfile."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costmodel.devices import CpuGeneration
from costmodel.errors import ProfileError, librarian
from costmodel.hardware.calibration import calibration_from
from costmodel.hardware.check import peak_key, problems
from costmodel.hardware.identity import board_of, generation_of
from costmodel.hardware.profile import (
    ENGINES,
    OVERHEADS,
    CoreGroup,
    HardwareProfile,
    Limits,
    MemoryLevel,
    Overheads,
    Peak,
    default_dram_fraction,
)
from costmodel.hardware.schema import Table, source_of, tables
from costmodel.units import parse_quantity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["parse_toml", "profile_from", "read_profile", "read_raw"]

Raw = Mapping[str, Any]


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as nested dictionaries; raises ValueError (``TOMLDecodeError``) with line and column."""
    raw: dict[str, Any] = tomllib.loads(text)
    return raw


def read_raw(path: Path) -> Raw:
    """The content of a file as it stands; raises :class:`ProfileError` with the line of a syntax error."""
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"the hardware profile {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # both TOMLDecodeError and UnicodeDecodeError
        raise ProfileError(
            librarian(f"{path} is not valid TOML: {error}", do="See the other profiles: hw_profiles/*.toml")
        ) from error


def read_profile(path: Path) -> HardwareProfile:
    """One machine; raises :class:`ProfileError` listing every error of the file: key, both numbers, what to do."""
    return profile_from(read_raw(path), path)


def profile_from(raw: Raw, path: Path) -> HardwareProfile:
    """The machine that a file's content describes; raises :class:`ProfileError` as :func:`read_profile`."""
    errors = [problem for problem in problems(raw) if problem.severity == "error"]
    if errors:
        lines = "\n".join(f"{problem.where}: {problem.message}" for problem in errors)
        raise ProfileError(librarian(f"the hardware profile {path} cannot be used", do=lines))
    return _profile(raw, path)


def _quantity(table: Raw, key: str, unit: str) -> float | None:
    return parse_quantity(table[key], unit) if key in table else None


def _profile(raw: Raw, path: Path) -> HardwareProfile:
    units, dram = raw["units"], raw["memory"]["dram"]
    clock_hz = parse_quantity(units["clock"], "Hz")
    peaks = [_peak(table, raw) for table in tables(raw) if table.name.split(".")[0] in ENGINES]
    of = generation_of(raw)
    return HardwareProfile(
        name=raw["name"],
        title=raw["title"],
        vendor=raw["vendor"],
        kind=raw["kind"],
        architecture=raw.get("architecture", ""),
        compute_capability=raw.get("compute_capability"),
        aliases=tuple(raw.get("aliases", ())),
        unit_count=units["count"],
        clock_hz=clock_hz,
        base_clock_hz=_quantity(units, "base_clock", "Hz"),
        matrix_clock_hz=_quantity(units, "matrix_clock", "Hz") or clock_hz,
        peaks={(peak.engine, peak.dtype, peak.accumulate): peak for peak in peaks},
        memory=tuple(_memory_level(table, raw) for table in tables(raw) if table.name.startswith("memory.")),
        overheads=_overheads(raw),
        limits=_limits(raw.get("limits", {})),
        power_w=_quantity(raw.get("power", {}), "tdp", "W"),
        notes=tuple(raw.get("notes", ())),
        path=path,
        achievable_dram_fraction=dram.get("achievable") or default_dram_fraction(dram["type"]),
        generation=of,
        board=board_of(raw),
        cores=_core_groups(raw, of) if isinstance(of, CpuGeneration) else (),
        usual_host=raw.get("host", {}).get("usual", ""),
        met_with=tuple(raw.get("host", {}).get("met_with", ())),
        measured_slowdown=raw.get("host", {}).get("slowdown"),
        calibration=calibration_from(raw["calibration"]) if "calibration" in raw else None,
    )


#: Width of the vector registers by the name of the instruction set [bit].
_SIMD_BITS: Mapping[str, int] = {
    "scalar": 32,
    "SSE4.2": 128,
    "NEON": 128,
    "AVX2": 256,
    "SVE 256 bit": 256,
    "AVX-512": 512,
}


def _core_groups(raw: Raw, of: CpuGeneration) -> tuple[CoreGroup, ...]:
    """The cores by kind, from what the fp32 peak is made of; all alike where the file does not say."""
    units, peak = raw["units"], raw.get("vector", {}).get("fp32", {})
    bits = _SIMD_BITS.get(units.get("simd", ""), of.simd_bits)
    made_of = peak.get("made_of", [])
    parts = made_of if isinstance(made_of, list) else [made_of]
    if not parts and "peak" in peak:
        clock_hz = parse_quantity(units["clock"], "Hz")
        each = parse_quantity(peak["peak"], "FLOP/s") / units["count"] / clock_hz
        return (CoreGroup(count=units["count"], clock_hz=clock_hz, flop_per_clock=each, simd_bits=bits),)
    return tuple(
        CoreGroup(
            count=part["units"],
            clock_hz=parse_quantity(part["clock"], "Hz"),
            flop_per_clock=part["flop_per_clock"],
            simd_bits=bits,
        )
        for part in parts
    )


def _peak(table: Table, raw: Raw) -> Peak:
    values = table.values
    engine, dtype, accumulate = peak_key(table.name, values)
    flop_per_s = parse_quantity(values["peak"], "FLOP/s")
    made_of = values.get("made_of")
    parts = made_of if isinstance(made_of, list) else [made_of] if made_of else []
    units = sum(part["units"] for part in parts) or None
    clock_hz = parse_quantity(parts[0]["clock"], "Hz") if parts else None
    return Peak(
        engine=engine,
        dtype=dtype,
        accumulate=accumulate,
        flop_per_s=flop_per_s,
        units=units,
        clock_hz=clock_hz,
        flop_per_clock=_flop_per_clock(parts, flop_per_s, units, clock_hz),
        source=source_of(raw, values, "peak"),
        verified=values.get("verified", True),
        measured=values.get("measured", False),
    )


def _flop_per_clock(parts: list[Raw], flop_per_s: float, units: int | None, clock_hz: float | None) -> float | None:
    if not units or not clock_hz:
        return None
    return float(parts[0]["flop_per_clock"]) if len(parts) == 1 else flop_per_s / (units * clock_hz)


def _memory_level(table: Table, raw: Raw) -> MemoryLevel:
    values = table.values
    return MemoryLevel(
        name=table.name.removeprefix("memory."),
        capacity_bytes=_quantity(values, "capacity", "B"),
        bandwidth_bytes_per_s=_quantity(values, "bandwidth", "B/s"),
        kind=values.get("type", "cache"),
        per_unit=values.get("per_unit", False),
        source=source_of(raw, values, "bandwidth" if table.name == "memory.dram" else "capacity"),
        verified=values.get("verified", True),
        inline_ecc=values.get("inline_ecc", False),
        measured_bandwidth_bytes_per_s=_quantity(values, "measured_bandwidth", "B/s"),
    )


def _overheads(raw: Raw) -> Overheads:
    default, own = OVERHEADS[raw["kind"]], raw.get("overheads", {})
    dispatch_s, sync_s = _quantity(own, "dispatch", "s"), _quantity(own, "sync", "s")
    return Overheads(
        kernel_fixed_cycles=own.get("kernel_fixed_cycles", default.kernel_fixed_cycles),
        dispatch_s=default.dispatch_s if dispatch_s is None else dispatch_s,
        sync_s=default.sync_s if sync_s is None else sync_s,
    )


def _limits(values: Raw) -> Limits:
    return Limits(
        warp_size=values.get("warp_size"),
        max_warps=values.get("max_warps"),
        max_blocks=values.get("max_blocks"),
        registers=values.get("registers"),
        shared_memory_bytes=_quantity(values, "shared_memory", "B"),
        shared_memory_per_block_bytes=_quantity(values, "shared_memory_per_block", "B"),
    )
