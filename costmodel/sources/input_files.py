"""Inputs from files: tensors that torch saved, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, librarian

if TYPE_CHECKING:
    import torch

__all__ = ["read_inputs"]

_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
_TENSORS = frozenset({".pt", ".pth"})


def read_inputs(path: str, sizes: Mapping[str, int] | None = None) -> Any:
    """What a file holds, as :func:`~costmodel.sources.own_module.from_module` takes it.

    ``.pt``: a tensor, a tuple of arguments or a dict of keyword arguments, written by ``torch.save``; only tensors and
    plain containers are read, no code runs. A picture becomes one float32 tensor (1, 3, height, width) of values
    between 0 and 1, resized where ``sizes`` [pixels] say so.

    Raises InputError for a file that is not there, or of another kind.
    """
    file = Path(path).expanduser()
    kind = file.suffix.lower()
    if kind not in _PICTURES | _TENSORS:
        there = ", ".join(sorted(_TENSORS)) + " (torch.save), " + ", ".join(sorted(_PICTURES))
        raise InputError(librarian(f"{path} is no kind of file that inputs are read from", there_is=there))
    if not file.is_file():
        raise InputError(f"there is no file {path}")
    return _saved(file) if kind in _TENSORS else _picture(file, sizes or {})


def _saved(file: Path) -> Any:
    import torch

    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{file} holds no inputs that can be read: {str(error).strip().splitlines()[0]}\n"
            "  write it with torch.save: a tensor, a tuple of tensors, or a dict of keyword arguments"
        ) from error
    return value if isinstance(value, (dict, tuple)) else tuple(value) if isinstance(value, list) else (value,)


def _picture(file: Path, sizes: Mapping[str, int]) -> torch.Tensor:
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{file} is no picture that can be read: {error}") from error
    if "height" in sizes:
        picture = picture.resize((sizes["width"], sizes["height"]))
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
    return pixels.permute(2, 0, 1).unsqueeze(0).contiguous()
