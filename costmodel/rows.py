"""What an analysis is made of for its readers: the model, totals, and rows that add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from costmodel.tensor import TensorSpec

__all__ = ["ModelInfo", "Row", "Totals", "grouped"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was analyzed: its name, where it came from, its inputs and what should be known about them."""

    name: str
    source: str
    inputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over one step. FLOP, elements, B and s.

    ``param_bytes`` are the parameters in the dtype of the run. ``bytes_read`` and ``bytes_written`` are compulsory,
    ``traffic_bytes`` what the kernels move; ``peak_memory_bytes`` is weights and the most activations alive at once.
    """

    flops: int
    matrix_flops: int
    vector_flops: int
    macs: int
    params: int
    param_bytes: int
    bytes_read: int
    bytes_written: int
    traffic_bytes: int
    activations: int
    workspace_bytes: int
    peak_memory_bytes: int
    latency_s: float
    latency_low_s: float
    latency_high_s: float
    kernels: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: an operator, or several of the same module or type added up."""

    name: str
    op: str
    module: str
    count: int
    flops: int
    matrix_flops: int
    vector_flops: int
    macs: int
    params: int
    bytes_read: int
    bytes_written: int
    traffic_bytes: int
    activations: int
    workspace_bytes: int
    latency_s: float
    share: float
    bound: str
    algorithm: str
    kernels: int
    inputs: str = ""
    outputs: str = ""
    phase: str = "forward"
    """The part of a step that the operator belongs to; empty where a row adds up several."""
    activation_bytes: int = 0
    """Activation memory after each layer: fp32 results of contractions and pooling; the rest works in place on them."""

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity in FLOP/B, or None where nothing is moved."""
        moved = self.bytes_read + self.bytes_written
        return self.flops / moved if moved else None


def grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> list[Row]:
    """One row for each value of ``key``, in order of first appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [_added(name, members) for name, members in groups.items()]


_SUMMED = (
    "flops matrix_flops vector_flops macs params bytes_read bytes_written traffic_bytes activations workspace_bytes"
    " latency_s share kernels activation_bytes"
).split()


def _added(name: str, rows: Sequence[Row]) -> Row:
    """One row for several: sums, with the op, bound and algorithm of the one that takes longest."""
    longest = max(rows, key=lambda row: row.latency_s)
    sums = {field: sum(getattr(row, field) for row in rows) for field in _SUMMED}
    modules, phases = {row.module for row in rows}, {row.phase for row in rows}
    return replace(
        longest,
        name=name,
        count=len(rows),
        module=modules.pop() if len(modules) == 1 else "",
        phase=phases.pop() if len(phases) == 1 else "",
        inputs="",
        outputs="",
        **sums,
    )
