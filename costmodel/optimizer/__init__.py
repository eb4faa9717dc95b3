"""Optimizer: the calls that ``torch.optim`` and GradScaler make in a training step, derived without torch."""

from __future__ import annotations

from costmodel.optimizer.step import Implementation, StepKind, append_optimizer, kind_of, with_optimizer

__all__ = ["Implementation", "StepKind", "append_optimizer", "kind_of", "with_optimizer"]
