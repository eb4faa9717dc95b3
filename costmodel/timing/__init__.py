"""How long kernels take on a machine."""

from __future__ import annotations

from costmodel.timing.roofline import Estimate, estimate_kernel

__all__ = ["Estimate", "estimate_kernel"]
