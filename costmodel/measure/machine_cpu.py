"""What the system says of its CPU: its name, cores, vector instructions and caches."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CpuFacts", "busy_jiffies", "cpu_facts"]

_SIMD = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON"), ("neon", "NEON"), ("sse4_2", "SSE4.2"))
#: fp32 FLOP a clock of one core with two pipes of fused multiply-add of this width.
FLOP_PER_CLOCK = {"AVX-512": 64, "AVX2": 32, "NEON": 16, "SSE4.2": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFacts:
    """A CPU as Linux describes it; unknown sizes are None."""

    title: str
    vendor: str
    cores: int
    simd: str
    clock_hz: float
    cache_bytes: dict[str, tuple[int, bool]]  # l1, l2, l3 -> (capacity, whether each core has its own)
    dram_bytes: int | None


def cpu_facts(root: Path = Path("/")) -> CpuFacts:
    """The CPU of this machine; ``root`` is where ``proc`` and ``sys`` lie."""
    info = _cpuinfo(root)
    flags = set(info.get("flags", info.get("features", "")).split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    vendor = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(info.get("vendor_id", ""), "unknown")
    return CpuFacts(
        title=info.get("model name") or platform.processor() or platform.machine(),
        vendor=vendor,
        cores=cores,
        simd=next((name for flag, name in _SIMD if flag in flags), "scalar"),
        clock_hz=float(info.get("cpu mhz", "0") or 0) * 1e6 or 1e9,
        cache_bytes=_caches(root, cores),
        dram_bytes=_memory(root),
    )


def _cpuinfo(root: Path) -> dict[str, str]:
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {
        key.strip().lower() if key.strip() != "model name" else "model name": value.strip() for key, _, value in pairs
    }


def _caches(root: Path, cores: int) -> dict[str, tuple[int, bool]]:
    """Data and unified caches of the first core."""
    from costmodel.measure.latency import _bytes_of

    found = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
            shared = (folder / "shared_cpu_list").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction":
            found[f"l{level}"] = (_bytes_of(size), cores > 1 and re.fullmatch(r"\d+", shared) is not None)
    return {name: cache for name, cache in found.items() if name in ("l1", "l2", "l3")}


def _memory(root: Path) -> int | None:
    try:
        match = re.search(r"MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def busy_jiffies(root: Path = Path("/")) -> tuple[int, int]:
    """(stolen, all) jiffies of all cores since the start: what the host took away, and what there was. 0 if unknown."""
    try:
        numbers = [int(word) for word in (root / "proc/stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return 0, 0
    return (numbers[7] if len(numbers) > 7 else 0), sum(numbers[:8])
