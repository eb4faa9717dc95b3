"""Which generation and kind of board a hardware file describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.devices import Generation, find_generation, generation, unknown_generation
from costmodel.units import parse_quantity

__all__ = ["board_of", "cuda_identity", "cuda_memory", "generation_of"]

Raw = Mapping[str, Any]


def generation_of(raw: Raw) -> Generation:
    """The generation that a file names, else that of its compute capability, else one that stands in for it.

    Raises :class:`ProfileError` for a name that no generation has.
    """
    if "generation" in raw:
        return generation(raw["generation"])
    found = find_generation(raw["compute_capability"]) if "compute_capability" in raw else None
    return found or unknown_generation(raw["kind"], raw["vendor"], _flop_per_clock(raw))


def _flop_per_clock(raw: Raw) -> int:
    """fp32 FLOP a clock of one unit; 0 where the file does not say."""
    units, peak = raw.get("units", {}), raw.get("vector", {}).get("fp32", {}).get("peak")
    if peak is None:
        return 0
    clock_hz: float = parse_quantity(units["clock"], "Hz")
    flop_per_s: float = parse_quantity(peak, "FLOP/s")
    return round(flop_per_s / int(units["count"]) / clock_hz)


def board_of(raw: Raw) -> str:
    """Whom the board is sold to, as the file says or as its title tells; empty where neither does."""
    return str(raw.get("board", "geforce" if "geforce" in raw["title"].lower() else ""))


def cuda_identity(title: str, major: int, minor: int) -> dict[str, str]:
    """What a hardware file says about a GPU that CUDA reports with this title and compute capability.

    >>> cuda_identity("NVIDIA GeForce RTX 4090", 8, 9)
    {'compute_capability': '8.9', 'generation': 'ada', 'board': 'geforce'}
    """
    capability = f"{major}.{minor}"
    found = {"compute_capability": capability}
    if (of := find_generation(capability)) is not None:
        found["generation"] = of.name
    if board := board_of({"title": title}):
        found["board"] = board
    return found


def cuda_memory(major: int, minor: int) -> str:
    """The technology of the memory beside a GPU of this compute capability, which CUDA does not report.

    >>> cuda_memory(8, 0), cuda_memory(8, 6), cuda_memory(99, 9)
    ('HBM', 'GDDR', 'unknown')
    """
    of = find_generation(f"{major}.{minor}")
    return "unknown" if of is None else of.dram
