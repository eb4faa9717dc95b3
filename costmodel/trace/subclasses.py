"""Weights that are tensor subclasses around plain tensors, as torchao's quantized ones.

Such a class says what it is made of (``__tensor_flatten__``) and runs operators as calls on these parts, which the
recorder sees; the wrapper itself is never recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass, transform_subclass

__all__ = ["are_wrappers", "on_meta", "parts"]

_PLAIN = (torch.Tensor, nn.Parameter)


def are_wrappers(types: Sequence[type]) -> bool:
    """Whether an operator is called on a subclass that runs operators itself."""
    return any(hasattr(kind, "__tensor_flatten__") for kind in types)


def parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain tensors that ``tensor`` is made of, with their names: itself where it is one."""
    if type(tensor) in _PLAIN or not is_traceable_wrapper_subclass(tensor):
        yield name, tensor
        return
    attributes, _ = tensor.__tensor_flatten__()
    for attribute in attributes:
        yield from parts(f"{name}.{attribute}", getattr(tensor, attribute))


def on_meta(tensor: torch.Tensor) -> Any:
    """A tensor like ``tensor`` on the meta device, of the same subclass where it is one; a parameter stays one."""
    if type(tensor) not in _PLAIN and is_traceable_wrapper_subclass(tensor):
        made = transform_subclass(tensor, lambda _, inner: on_meta(inner))
    else:
        made = torch.empty_like(tensor, device="meta")
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made
