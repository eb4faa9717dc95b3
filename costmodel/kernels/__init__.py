"""What the machine runs: from operators to kernels, under given conditions."""

from __future__ import annotations

from costmodel.kernels import attention as _attention  # noqa: F401  (registers its rules)
from costmodel.kernels.lowering import eager_plan, run_costs
from costmodel.kernels.plan import Kernel, KernelPlan, Launch
from costmodel.kernels.quantized import quantization, quantized_product

__all__ = ["Kernel", "KernelPlan", "Launch", "eager_plan", "quantization", "quantized_product", "run_costs"]
