"""Modules around a module: what spreads a model over devices or compiles it is taken off, and said."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["unwrapped"]


def unwrapped(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """(the module that does the work, notes on what was around it).

    ``nn.DataParallel`` and ``DistributedDataParallel`` run a replica of their module on every device: one replica is
    what one machine runs. ``torch.compile`` leaves the module that it compiled: how it is compiled is the ``mode`` of
    an analysis.
    """
    import torch
    from torch import nn

    notes = []
    while True:
        kind = type(module).__name__
        inner: nn.Module
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
            notes.append(f"{kind} is taken off: one replica is analyzed, on one device, with the whole batch")
        elif isinstance(module, torch._dynamo.OptimizedModule if _has_compiled() else ()):
            inner = module._orig_mod
            notes.append("torch.compile is taken off: --mode says how the model is run")
        else:
            return module, notes
        module = inner


def _has_compiled() -> bool:
    """Whether the compiler was ever imported: importing it takes a second, and without it nothing is compiled."""
    import sys

    return "torch._dynamo" in sys.modules
