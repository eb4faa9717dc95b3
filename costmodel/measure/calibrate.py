"""``costmodel calibrate``: from micro-benchmarks of this machine to an ordinary hardware profile.

:func:`calibrate_cpu` measures, repeats what scatters, and returns the profile as TOML text; the profile says how far
timings scattered, and predictions with it have intervals as wide as that makes them.
"""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from costmodel.hardware import HardwareProfile
from costmodel.hardware.calibration import Calibration, KernelTime
from costmodel.hardware.read import parse_toml, profile_from
from costmodel.measure.calibrate_cpu import (
    SMALL_ROUNDS,
    Roofs,
    Rounds,
    measure_roofs,
    page_fault_seconds,
    time_entries,
)
from costmodel.measure.calibrate_fit import cold_curve, fit_kernels
from costmodel.measure.latency import Clock, pinned_threads, warm_allocator
from costmodel.measure.machine_cpu import CpuFacts, cpu_facts
from costmodel.measure.microbench import Entry
from costmodel.measure.profile_text import microseconds, toml_text

__all__ = ["MOST_SPREAD", "calibrate_cpu", "profile_text", "scatter_note"]

#: Median interquartile range over the median of a timing [1] above which bursts are repeated. A shared two-core guest
#: has 0.1 to 0.2; with another job on its cores it has 0.6 and more.
MOST_SPREAD = 0.35
#: Time for the rounds over all operators [s]: on a quiet two-core machine 60,000 timings of 460 operators.
SECONDS = 75.0

Progress = Callable[[str, int, int], None]
Tables = dict[str, dict[str, Any]]


def calibrate_cpu(
    name: str,
    *,
    command: str,
    version: str,
    threads: int | None = None,
    seconds: float = SECONDS,
    most_spread: float = MOST_SPREAD,
    entries: Callable[[], list[Entry]] | None = None,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> str:
    """Measure this CPU for about ``seconds`` (roofs and warm rounds come on top) and return its profile as TOML.

    ``command`` and ``version`` (of costmodel) become the source of its figures; ``threads`` are those of
    intra-operator parallelism (None: torch's own choice). Where timings scatter by more than ``most_spread`` they are
    repeated, and the profile says how far they still do. Raises InputError for fewer than 1 thread.
    """
    from costmodel.measure.microbench_cpu import cpu_entries

    facts = cpu_facts()
    with pinned_threads(threads) as count, torch.inference_mode():
        capacities = {level: float(size * (count if own else 1)) for level, (size, own) in facts.cache_bytes.items()}
        warm_allocator()
        benchmarks = (entries or cpu_entries)()
        if progress is not None:
            progress("roofs", 0, 1)
        roofs = measure_roofs(capacities, threads=count, clock=clock)
        rounds = time_entries(benchmarks, _provisional(facts), seconds=seconds, most_spread=most_spread,
                              clock=clock, progress=progress)  # fmt: skip
        fault_s = page_fault_seconds(clock=clock)
    calibration = fitted(rounds, fault_s, count)
    if tell is not None and (note := scatter_note(rounds, most_spread)):
        tell(note)
    return profile_text(name, facts, roofs, rounds, calibration, command=command, version=version)


def scatter_note(rounds: Rounds, most_spread: float) -> str:
    """What a user must know of timings that scatter although they were repeated; empty where they do not."""
    if rounds.spread <= most_spread:
        return ""
    return (
        f"this machine was busy: after {rounds.repeats} repeated bursts timings still scatter by {rounds.spread:.0%} "
        f"(interquartile range over median; quiet is below {most_spread:.0%}), bursts differ by {rounds.drift:.0%}, "
        f"other processes disturbed {rounds.disturbed:.0%} of the rounds, the host took {rounds.steal:.1%}. "
        "The profile is written, and predictions with it have wider intervals; calibrate again when nothing else runs."
    )


def fitted(rounds: Rounds, page_fault_s: float, threads: int) -> Calibration:
    """The calibration that the timed benchmarks make."""
    sizes, shares = cold_curve(rounds.timed, tuple(SMALL_ROUNDS))
    return Calibration(
        kernels=fit_kernels(rounds.timed),
        operator_bytes=sizes,
        cold_share=shares,
        page_fault_s=page_fault_s,
        threads=threads,
        spread=round(rounds.spread, 4),
    )


def _provisional(facts: CpuFacts) -> HardwareProfile:
    """What lowering to kernels must know of a CPU: that it is one, and has fp32 vectors."""
    tables: Tables = {
        **_head("provisional", facts),
        "vector.fp32": {"peak": "1 GFLOP/s"},
        "memory.dram": {"type": "DRAM", "bandwidth": "1 GB/s"},
    }
    text = toml_text(tables, source="the system", heading="while measuring")
    return profile_from(parse_toml(text), Path("provisional.toml"))


# -- as TOML ---------------------------------------------------------------------------------------


def profile_text(
    name: str,
    facts: CpuFacts,
    roofs: Roofs,
    rounds: Rounds,
    calibration: Calibration,
    *,
    command: str,
    version: str,
    date: str = "",
) -> str:
    """The profile as TOML: an ordinary hardware file, every figure measured, with command, versions and date."""
    day = date or datetime.date.today().isoformat()
    source = f"{command} (costmodel {version}, torch {torch.__version__}, {platform.system()}, {day})"
    tables = {
        **_head(name, facts),
        **_peaks(roofs, calibration),
        **_memory(facts, roofs),
        "calibration": _common(rounds, roofs, calibration),
        **{f"calibration.{kind}": _kind(times) for kind, times in sorted(calibration.kernels.items())},
    }
    return toml_text(tables, source=source, heading=f"{facts.title}, as measured by `{command}` on {day}.")


def _head(name: str, facts: CpuFacts) -> Tables:
    top = {"name": name, "title": facts.title, "vendor": facts.vendor, "kind": "cpu", "aliases": []}
    units = {"count": facts.cores, "simd": facts.simd, "clock": f"{facts.clock_hz / 1e9:.4g} GHz"}
    return {"": top, "units": units}


def _peaks(roofs: Roofs, calibration: Calibration) -> Tables:
    """Measured rates; that of fp32 is the fastest of any product or convolution, so that no share of it exceeds 1."""
    dense = ("linear", "conv_1x1", "conv_kxk")
    fitted_rates = [times.flop_per_s or 0.0 for kind, times in calibration.kernels.items() if kind in dense]
    fastest = max([roofs.flop_per_s["fp32"], *fitted_rates])
    rates = {**roofs.flop_per_s, "fp32": fastest}
    return {f"vector.{dtype}": {"peak": f"{rate / 1e9:.4g} GFLOP/s"} for dtype, rate in rates.items()}


def _memory(facts: CpuFacts, roofs: Roofs) -> Tables:
    dram: dict[str, Any] = {"type": "DRAM", "bandwidth": f"{roofs.bytes_per_s['dram'] / 1e9:.4g} GB/s"}
    if facts.dram_bytes:
        dram["capacity"] = f"{facts.dram_bytes / 1e9:.4g} GB"
    tables: Tables = {"memory.dram": {**dram, "achievable": 1.0}}
    for level, (size, own) in sorted(facts.cache_bytes.items(), reverse=True):
        table: dict[str, Any] = {"capacity": f"{size / 1024:g} KiB", "per_unit": own}
        if level in roofs.bytes_per_s:
            table["measured_bandwidth"] = f"{roofs.bytes_per_s[level] / 1e9:.4g} GB/s"
        tables[f"memory.{level}"] = table
    return tables


def _common(rounds: Rounds, roofs: Roofs, calibration: Calibration) -> dict[str, Any]:
    return {
        "threads": calibration.threads,
        "single_thread_peak": f"{roofs.single_thread_flop_per_s / 1e9:.4g} GFLOP/s",
        "operator_bytes": [f"{nbytes / 1e3:.4g} kB" for nbytes in calibration.operator_bytes],
        "cold_share": [round(share, 3) for share in calibration.cold_share],
        "page_fault": microseconds(calibration.page_fault_s),
        "samples": rounds.samples,
        "spread": calibration.spread,
        "drift": round(rounds.drift, 4),
        "disturbed": round(rounds.disturbed, 4),
        "steal": round(rounds.steal, 4),
    }


def _kind(times: KernelTime) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if times.cold_s:
        table |= {"hot": microseconds(times.hot_s), "cold": microseconds(times.cold_s)}
    if times.flop_per_s:
        table["rate"] = f"{times.flop_per_s / 1e9:.4g} GFLOP/s"
    for key, rate in (("activations", times.activation_bytes_per_s), ("weights", times.weight_bytes_per_s)):
        if rate:
            table[key] = f"{rate / 1e9:.4g} GB/s"
    if times.matrix_s:
        table["matrix"] = microseconds(times.matrix_s)
    if times.elements:
        table |= {"elements": list(times.elements), "time": [microseconds(t) for t in times.time_s]}
    return table
