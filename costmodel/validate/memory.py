"""Rows of measured memory: ``model,device,phase,dtype,layout,mode,torch,batch,image_size,memory_mb,memory_kind``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from costmodel.analysis import Analysis
from costmodel.memory import Footprint
from costmodel.validate.cells import Flags, RowError, number
from costmodel.validate.model_csv import model_row
from costmodel.validate.rows import MemoryRow
from costmodel.validate.statistics import Score, score

__all__ = ["KINDS", "JudgedMemory", "MemoryGroup", "judge_memory", "memory_groups", "memory_row"]

_MIB = 2**20

#: What may have been measured -> B of a step's footprint that it is held against.
KINDS: Mapping[str, Callable[[Footprint], int]] = {
    "nvidia_smi_peak_mib": lambda memory: memory.process_bytes,
    "max_memory_reserved_mib": lambda memory: memory.reserved_bytes,
    "max_memory_allocated_mib": lambda memory: memory.allocated_bytes,
}


def memory_row(record: Mapping[str, str], file: str, line: int, flags: Flags) -> MemoryRow:
    """One row. Raises RowError when it cannot be used."""
    kind = (record.get("memory_kind") or "").strip()
    if kind not in KINDS:
        raise RowError(f"memory_kind {kind or 'is empty'}; known: {', '.join(KINDS)}")
    measured = number(record, "memory_mb")
    if measured <= 0:
        raise RowError("memory_mb is not above 0")
    row = model_row({**record, "latency_ms": "1"}, file, line, flags)  # a row of memory says nothing of time
    shared = {name: getattr(row, name) for name in row.__dataclass_fields__}
    return MemoryRow(**{**shared, "latency_s": 0.0}, memory_bytes=measured * _MIB, kind=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedMemory:
    """One row with what was predicted for it, in B."""

    row: MemoryRow
    predicted_bytes: int
    low_bytes: float
    high_bytes: float
    verdict: str

    @property
    def error(self) -> float:
        """pred/measured - 1."""
        return self.predicted_bytes / self.row.memory_bytes - 1

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.low_bytes <= self.row.memory_bytes <= self.high_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGroup:
    """Rows of one device, dtype, layout, mode, phase and kind of figure, and their score."""

    keys: Mapping[str, str]
    score: Score
    interval_coverage: float


def judge_memory(row: MemoryRow, analysis: Analysis) -> JudgedMemory:
    """Hold the predicted memory of a step against its row; the interval is that of the process, less what the row's
    kind of figure does not hold."""
    memory = analysis.memory
    predicted, need = KINDS[row.kind](memory), memory.verdict.need
    without = memory.process_bytes - predicted
    return JudgedMemory(
        row=row,
        predicted_bytes=predicted,
        low_bytes=min(predicted, need.low - without),
        high_bytes=max(predicted, need.high - without),
        verdict=memory.verdict.word,
    )


def memory_groups(judged: Iterable[JudgedMemory]) -> list[MemoryGroup]:
    """A group for each (device, dtype, layout, mode, phase, kind)."""
    names = ("device", "dtype", "layout", "mode", "phase", "memory_kind")
    groups: dict[tuple[str, ...], list[JudgedMemory]] = {}
    for item in judged:
        groups.setdefault((*item.row.group, item.row.kind), []).append(item)
    return [_group(dict(zip(names, key, strict=True)), rows) for key, rows in sorted(groups.items())]


def _group(keys: Mapping[str, str], rows: Sequence[JudgedMemory]) -> MemoryGroup:
    return MemoryGroup(
        keys=keys,
        score=score([row.predicted_bytes for row in rows], [row.row.memory_bytes for row in rows]),
        interval_coverage=sum(row.is_covered for row in rows) / len(rows),
    )
