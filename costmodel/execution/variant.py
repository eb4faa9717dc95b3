"""Variant: which of a model's programs is traced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from costmodel.execution.execution import Execution
from costmodel.execution.phase import Phase
from costmodel.execution.trained import Trained

__all__ = ["Variant"]


@dataclass(frozen=True, slots=True)
class Variant:
    """What beside model and sizes decides which operators run, and therefore what a trace depends on.

    ``layout``      memory format of images and weights: strides follow from it
    ``device``      kind of device that the model sees, by torch's word: "cuda" or "cpu"
    ``train_mode``  the module is in train mode
    ``phase``       what the run is for: a training step has a backward pass
    ``trained``     what of the model a training step trains, and keeps of the forward pass
    """

    layout: str = "nchw"
    device: str = "cuda"
    train_mode: bool = False
    phase: Phase = Phase.INFERENCE
    trained: Trained = field(default_factory=Trained)

    @classmethod
    def of(cls, execution: Execution, device: str) -> Variant:
        """The program that an execution runs on a kind of device.

        >>> Variant.of(Execution.of(layout="nhwc", train_mode=True), "cuda").words
        {'layout': 'nhwc', 'train_mode': True}
        """
        trained = execution.trained if execution.phase is Phase.TRAINING else Trained()
        return cls(execution.layout, device, execution.in_train_mode, execution.phase, trained)

    @property
    def anywhere(self) -> Variant:
        """The same for the usual kind of device: that of models that never ask which it is."""
        return replace(self, device="cuda")

    @property
    def words(self) -> Mapping[str, Any]:
        """What is said of it in a cache key, the device apart: the layout, and what is not an ordinary forward pass."""
        said: dict[str, Any] = {"layout": self.layout}
        said |= {"train_mode": True} if self.train_mode else {}
        said |= {"phase": self.phase.value} if self.phase is not Phase.INFERENCE else {}
        return said | self.trained.words
