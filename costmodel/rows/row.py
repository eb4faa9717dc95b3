"""Row and Totals: the quantities of one line of a table, and of the whole step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from costmodel.errors import InputError, librarian
from costmodel.memory import Footprint
from costmodel.rows.quantities import QUANTITIES, Quantities
from costmodel.tensor import TensorSpec

__all__ = ["ModelInfo", "Row", "Totals", "grouped", "rows_by"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was analyzed: its name, where it came from, its inputs and what should be known about them."""

    name: str
    source: str
    inputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals(Quantities):
    """Sums over one step, and what does not add up over operators.

    ``param_bytes``        the parameters in the dtype of the run, B
    ``peak_memory_bytes``  the most that the device's allocator has handed out at once, weights and all, B
    ``memory``             the footprint with what it has to say beyond that
    ``latency_low_s``, ``latency_high_s``   the interval around ``latency_s``
    ``power_w``, ``power_low_w``, ``power_high_w``   average power over the step, W; None where it is not modelled
    ``energy_low_j``, ``energy_high_j``     the interval around ``energy_j``; None where it is not modelled
    """

    param_bytes: int
    peak_memory_bytes: int
    latency_low_s: float
    latency_high_s: float
    power_w: float | None = None
    power_low_w: float | None = None
    power_high_w: float | None = None
    energy_low_j: float | None = None
    energy_high_j: float | None = None
    memory: Footprint = field(repr=False, compare=False)

    @property
    def reserved_memory_bytes(self) -> int:
        """What the allocator holds of the device to hand that out, in a steady state, B."""
        return self.memory.reserved_bytes

    @property
    def process_memory_bytes(self) -> int:
        """What the process takes of the device, context and libraries included, B."""
        return self.memory.process_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the step fits the machine; None where the memory of the machine is not known."""
        return self.memory.fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Quantities):
    """One line of a table: an operator, or several of the same module or type added up.

    ``share`` is its part of the step's time [1]; ``phase`` the part of a step that it belongs to, empty where a row
    adds up several; ``forward`` the operator whose gradient a backward operator computes.
    """

    name: str
    op: str
    module: str
    count: int = 1
    share: float
    bound: str
    algorithm: str
    inputs: str = ""
    outputs: str = ""
    phase: str = "forward"
    forward: str = ""

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity in FLOP/B, or None where nothing is moved."""
        moved = self.bytes_read + self.bytes_written
        return self.flops / moved if moved else None


def rows_by(rows: Sequence[Row], by: str, maps: Callable[[], Mapping[str, str]]) -> list[Row]:
    """Rows of operators, added up by ``module``, operator ``type``, ``stage`` or ``phase``; ``op``: as they are.
    ``maps`` gives for each operator's name the size of the maps that it puts out, "" for none.

    Raises InputError for another ``by``.
    """
    if by == "op":
        return list(rows)
    sizes = maps() if by == "stage" else {}
    keys: dict[str, Callable[[Row], str]] = {
        "module": lambda row: row.module or "(model)",
        "type": lambda row: row.op,
        "stage": lambda row: sizes[row.name] or "(no maps)",
        "phase": lambda row: row.phase,
    }
    if by not in keys:
        raise InputError(librarian(f"rows cannot be grouped by {by!r}", there_is=("op", *keys)))
    return grouped(rows, keys[by])


def grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> list[Row]:
    """One row for each value of ``key``, in order of first appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [_added(name, members) for name, members in groups.items()]


def _added(name: str, rows: Sequence[Row]) -> Row:
    """One row for several: sums, with the op, bound and algorithm of the one that takes longest."""
    longest = max(rows, key=lambda row: row.latency_s)
    sums = {key: sum(getattr(row, key) for row in rows) for key in (*(q.key for q in QUANTITIES), "share")}
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
