"""What simpler models say of the same rows: the yardsticks that predictions are held against.

``flops``     FLOPs times one scale, fitted to the rows of each setting (the best that FLOPs alone can do)
``roofline``  every operator at the datasheet's roofs: sum of max(FLOP / peak, B / bandwidth)
``roofs_85``  every operator at 85 % of both roofs, and 3 µs for each kernel

Both rooflines take the operators as written, in the dtype of the run: no casts, no copies, no fusion. They read a
graph's costs and a datasheet, nothing of the time model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from costmodel.analysis import Analysis
from costmodel.execution import Execution
from costmodel.hardware import HardwareProfile

__all__ = ["BASELINES", "Baselines", "baselines_of"]

#: Key -> what a page calls it.
BASELINES = {
    "flops": "FLOPs × one fitted scale",
    "roofline": "datasheet roofline per operator",
    "roofs_85": "85 % of the roofs + 3 µs per kernel",
}

_SHARE = 0.85
_PER_KERNEL_S = 3e-6


@dataclass(frozen=True, slots=True)
class Baselines:
    """FLOP of a step (the scale is fitted later, over a group), and the times of both rooflines in seconds."""

    flops: float
    roofline_s: float
    roofs_85_s: float


def baselines_of(analysis: Analysis) -> Baselines:
    """Baselines of one step. Raises ProfileError when the machine has no peak at all for an operator's dtype."""
    flops = roofline = roofs_85 = 0.0
    for compute, memory, launches, work in _operators(analysis):
        flops += work
        roofline += max(compute, memory)
        roofs_85 += max(compute, memory) / _SHARE + launches * _PER_KERNEL_S
    return Baselines(flops, roofline, roofs_85)


def _operators(analysis: Analysis) -> Iterator[tuple[float, float, float, float]]:
    """For every distinct call: compute and memory time at the roofs, kernels and FLOP, each times its nodes."""
    costs, hardware, execution = analysis.node_costs, analysis.hardware, analysis.execution
    narrow = execution.precision.bits / 32
    vector = hardware.peak("vector", "fp32").flop_per_s
    for call, cost, count in zip(costs.graph.calls, costs.of_call, costs.graph.call_counts, strict=True):
        matrix = float(cost.matrix_flops)
        compute = float(cost.vector_flops) / vector
        if matrix:
            compute += matrix / _contraction_peak(hardware, execution, "conv" in call.op)
        memory = narrow * float(cost.bytes) / hardware.dram_bytes_per_s
        yield count * compute, count * memory, count * float(cost.launches), count * float(cost.flops)


def _contraction_peak(hardware: HardwareProfile, execution: Execution, is_convolution: bool) -> float:
    """FLOP/s of the fastest engine for the run's dtype; fp32 convolutions take TF32 where there is one."""
    dtype = execution.precision.operands
    if dtype == "fp32" and is_convolution:
        dtype = "tf32"
    for engine, word in (("matrix", dtype), ("vector", dtype), ("matrix", "fp32"), ("vector", "fp32")):
        if (peak := hardware.find_peak(engine, word)) is not None:
            return peak.flop_per_s
    return hardware.peak("vector", "fp32").flop_per_s
