"""A prediction beside its measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from costmodel.analysis import Analysis
from costmodel.errors import CostmodelError
from costmodel.hardware import HardwareProfile
from costmodel.host import INSTANT
from costmodel.kernels import Kernel
from costmodel.validate.attention import OPS as ATTENTION
from costmodel.validate.attention import attention_plan
from costmodel.validate.baselines import baselines_of
from costmodel.validate.conditions import execution_of
from costmodel.validate.fitted_hosts import HostCurve
from costmodel.validate.host_time import call_time
from costmodel.validate.operators import operator_graph
from costmodel.validate.quantized import DTYPES as QUANTIZED
from costmodel.validate.quantized import quantized_plan
from costmodel.validate.replay import replayed
from costmodel.validate.rows import MeasuredRow, ModelRow, OperatorRow

__all__ = ["Judged", "in_arithmetic_of", "judge", "judge_operator", "operator_roofline_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One row with what was predicted for it; times in seconds.

    ``owner`` is the class of kernels that takes the largest share of the predicted time: where an error of the whole
    most likely comes from. ``time_shares`` are those of all classes, ``uncosted_share`` that of operators without a
    formula. ``waiting_share`` is the share during which the device is predicted to wait for its host, None where the
    host itself computes and for operators. ``curve`` is the step under every host, where one is to be fitted.
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
    waiting_share: float | None = None
    curve: HostCurve | None = None

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


def in_arithmetic_of(row: OperatorRow, hardware: HardwareProfile) -> HardwareProfile:
    """The machine whose fp32 is fp32, since an operator's row names the arithmetic that it ran in."""
    peaks = {key: peak for key, peak in hardware.peaks.items() if row.dtype != "fp32" or key[:2] != ("matrix", "tf32")}
    return replace(hardware, peaks=peaks)


def judge(row: MeasuredRow, analysis: Analysis) -> Judged:
    """Hold the prediction for a step against its row."""
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
        waiting_share=_waiting_share(analysis) if isinstance(row, ModelRow) else None,
    )


def judge_operator(row: OperatorRow, hardware: HardwareProfile) -> Judged:
    """Hold the prediction of one operator against its row, both as the row's way of timing shows them."""
    found = judge(row, operator_analysis(row, hardware))
    times = ("predicted_s", "low_s", "high_s", "roofline_s", "roofs_85_s")
    shown: dict[str, Any] = {name: call_time(row, getattr(found, name)) for name in times}
    return replace(found, **shown)


def operator_analysis(row: OperatorRow, hardware: HardwareProfile) -> Analysis:
    """The analysis of a row's operator, timed as the row was: replayed back to back, or alone between pauses."""
    analysis = _operator_analysis(row, hardware)
    plan = analysis.plan
    if row.dtype in QUANTIZED:
        plan = quantized_plan(plan, row, analysis.hardware)
    if row.op in ATTENTION:
        plan = attention_plan(plan, row, analysis.hardware)
    if row.timing == "graph_replay" or row.library:
        plan = replayed(plan, analysis.hardware)
    analysis.__dict__["plan"] = replace(plan, kernels=tuple(replace(kernel, alone=True) for kernel in plan.kernels))
    return analysis


def operator_roofline_s(row: OperatorRow, hardware: HardwareProfile) -> float:
    """Time of the row's operator at the datasheet's roofs, in seconds; 0 where its shapes do not fit."""
    try:
        return baselines_of(_operator_analysis(row, hardware)).roofline_s
    except CostmodelError:
        return 0.0


def _operator_analysis(row: OperatorRow, hardware: HardwareProfile) -> Analysis:
    return Analysis(
        name=row.model,
        source="a measured operator",
        record=operator_graph(row),
        hardware=in_arithmetic_of(row, hardware),
        execution=execution_of(row, {}).changed(host=INSTANT.name),
        closed_forms={},
    )


def _time_shares(analysis: Analysis) -> dict[str, float]:
    """Share of the kernels' predicted time by class of kernels."""
    seconds: dict[str, float] = {}
    kernels = analysis.plan.kernels
    for launch, slot in zip(analysis.plan.launches, analysis.timeline, strict=True):
        name = _class(kernels[launch.kernel])
        seconds[name] = seconds.get(name, 0.0) + slot.latency_s
    whole = sum(seconds.values()) or 1.0
    return {name: part / whole for name, part in seconds.items()}


def _waiting_share(analysis: Analysis) -> float | None:
    if not analysis.hardware.family.issues_ahead or not analysis.latency:
        return None
    return sum(slot.waited_s for slot in analysis.timeline) / analysis.latency


def _class(kernel: Kernel) -> str:
    """Operator and algorithm; one of them where the other says nothing more."""
    op = kernel.op.removeprefix("aten.")
    if op == "_to_copy" or op == kernel.algorithm:
        return kernel.algorithm
    return op if kernel.algorithm == "elementwise" else f"{op}, {kernel.algorithm}"
