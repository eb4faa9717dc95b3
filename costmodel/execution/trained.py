"""Trained: which weights a training step trains, and what of its forward pass it keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from costmodel.errors import InputError, librarian
from costmodel.execution.words import chosen

__all__ = ["CHECKPOINTS", "Trained"]

#: What may be checkpointed: nothing, or each of the blocks that a model repeats.
CHECKPOINTS = ("none", "blocks")
_LORA = re.compile(r"lora:([1-9][0-9]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What of a model takes gradients in a training step. Frozen: the key of whatever is kept by it.

    ``checkpoint``  one of :data:`CHECKPOINTS`; ``blocks``: ``torch.utils.checkpoint`` around each of the blocks that
                    the model repeats, which run again in the backward pass instead of keeping what they made
    ``trainable``   ``all``: the parameters that the model trains; ``head``: its last layer alone, the rest frozen;
                    ``lora:R``: besides the last layer a product of two matrices of rank R beside each linear layer,
                    whose own weight is frozen (Hu et al. 2021, arXiv 2106.09685)

    Raises InputError for other words.

    >>> Trained(trainable="lora:16").rank, Trained().is_usual, str(Trained(checkpoint="blocks"))
    (16, True, 'checkpointed blocks')
    """

    checkpoint: str = "none"
    trainable: str = "all"

    def __post_init__(self) -> None:
        chosen("checkpoint", self.checkpoint, CHECKPOINTS)
        if self.trainable not in ("all", "head") and not _LORA.fullmatch(self.trainable):
            raise InputError(
                librarian(f"nothing trains {self.trainable!r}", there_is=("all", "head", "lora:RANK, such as lora:16"))
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What may be said of it, by name."""
        return ("checkpoint", "trainable")

    def changed(self, said: Mapping[str, Any]) -> Trained:
        """This one with the entries of ``said`` that are its own; the others are for other parts of a run."""
        own = {name: said[name] for name in self.names() if name in said}
        return replace(self, **own) if own else self

    @property
    def is_usual(self) -> bool:
        """Whether the model is trained as it is."""
        return self == Trained()

    @property
    def rank(self) -> int:
        """Rank of the products beside linear layers; 0 where there are none."""
        found = _LORA.fullmatch(self.trainable)
        return int(found[1]) if found else 0

    @property
    def words(self) -> dict[str, str]:
        """What differs from the model as it is, for keys of caches and data."""
        usual = Trained()
        return {n: getattr(self, n) for n in self.names() if getattr(self, n) != getattr(usual, n)}

    def __str__(self) -> str:
        """In words; empty for the model as it is."""
        said = ["checkpointed blocks"] * (self.checkpoint == "blocks")
        said += [f"trains the head and products of rank {self.rank}"] * bool(self.rank)
        return ", ".join(said + ["trains the head alone"] * (self.trainable == "head"))
