"""What the system says of its CPU: its name, cores, vector instructions and caches."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Busy", "CpuFacts", "busy_seconds", "cpu_facts"]

_SIMD = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON"), ("neon", "NEON"), ("sse4_2", "SSE4.2"))
#: What rounding to ticks can make of nothing [s].
_TICKS_S = 0.03
_JIFFIES_PER_S = 100.0  # Linux states them in hundredths of a second to programs, whatever the kernel's own tick


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


@dataclass(frozen=True, slots=True)
class Busy:
    """CPU seconds of all cores until now: stolen by the host, used by all processes, used by this one, and all."""

    stolen: float
    used: float
    own: float
    there: float

    def others_until(self, later: Busy) -> float:
        """Share of all cores that other processes used in between; 0 where the system does not tell."""
        others = (later.used - self.used) - (later.own - self.own) - _TICKS_S
        return max(others, 0.0) / (later.there - self.there) if later.there > self.there else 0.0

    def stolen_until(self, later: Busy) -> float:
        """Share of all cores that the host took away in between."""
        return (later.stolen - self.stolen) / (later.there - self.there) if later.there > self.there else 0.0


def busy_seconds(root: Path = Path("/")) -> Busy:
    """What the cores did until now; zeros where there is no ``proc/stat``."""
    own = time.process_time()
    try:
        words = (root / "proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
        jiffies = [int(word) / _JIFFIES_PER_S for word in words]
    except (OSError, ValueError, IndexError):
        return Busy(0.0, 0.0, own, 0.0)
    user, nice, system, _, _, interrupts, soft, stolen = (*jiffies, *[0.0] * 8)[:8]
    return Busy(stolen, user + nice + system + interrupts + soft, own, sum(jiffies[:8]))
