"""Kernels for the meta device that torch lacks, of losses and their backward operators.

Without one, torch refuses the operator on meta. Each gives what a device gives, without values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["register"]

_LIBRARY = torch.library.Library("aten", "IMPL")  # for as long as the process lives


def register() -> None:
    """Register the kernels, where torch has none of its own."""
    for name, kernel in _KERNELS.items():
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            _LIBRARY.impl(name, kernel, "Meta")


def _like_second(grad: torch.Tensor, operand: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
    """The gradient of the second argument."""
    return torch.empty_like(operand)


def _ctc_loss(log_probs: torch.Tensor, targets: torch.Tensor, *others: Any, **named: Any) -> tuple[Any, Any]:
    """(loss[N], log alpha[N, T, 2 S + 1]) of log_probs[T, N, C], whose lengths are tensors.

    S is the longest target: a row of targets[N, S]; of targets in one row, all are taken as equally long.
    """
    steps, images = log_probs.shape[0], log_probs.shape[1] if log_probs.dim() == 3 else 1
    longest = targets.shape[1] if targets.dim() == 2 else -(-targets.shape[0] // images)
    alone = () if log_probs.dim() == 2 else (images,)
    return log_probs.new_empty(alone), log_probs.new_empty(images, steps, 2 * longest + 1)


def _multi_margin_loss(
    scores: torch.Tensor, target: torch.Tensor, p: Any = 1, margin: Any = 1, weight: Any = None, reduction: int = 1
) -> torch.Tensor:
    return scores.new_empty(target.shape if reduction == 0 else ())


_KERNELS: dict[str, Callable[..., Any]] = {
    "_ctc_loss.Tensor": _ctc_loss,
    "_ctc_loss_backward": _like_second,
    "_ctc_loss_backward.Tensor": _like_second,
    "multi_margin_loss": _multi_margin_loss,
    "multi_margin_loss_backward": _like_second,
}
