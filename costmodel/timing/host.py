"""Host time: what the CPU needs to issue an operator in eager mode, before any kernel of it can start."""

from __future__ import annotations

from itertools import accumulate

from costmodel.formulas import is_free, lookup
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import KernelPlan

__all__ = ["HOST_WEIGHTS", "host_weight", "issue_times"]

#: Host time of an operator over ``Overheads.dispatch_s`` (5 µs) [1], by the sheet of its formula. Set from the
#: dispatch floors of single eager calls between CUDA events on an A100 (NeuSight): 24 µs element-wise, 30 bmm, 52
#: linear, 59 convolution, of which about 12 µs are the events and the kernel itself.
HOST_WEIGHTS = {
    "views": 0.6,
    "pointwise": 2.4,
    "movement": 2.4,
    "reduction": 3.0,
    "pooling": 3.0,
    "resampling": 3.0,
    "normalization": 4.0,
    "einsum": 6.0,
    "attention": 5.0,
    "contraction": 5.0,
    "convolution": 7.0,
    "recurrent": 12.0,
}
_ELSEWHERE = 3.0


def host_weight(op: str) -> float:
    """Host time of one call of ``op`` from Python, modules included, over ``Overheads.dispatch_s`` [1]."""
    if is_free(op):
        return HOST_WEIGHTS["views"]
    formula = lookup(op)
    sheet = "" if formula is None else formula.__module__.rpartition(".")[2]
    return HOST_WEIGHTS.get(sheet, _ELSEWHERE)


def issue_times(plan: KernelPlan, graph: OpGraph, hardware: HardwareProfile) -> list[float]:
    """When the host has issued each launch, in seconds since the step began.

    Python issues operator by operator, generated code kernel by kernel.
    """
    dispatch = hardware.overheads.dispatch_s
    if plan.compiled:
        return [(i + 1) * dispatch for i in range(len(plan.launches))]
    weights: list[float] | None = graph.memo.get("host weights")
    if weights is None:
        weights = graph.memo["host weights"] = list(accumulate(host_weight(node.op) for node in graph.nodes))
    return [weights[launch.nodes[-1]] * dispatch for launch in plan.launches]
