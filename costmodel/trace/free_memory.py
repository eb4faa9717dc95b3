"""How much memory a process may still take on this machine."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["free_memory_bytes"]

#: Where Linux says how much a group of processes may take, and takes: cgroup v2, then v1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory_bytes() -> int | None:
    """Memory that can be taken without swapping, in B: the least that machine and container leave; None if unknown."""
    left = [size for size in (_machine(), *(_group(*files) for files in _GROUPS)) if size is not None]
    return min(left, default=None)


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _group(limit: str, usage: str) -> int | None:
    try:
        most, taken = int(Path(limit).read_text()), int(Path(usage).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return most - taken if most < 1 << 60 else None
