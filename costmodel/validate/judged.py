"""A prediction beside its measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from costmodel.analysis import Analysis
from costmodel.hardware import HardwareProfile
from costmodel.kernels import Execution
from costmodel.validate.baselines import baselines_of
from costmodel.validate.host_time import call_time
from costmodel.validate.operators import operator_graph
from costmodel.validate.rows import MeasuredRow, ModelRow, OperatorRow

__all__ = ["ASSUMED", "Judged", "execution_of", "judge", "judge_operator", "kernel_time_only"]

#: Conditions that rows of whole models are taken to have been measured under, unless a column of theirs says other:
#: whoever publishes timings of convolutional networks lets cuDNN choose, as timm's script does.
ASSUMED: Mapping[str, Any] = {"cudnn_benchmark": True}

#: Columns that are called otherwise in :class:`~costmodel.kernels.Execution`.
_FIELD_OF = {"torch": "torch_version"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One row with what was predicted for it; times in seconds.

    ``owner`` is the class of kernels that takes the largest share of the predicted time: where an error of the whole
    most likely comes from. ``time_shares`` are those of all classes, ``uncosted_share`` that of operators without a
    formula.
    """

    row: MeasuredRow
    predicted_s: float
    low_s: float
    high_s: float
    flops: float
    roofline_s: float
    roofs_85_s: float
    uncosted_share: float = 0.0
    time_shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def measured_s(self) -> float:
        """The measured time."""
        return self.row.latency_s

    @property
    def error(self) -> float:
        """pred/measured - 1."""
        return self.predicted_s / self.measured_s - 1

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds the measured time."""
        return self.low_s <= self.measured_s <= self.high_s

    @property
    def owner(self) -> str:
        """The class of kernels with the largest share of the predicted time."""
        return max(self.time_shares, key=self.time_shares.__getitem__, default="")


def execution_of(row: MeasuredRow, graph_symbols: Mapping[str, Any]) -> Execution:
    """The conditions of a row, as far as Execution has a field for them.

    Raises InputError for a value that it does not take.
    """
    known = {f.name: f for f in fields(Execution)}
    if isinstance(row, OperatorRow):
        return Execution(batch=1, dtype=row.dtype)
    given: dict[str, Any] = {**ASSUMED, **({"torch": row.torch} if row.torch else {}), **row.conditions}
    renamed = {_FIELD_OF.get(name, name): value for name, value in given.items()}
    typed = {name: _typed(value, known[name].default) for name, value in renamed.items() if name in known}
    own = {
        "batch": row.batch,
        "sizes": {name: size for name, size in row.sizes.items() if name in graph_symbols},
        "dtype": row.dtype,
        "layout": row.layout,
        "mode": row.mode,
        "phase": row.phase,
    }
    return Execution(**{**typed, **own})


def _typed(value: Any, default: Any) -> Any:
    """A cell's text as what the field's default is; yes and no as a truth value."""
    if not isinstance(value, str):
        return value
    if isinstance(default, bool) or (default is None and value.lower() in ("true", "false")):
        return value.lower() in ("1", "true", "yes", "on")
    if isinstance(default, (int, float)):
        return type(default)(value)
    return value


def kernel_time_only(row: OperatorRow, hardware: HardwareProfile) -> HardwareProfile:
    """The machine without host time; its fp32 is fp32, since an operator's row names the arithmetic that it ran in."""
    peaks = {key: peak for key, peak in hardware.peaks.items() if row.dtype != "fp32" or key[:2] != ("matrix", "tf32")}
    return replace(hardware, peaks=peaks, overheads=replace(hardware.overheads, dispatch_s=0.0, sync_s=0.0))


def judge(row: ModelRow, analysis: Analysis) -> Judged:
    """Hold the prediction of a whole model against its row."""
    totals, simple = analysis.totals, baselines_of(analysis)
    return Judged(
        row=row,
        predicted_s=analysis.latency,
        low_s=totals.latency_low_s,
        high_s=totals.latency_high_s,
        flops=simple.flops,
        roofline_s=simple.roofline_s,
        roofs_85_s=simple.roofs_85_s,
        uncosted_share=sum(entry.time_share for entry in analysis.coverage.uncosted),
        time_shares=_time_shares(analysis),
    )


def judge_operator(row: OperatorRow, hardware: HardwareProfile) -> Judged:
    """Hold the prediction of one operator against its row, both as the row's way of timing shows them."""
    analysis = Analysis(
        name=row.model,
        source="a measured operator",
        record=operator_graph(row),
        hardware=kernel_time_only(row, hardware),
        execution=execution_of(row, {}),
        closed_forms={},
    )
    found = judge(row, analysis)  # type: ignore[arg-type]
    shown = {f"{name}_s": call_time(row, getattr(found, f"{name}_s")) for name in ("predicted", "low", "high", "roofline", "roofs_85")}
    return replace(found, **shown)


def _time_shares(analysis: Analysis) -> dict[str, float]:
    """Share of the predicted time by class of kernels: operator and algorithm."""
    seconds: dict[str, float] = {}
    for row in analysis.rows(by="op"):
        if row.latency_s:
            op = row.op.removeprefix("aten.")
            name = op if row.algorithm in (op, "elementwise", "") else f"{op}, {row.algorithm}"
            seconds[name] = seconds.get(name, 0.0) + row.latency_s
    whole = sum(seconds.values()) or 1.0
    return {name: part / whole for name, part in seconds.items()}
