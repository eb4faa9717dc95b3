"""The loss of a training step: what a model's result is trained on where nobody says it, traced or run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from costmodel.errors import TraceError

__all__ = ["loss_of"]

#: Entries of a result that are no output of the model: what a language model keeps for its next call.
_CACHES = frozenset({"past_key_values", "cache_params", "state", "mems"})


def loss_of(
    result: Any, own_loss: Callable[[Any], Any] | None, target_of: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, str]:
    """The loss of what a model returned, and a sentence that says which.

    It is ``own_loss`` of the result; without one, that which the model puts out; of a single two-dimensional output
    the cross entropy against the class indices that ``target_of`` gives; else the sum of all floating-point outputs.
    Raises TraceError where the loss is no scalar, or there is nothing to make one of.
    """
    if own_loss is not None:
        name, found = getattr(own_loss, "__name__", type(own_loss).__name__), own_loss(result)
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            raise TraceError(f"the loss {name} gives no scalar tensor")
        return found, f"trained on the loss {name}"
    outputs = list(_floating_outputs(result))
    if not outputs:
        raise TraceError("the model puts out no floating-point tensor to make a loss of")
    if len(outputs) == 1 and outputs[0].dim() == 0:
        return outputs[0], "trained on the loss that the model itself puts out"
    if len(outputs) == 1 and outputs[0].dim() == 2 and outputs[0].shape[1] > 1:
        logits = outputs[0]
        return nn.functional.cross_entropy(logits, target_of(logits)), "trained on the cross entropy of its output"
    total = outputs[0].sum()
    for other in outputs[1:]:
        total = total + other.sum()
    several = f"of its {len(outputs)} floating-point outputs" if len(outputs) > 1 else "of its output's elements"
    return total, f"trained on the sum {several}, as it has no loss of its own"


def _floating_outputs(result: Any) -> Iterator[torch.Tensor]:
    """The model's own loss where it puts one out, else its floating-point outputs."""
    if isinstance(result, Mapping):
        if isinstance(own := result.get("loss"), torch.Tensor):
            yield own
            return
        result = {name: value for name, value in result.items() if name not in _CACHES}
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            yield leaf
