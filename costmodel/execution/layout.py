"""Memory formats of images and weights. The layout is part of the trace: strides follow from it."""

from __future__ import annotations

from costmodel.execution.words import spellings

__all__ = ["LAYOUTS", "SPELLINGS"]

LAYOUTS = ("nchw", "nhwc")

#: Spellings in measured files -> ours.
SPELLINGS = spellings(LAYOUTS, {"channels_last": "nhwc", "contiguous": "nchw"})
