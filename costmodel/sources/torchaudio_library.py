"""torchaudio beside a torch that its compiled library does not fit.

As torchvision's (:mod:`costmodel.sources.torchvision_ops`), torchaudio's wheel is compiled against one build of torch;
beside another, ``import torchaudio`` raises OSError, and with it transformers, which imports torchaudio where it is
installed. Its models are plain Python: where the library does not load, torchaudio is told that it was built without.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["make_torchaudio_importable"]

_EXTENSION = "torchaudio._extension"


@lru_cache(maxsize=1)
def make_torchaudio_importable() -> bool:
    """Make ``import torchaudio`` work; True where a stand-in for its compiled part had to be put in place.

    Does nothing where torchaudio is missing, imported already or fits.
    """
    if "torchaudio" in sys.modules or _compiled_library_loads():
        return False
    extension: Any = ModuleType(_EXTENSION)
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension.fail_if_no_align = _refusing
    sys.modules[_EXTENSION] = extension
    return True


def _compiled_library_loads() -> bool:
    spec = find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return True  # nothing to mend
    import torch

    try:
        for path in (Path(spec.origin).parent / "lib").glob("_torchaudio*"):
            torch.ops.load_library(path)
    except OSError:
        return False
    return True


def _refusing(function: Any) -> Any:
    """In place of a function that needs the compiled library."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"torchaudio's {function.__name__} needs its compiled library, which does not load here")

    return refuse
