"""Step: one operator call as a rule sees it, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.receptive_field.state import State
from costmodel.tensor import TensorSpec

__all__ = ["RULES", "Rule", "Step", "rule"]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator call: ``operands`` are tensors with their states (None: a weight), ``out`` the first result."""

    op: str
    arguments: Mapping[str, Any]
    operands: Sequence[tuple[TensorSpec, State | None]]
    out: TensorSpec

    @property
    def main(self) -> tuple[TensorSpec, State]:
        """The first operand that depends on the input."""
        return next((spec, state) for spec, state in self.operands if state is not None)

    def axis(self, name: str = "dim", default: int = 0) -> int:
        """An argument that names an axis of the main operand, counted from 0."""
        return int(self.arguments.get(name, default)) % max(len(self.main[0].shape), 1)

    def per_axis(self, name: str, rank: int, default: Any) -> list[Any]:
        """An argument with a value for each of ``rank`` axes; one stands for all."""
        value = self.arguments.get(name, default)
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        return values * rank if len(values) == 1 else values or [default] * rank


Rule = Callable[[Step], State]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register how these aten operators change what is seen."""

    def register(function: Rule) -> Rule:
        RULES.update({f"aten.{operator}": function for operator in operators})
        return function

    return register
