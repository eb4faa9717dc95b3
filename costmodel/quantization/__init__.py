"""Quantization: a traced model with its weights stored in fewer bits, derived without torch."""

from __future__ import annotations

from costmodel.quantization.pack import scheme_of, with_packed_weights

__all__ = ["scheme_of", "with_packed_weights"]
