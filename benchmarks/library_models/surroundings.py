"""Lets libraries import beside a build of torch that their compiled parts were not made for, and keeps them quiet."""

from __future__ import annotations

import warnings

from costmodel.sources.torchaudio_library import make_torchaudio_importable
from costmodel.sources.torchvision_ops import make_importable

__all__ = ["prepare"]


def prepare() -> None:
    """Once a process, before any library is imported."""
    warnings.simplefilter("ignore")
    make_importable()
    make_torchaudio_importable()
