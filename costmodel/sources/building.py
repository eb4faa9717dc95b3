"""Building a module without storage and without network, and taking a part of one."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from costmodel.errors import UnknownModelError, librarian, near_matches

if TYPE_CHECKING:
    from torch import nn

__all__ = ["building", "home", "offline", "part_of", "quiet", "real_weights", "reason", "to_meta"]

#: Where sources put modules: the meta device, or the CPU inside :func:`real_weights`.
_HOME: ContextVar[str] = ContextVar("home of new modules", default="meta")


def home() -> str:
    """The device on which sources build: ``meta``, or ``cpu`` inside :func:`real_weights`."""
    return _HOME.get()


@contextmanager
def real_weights() -> Iterator[None]:
    """Sources build modules that can run: on the CPU, with the random weights of their own initialisers."""
    kept = _HOME.set("cpu")
    try:
        yield
    finally:
        _HOME.reset(kept)


@contextmanager
def building(device: str | None = "meta") -> Iterator[None]:
    """Modules built inside have their parameters on ``device``, "meta" being :func:`home`; nothing may download.

    Initialisers warn that they do nothing on meta tensors, which is the point: silenced.
    """
    import torch

    if device == "meta":
        device = home()
    with offline(), warnings.catch_warnings(), torch.device(device) if device else nullcontext():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def offline() -> Iterator[None]:
    """The hub clients answer from their caches only, for the while.

    Put back afterwards, so that a program that uses costmodel keeps its own downloads.
    """
    kept = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is imported ...
    constants = sys.modules.get("huggingface_hub.constants")
    was_offline = getattr(constants, "HF_HUB_OFFLINE", False)
    _set_hub_offline(True)  # ... and this afterwards
    try:
        yield
    finally:
        _set_hub_offline(was_offline)
        os.environ.pop("HF_HUB_OFFLINE")
        if kept is not None:
            os.environ["HF_HUB_OFFLINE"] = kept


def _set_hub_offline(value: bool) -> None:
    if constants := sys.modules.get("huggingface_hub.constants"):
        vars(constants)["HF_HUB_OFFLINE"] = value


def part_of(module: nn.Module, path: str, owner: str) -> nn.Module:
    """The submodule at ``path``; UnknownModelError with near matches where there is none."""
    parts = dict(module.named_modules())
    if path not in parts:
        raise UnknownModelError(
            librarian(
                f"{owner} has no part '{path}'",
                there_is=[name for name, _ in module.named_children()],
                near=near_matches(path, parts),
            )
        )
    return parts[path]


def to_meta(module: nn.Module) -> nn.Module:
    """Move what is not there yet to the meta device, in place; tied weights stay tied (``Module.to`` unties them).

    Inside :func:`real_weights` the module stays what it is.
    """
    import torch
    from torch import nn

    if home() != "meta":
        return module
    moved: dict[int, torch.Tensor] = {}

    def meta(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_meta:
            return tensor
        if id(tensor) not in moved:
            plain = tensor.detach().to("meta")
            moved[id(tensor)] = nn.Parameter(plain, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else plain
        return moved[id(tensor)]

    originals = []  # kept alive so that no id is given twice
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    originals.append(tensor)
                    table[name] = meta(tensor)  # type: ignore[assignment]
    return module


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """These loggers are silent inside: what they would say is said in the error, or is no news."""
    kept = {name: logging.getLogger(name).disabled for name in loggers}
    try:
        for name in kept:
            logging.getLogger(name).disabled = True
        yield
    finally:
        for name, disabled in kept.items():
            logging.getLogger(name).disabled = disabled


def reason(error: BaseException) -> str:
    r"""An error in one line: its type and what its text says first; without a text, the line that raised it.

    >>> reason(ValueError("depth must be even\nsee below"))
    'ValueError: depth must be even'
    >>> reason(ValueError("width:\n  must be odd\nsee below"))
    'ValueError: width: must be odd'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        raised = traceback.extract_tb(error.__traceback__)
        return f"{type(error).__name__}: {raised[-1].line}" if raised and raised[-1].line else type(error).__name__
    told = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {told}"
