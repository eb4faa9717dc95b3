"""Lets libraries import beside a build of torch that their compiled parts were not made for, and keeps them quiet."""

from __future__ import annotations

import sys
import types
import warnings
from importlib.util import find_spec
from typing import Any

from costmodel.sources.torchvision_ops import make_importable

__all__ = ["prepare"]


def prepare() -> None:
    """Once a process, before any library is imported."""
    warnings.simplefilter("ignore")
    make_importable()
    if find_spec("torchaudio") is not None:
        _torchaudio_without_its_library()


def _torchaudio_without_its_library() -> None:
    """Its models are plain Python; where its compiled library does not load,
    it goes on as a build without one does."""
    try:
        import torchaudio  # noqa: F401
    except OSError:
        for name in [n for n in sys.modules if n.startswith("torchaudio")]:
            del sys.modules[name]
        stand_in: Any = types.ModuleType("torchaudio._extension")
        stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False
        stand_in.fail_if_no_align = lambda function: function
        sys.modules[stand_in.__name__] = stand_in
