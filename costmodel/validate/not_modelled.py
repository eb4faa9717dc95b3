"""What no prediction accounts for yet: the one list that reports show."""

from __future__ import annotations

__all__ = ["NOT_MODELLED"]

#: (what, what that means for a prediction).
NOT_MODELLED: tuple[tuple[str, str], ...] = (
    ("training steps", "backward passes and optimizers; measured rows with phase=train are counted as not judged"),
    ("several devices", "data, tensor or pipeline parallelism and what their communication costs"),
    ("data-dependent routing", "mixtures of experts run as if every token gathered its own experts' weights"),
    ("kernels fused by hand", "other than attention: apex, xformers, TensorRT and other engines"),
    ("quantized arithmetic", "int8 and fp8 matrix products, packed weights"),
    ("power and temperature", "clocks that fall under load, but for the sustained clock of a profile"),
    ("loading of data", "inputs are on the device before the step begins"),
)
