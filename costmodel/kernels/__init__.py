"""What the machine runs: from operators to kernels, under given conditions."""

from __future__ import annotations

from costmodel.kernels.lowering import eager_plan, run_costs
from costmodel.kernels.plan import Kernel, KernelPlan, Launch

__all__ = ["Kernel", "KernelPlan", "Launch", "eager_plan", "run_costs"]
