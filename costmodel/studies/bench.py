"""Bench: the analyses that studies share, each traced once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from costmodel.analysis import Analysis
from costmodel.api import analyze
from costmodel.execution import Phase
from costmodel.explain import Split, findings, split
from costmodel.explain.chains import longest_path
from costmodel.explain.kinds import KINDS, kind_of
from costmodel.explain.rule import Finding
from costmodel.kernels import Kernel
from costmodel.rows import Row

__all__ = [
    "KINDS",
    "Bench",
    "Busy",
    "busy",
    "cause_seconds",
    "critical_path_s",
    "device_seconds",
    "kind_of",
    "rows_by_kind",
]


class Bench:
    """Analyzes networks by name and keeps what it found. ``progress(name)`` hears of every new trace."""

    def __init__(self, *, use_cache: bool = True, progress: Callable[[str], None] | None = None) -> None:
        self._traced: dict[tuple[object, ...], Analysis] = {}
        self._analyses: dict[tuple[object, ...], Analysis] = {}
        self._splits: dict[int, tuple[Analysis, Split]] = {}
        self._use_cache, self._progress = use_cache, progress

    def analysis(
        self, name: str, *, hw: str = "a100", batch: int = 1, dtype: str = "fp32", layout: str = "nchw",
        mode: str = "eager", seq_len: int | None = None, phase: str = "inference", **step: Any,
    ) -> Analysis:  # fmt: skip
        """The network under these conditions, traced when first asked for in this layout; ``step`` are words of a
        training step: ``optimizer``, ``checkpoint``, ..."""
        key = (name, layout, seq_len, phase)
        if key not in self._traced:
            if self._progress:
                self._progress(name)
            self._traced[key] = analyze(
                name,
                hw=hw,
                layout=layout,
                seq_len=seq_len,
                phase=phase,
                use_cache=self._use_cache,
                symbols=("batch", "seq_len", "context") if Phase(phase).generates else ("batch",),
            )
        conditions = (key, hw, batch, dtype, mode, *sorted(step.items()))
        if conditions not in self._analyses:
            self._analyses[conditions] = self._traced[key].at(hw=hw, batch=batch, dtype=dtype, mode=mode, **step)
        return self._analyses[conditions]

    def split(self, analysis: Analysis) -> Split:
        """Why the step takes longer than its FLOPs say; worked out once for an analysis."""
        known = self._splits.get(id(analysis))
        if known is None:
            known = self._splits[id(analysis)] = (analysis, split(analysis))  # kept, so that its id stays its own
        return known[1]

    def findings(self, analysis: Analysis, layout: str | None = None) -> tuple[Finding, ...]:
        """What the rules say; ``layout`` retraces the network where a rule asks for channels_last."""
        execution = analysis.execution

        def channels_last() -> Analysis:
            return self.analysis(
                analysis.name, hw=analysis.hardware.name, batch=execution.batch, dtype=str(execution.precision),
                layout="nhwc", mode=execution.engine,
            )  # fmt: skip

        return findings(analysis, channels_last=channels_last if layout == "nhwc" else None)


class Busy(NamedTuple):
    """One launch on the device: seconds without waiting for the host, its kernel, and the operator that it serves."""

    seconds: float
    kernel: Kernel
    row: Row


def busy(analysis: Analysis, found: Split) -> Iterator[Busy]:
    """Every launch of a step."""
    rows = analysis.rows()
    for position, launch in enumerate(analysis.plan.launches):
        yield Busy(found.device_s(position), analysis.plan.kernels[launch.kernel], rows[launch.nodes[0]])


def device_seconds(analysis: Analysis, found: Split) -> dict[str, float]:
    """Seconds on the device by operator's name."""
    seconds: dict[str, float] = {}
    for launch in busy(analysis, found):
        seconds[launch.row.name] = seconds.get(launch.row.name, 0.0) + launch.seconds
    return seconds


def rows_by_kind(analysis: Analysis) -> dict[str, list[Row]]:
    """Operators by kind, in the order of :data:`KINDS`; views left out."""
    kinds, found = kind_of(analysis), {kind: list[Row]() for kind in KINDS}
    for row in analysis.rows():
        if row.flops or row.bytes_read or row.bytes_written:
            found[kinds[row.name]].append(row)
    return {kind: rows for kind, rows in found.items() if rows}


def cause_seconds(found: Split) -> dict[str, float]:
    """What FLOPs alone say and every cause, by its label, in seconds."""
    return {"FLOPs alone": found.flops_alone_s, **{share.label: share.seconds for share in found.causes}}


def critical_path_s(analysis: Analysis, found: Split) -> float:
    """Seconds on the device of the longest path through the graph, were all else to run beside it."""
    seconds: dict[int, float] = {}
    for position, launch in enumerate(analysis.plan.launches):
        seconds[launch.nodes[0]] = seconds.get(launch.nodes[0], 0.0) + found.device_s(position)
    return longest_path(analysis.bound, seconds)[0]
