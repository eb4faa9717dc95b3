"""Lazy modules, whose parameters take their sizes from the first input: made on a copy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from costmodel.trace.forward import forward_on_meta, meta_copy

if TYPE_CHECKING:
    from costmodel.sources.loaded import LoadedModel

__all__ = ["materialized"]


def materialized(loaded: LoadedModel, device: str = "cuda") -> LoadedModel:
    """``loaded`` with the sizes of its lazy modules taken from its inputs, on a copy; itself where it has none.

    Raises TraceError where the forward pass fails.
    """
    tensors = [*loaded.module.parameters(), *loaded.module.buffers()]
    if not any(map(is_lazy, tensors)):
        return loaded
    copied = meta_copy(loaded.module)
    args, kwargs = loaded.inputs()
    forward_on_meta(copied, args, kwargs, device)
    for module in copied.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(parameter), requires_grad=False)
    note = "lazy modules take the sizes of their parameters from the inputs; your module is left as it is"
    return replace(loaded, module=copied, notes=[*loaded.notes, note])
