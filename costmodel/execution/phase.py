"""Phases: what a run is for, and which part of a step a node of the graph belongs to."""

from __future__ import annotations

from enum import Enum

from costmodel.execution.words import chosen, spellings

__all__ = ["SPELLINGS", "NodePhase", "Phase"]


class Phase(str, Enum):
    """What a run is for: one forward pass, a training step, or one of the two halves of generating text."""

    INFERENCE = "inference"
    TRAINING = "training"
    PREFILL = "prefill"
    DECODE = "decode"

    @classmethod
    def of(cls, word: str) -> Phase:
        """The phase that is called so. Raises InputError for an unknown word."""
        return cls(chosen("phase", word, (phase.value for phase in cls)))

    @property
    def generates(self) -> bool:
        """Whether it is one of the two halves of writing text, which know a cache."""
        return self in (Phase.PREFILL, Phase.DECODE)


class NodePhase(str, Enum):
    """The part of a step that a node of the graph belongs to."""

    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"
    PREFILL = "prefill"
    DECODE = "decode"


#: Spellings in measured files -> ours.
SPELLINGS = spellings(
    (phase.value for phase in Phase),
    {"infer": "inference", "inf": "inference", "eval": "inference", "train": "training"},
)
