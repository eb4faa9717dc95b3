"""A training step that runs: forward pass, loss, backward pass and optimizer, as the graph of training has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from costmodel.errors import InputError
from costmodel.execution import Execution
from costmodel.optimizer.recipes import MOMENTUM
from costmodel.trace.loss import loss_of

__all__ = ["TrainingStep", "draw_low_rank", "torch_optimizer"]


#: Optimizers that are no single one of torch's.
_NOT_RUN = {
    "adam8bit": "is bitsandbytes' and is not run here",
    "sparse_adam": "is two optimizers, for sparse gradients and the others, and is not run here",
}


def torch_optimizer(parameters: Any, execution: Execution) -> torch.optim.Optimizer | None:
    """``torch.optim``'s for what an execution says, with its defaults; None where it says ``none``.

    Raises InputError for one that is not torch's.
    """
    said = execution.optimizer
    if said.algorithm in _NOT_RUN:
        raise InputError(f"{said.algorithm} {_NOT_RUN[said.algorithm]}\n  costmodel analyze predicts it")
    options: dict[str, Any] = {"fused": True} if said.fused else {}
    if said.weight_decay is not None:
        options["weight_decay"] = 1e-2 if said.decays else 0.0
    if said.algorithm == "none":
        return None
    if said.algorithm.startswith("adam"):
        return (torch.optim.AdamW if said.algorithm == "adamw" else torch.optim.Adam)(parameters, **options)
    if said.states:
        options |= {"momentum": MOMENTUM, "nesterov": said.algorithm == "nesterov"}
    return torch.optim.SGD(parameters, lr=1e-6, **options)  # small: random weights are to stay finite


def draw_low_rank(module: nn.Module) -> None:
    """Small random numbers for the matrices that were put beside linear layers, which hold none yet."""
    for name, parameter in module.named_parameters():
        if ".low_rank_" in f".{name}":
            nn.init.normal_(parameter, std=1e-3)


@dataclass(slots=True)
class TrainingStep:
    """A module in train mode with its inputs; a call is one step in the conditions of ``execution``.

    ``around`` gives the contexts of the forward pass (autocast, TF32). ``notes`` say what it was trained on, once it
    was.
    """

    module: nn.Module
    args: Any
    kwargs: Any
    device: str
    execution: Execution
    around: Callable[[], AbstractContextManager[object]]
    own_loss: Callable[[Any], Any] | None = None
    notes: list[str] = field(default_factory=list)
    optimizer: torch.optim.Optimizer | None = None
    scaler: Any = None
    target: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.module.train()
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = torch_optimizer(trained, self.execution)
        scales = self.execution.optimizer.scales(self.execution.precision)
        self.scaler = torch.amp.GradScaler(self.device.partition(":")[0], enabled=scales)

    def __call__(self) -> object:
        """One step. Raises TraceError where there is nothing to train."""
        self.zero_grad()
        with self.around():
            result = self.module(*self.args, **self.kwargs)
            loss, note = loss_of(result, self.own_loss, self._target)
        self.notes[:] = [note]
        self.scaler.scale(loss).backward()
        if self.optimizer is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss

    def zero_grad(self) -> None:
        """Throw gradients away, ``set_to_none=True``."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.module.zero_grad(set_to_none=True)

    def _target(self, logits: torch.Tensor) -> torch.Tensor:
        if self.target is None:
            self.target = torch.randint(0, logits.shape[1], logits.shape[:1], device=logits.device)
        return self.target

    def held(self) -> Iterator[torch.Tensor]:
        """What lies in memory when a step begins: weights, buffers, inputs, states of the optimizer. Gradients of the
        step before, which it throws away first of all, are thrown away now."""
        self.zero_grad()
        yield from (*self.module.parameters(), *self.module.buffers(), *_tensors(self.args), *_tensors(self.kwargs))
        if self.target is not None:
            yield self.target
        if self.optimizer is not None:
            yield from (t for kept in self.optimizer.state.values() for t in _tensors(dict(kept)))


def _tensors(tree: Any) -> list[torch.Tensor]:
    from torch.utils import _pytree as pytree

    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
