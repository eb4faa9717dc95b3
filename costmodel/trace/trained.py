"""arranged(): a model as a training step has it that freezes weights, adds low-rank ones or checkpoints its blocks.

Works on the tracer's own copy. Classes of modules are replaced by subclasses that are called as they are, so that what
reads a module's class or attributes finds what it looks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from costmodel.errors import InputError
from costmodel.execution.trained import Trained

__all__ = ["arranged"]


def arranged(module: nn.Module, trained: Trained) -> tuple[nn.Module, list[str]]:
    """``module`` (on meta, changed in place) as ``trained`` asks for, and sentences that say what was done.

    Raises InputError where the model has no blocks, no last layer or no linear layers.
    """
    notes: list[str] = []
    if trained.trainable != "all":
        notes.append(_frozen(module, trained.rank))
    if trained.checkpoint == "blocks":
        notes.append(_checkpointed(module))
    return module, notes


# -- frozen and low-rank weights -----------------------------------------------------------------


def _frozen(module: nn.Module, rank: int) -> str:
    """Freeze all but the last layer; with a rank, put a product of two matrices beside every other linear layer."""
    name, head = _head(module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parameter in head.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    if not rank:
        return f"trained: {name} alone, all other weights are frozen"
    linear = [part for part in module.modules() if isinstance(part, nn.Linear) and part is not head]
    if not linear:
        raise InputError(
            "low-rank weights lie beside linear layers, and the model has none besides its last layer\n"
            "  trainable='head' freezes all but that"
        )
    for part in linear:
        _add_low_rank(part, rank)
    return f"trained: {name}, and products of rank {rank} beside {len(linear)} linear layers"


def _head(module: nn.Module) -> tuple[str, nn.Module]:
    """The last layer with a weight of at least two dimensions, in the module's order."""
    layers = [(n, m) for n, m in module.named_modules() if any(p.dim() > 1 for p in m.parameters(recurse=False))]
    if not layers:
        raise InputError("the model has no layer whose weights could be trained alone")
    return layers[-1]


class _LowRank(nn.Linear):
    """``x W + b + (x A) B``: W is frozen, A and B are trained."""

    low_rank_a: nn.Parameter
    low_rank_b: nn.Parameter

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        below = nn.functional.linear(nn.functional.linear(input, self.low_rank_a), self.low_rank_b)
        return super().forward(input) + below


def _add_low_rank(layer: nn.Linear, rank: int) -> None:
    like = layer.weight
    layer.low_rank_a = nn.Parameter(like.new_empty(rank, layer.in_features))
    layer.low_rank_b = nn.Parameter(like.new_empty(layer.out_features, rank))
    kind = type(layer)
    layer.__class__ = _named(kind, (_LowRank,) if kind is nn.Linear else (_LowRank, kind), {})


# -- checkpoints ---------------------------------------------------------------------------------


def _checkpointed(module: nn.Module) -> str:
    """Let every repeated block run again in the backward pass."""
    kinds = {type(block) for blocks in _repeated(module) for block in blocks}
    chosen = list(_outermost(module, kinds))
    if not chosen:
        raise InputError(
            "checkpoints lie around the blocks that a model repeats, and this one repeats none\n"
            "  put torch.utils.checkpoint into the model itself: it is traced as it runs"
        )
    for block in chosen:
        block.__class__ = _named(type(block), (type(block),), {"forward": _run_again})
    names = ", ".join(sorted({kind.__name__ for kind in kinds}))
    return f"checkpointed: {len(chosen)} blocks ({names}) run again in the backward pass"


def _run_again(self: Any, *args: Any, **kwargs: Any) -> Any:
    # Where gradients are not taken, or by a checkpoint that runs its part again, the block just runs.
    forward = super(type(self), self).forward
    # The state of the random generator is the device's, and nothing on meta.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _named(kind: type, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    """A subclass that is called as ``kind`` is."""
    return type(kind.__name__, bases, {**body, "__module__": kind.__module__, "__qualname__": kind.__qualname__})


def _repeated(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Blocks of one class that a list holds at least two of, in the innermost of such lists."""
    for part in module.modules():
        if isinstance(part, (nn.Sequential, nn.ModuleList)):
            by_class: dict[type, list[nn.Module]] = {}
            for child in part:
                if _is_block(child):
                    by_class.setdefault(type(child), []).append(child)
            for blocks in by_class.values():
                if len(blocks) > 1 and not any(found for block in blocks for found in _repeated(block)):
                    yield blocks


def _is_block(module: nn.Module) -> bool:
    """Whether a module is made of several that have weights, and is no mere list."""
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return False
    layers = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    return len([part for part in layers if part is not module]) > 1


def _outermost(module: nn.Module, kinds: set[type]) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child) in kinds:
            yield child
        else:
            yield from _outermost(child, kinds)
