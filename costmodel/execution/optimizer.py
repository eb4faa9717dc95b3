"""Optimizer: how a training step turns gradients into new weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from costmodel.execution.precision import Precision
from costmodel.execution.words import chosen, truth

__all__ = ["ALGORITHMS", "SPELLINGS", "STATES", "Optimizer"]

#: Algorithm -> the tensors as large as a parameter that it keeps for each, by torch's names of them.
STATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "none": (),
        "sgd": (),
        "momentum": ("momentum_buffer",),
        "nesterov": ("momentum_buffer",),
        "adam": ("exp_avg", "exp_avg_sq"),
        "adamw": ("exp_avg", "exp_avg_sq"),
        "adam8bit": ("exp_avg", "exp_avg_sq"),
        "sparse_adam": ("exp_avg", "exp_avg_sq"),
    }
)

#: The words: ``sgd`` keeps nothing, ``momentum`` is SGD with a momentum of 0.9, ``nesterov`` the same with Nesterov's
#: correction, ``none`` a step that ends with the gradients, ``adam8bit`` is bitsandbytes' Adam, whose states are bytes,
#: ``sparse_adam`` SparseAdam for parameters with sparse gradients and Adam for the others.
ALGORITHMS = tuple(STATES)

#: Spellings in measured files -> ours.
SPELLINGS: Mapping[str, str] = MappingProxyType({**{word: word for word in ALGORITHMS}, "sgdm": "momentum", "": "none"})

#: Name of a condition of a run -> the field that it is.
_WORDS = {
    "optimizer": "algorithm",
    "fused_optimizer": "fused",
    "weight_decay": "weight_decay",
    "grad_scaler": "grad_scaler",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """What ``torch.optim`` does in a training step, with its own defaults. Frozen: the key of what is kept by it.

    ``algorithm``     one of :data:`ALGORITHMS`. The default is SGD with momentum, with which torchvision and timm train
                      image models
    ``fused``         ``fused=True``: one kernel reads and writes everything. Otherwise torch decides: ``foreach`` on a
                      GPU from 2.0 on, parameter by parameter elsewhere
    ``weight_decay``  whether weights decay; None is the default of the class, which is yes for AdamW alone
    ``grad_scaler``   whether a ``GradScaler`` scales the loss; None: where autocast runs in fp16

    Raises InputError for an unknown algorithm.

    >>> Optimizer(algorithm="adamw").decays, Optimizer().states, str(Optimizer(algorithm="adam", fused=True))
    (True, ('momentum_buffer',), 'adam (fused)')
    """

    algorithm: str = "momentum"
    fused: bool = False
    weight_decay: bool | None = None
    grad_scaler: bool | None = None

    def __post_init__(self) -> None:
        chosen("optimizer", self.algorithm, ALGORITHMS)

    def __str__(self) -> str:
        """The word, with what differs from torch's defaults."""
        decay = {True: "weight decay", False: "no weight decay", None: ""}[self.weight_decay]
        more = ["fused"] * self.fused + [decay] * (self.weight_decay not in (None, self.algorithm == "adamw"))
        return self.algorithm + (f" ({', '.join(more)})" if more and self.algorithm != "none" else "")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What may be said of it, by name."""
        return tuple(_WORDS)

    def changed(self, said: Mapping[str, Any]) -> Optimizer:
        """This optimizer with the entries of ``said`` that are its own; the others are for other parts of a run. What
        it prints as it reads too, as files of measurements have it.

        >>> str(Optimizer().changed({"optimizer": "adam", "fused_optimizer": "yes", "batch": 8}))
        'adam (fused)'
        >>> Optimizer().changed({"optimizer": "adamw (fused, no weight decay)"}).decays
        False
        """
        changes: dict[str, Any] = _parsed(said["optimizer"]) if "optimizer" in said else {}
        changes |= {field: said[word] for word, field in _WORDS.items() if word in said and field != "algorithm"}
        changes.update({name: truth(value) for name, value in changes.items() if name != "algorithm"})
        return replace(self, **changes)

    @property
    def states(self) -> tuple[str, ...]:
        """What it keeps for each parameter, each as large as the parameter."""
        return STATES[self.algorithm]

    @property
    def decays(self) -> bool:
        """Whether weights decay."""
        return self.algorithm == "adamw" if self.weight_decay is None else self.weight_decay

    def scales(self, precision: Precision) -> bool:
        """Whether the loss is scaled, and gradients are looked through for infinities, in a run of this precision."""
        return precision.autocast == "fp16" if self.grad_scaler is None else self.grad_scaler


def _parsed(text: str) -> dict[str, Any]:
    """The fields that an optimizer as it is printed states. What is no such text is the name of an algorithm."""
    algorithm, bracket, rest = str(text).partition(" (")
    said = set(rest.removesuffix(")").split(", ")) if bracket and rest.endswith(")") else set()
    if not said or not said <= {"fused", "weight decay", "no weight decay"}:
        return {"algorithm": SPELLINGS.get(str(text), text)}
    decays = {"weight_decay": "weight decay" in said} if said != {"fused"} else {}
    return {"algorithm": algorithm, "fused": "fused" in said, **decays}
