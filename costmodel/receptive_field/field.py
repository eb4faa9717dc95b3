"""Field: the window of the input that one position sees, along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Field"]


@dataclass(frozen=True, slots=True)
class Field:
    """The window of the input that a position depends on, along one axis; numbers or sympy expressions.

    ``size``   elements of the input, those that lie on padding included (so it can exceed the input)
    ``jump``   elements of the input between the windows of neighbours: the effective stride
    ``start``  where the first position's window begins; negative where it begins on padding

    >>> Field().through(7, stride=2, padding=3).through(3, stride=2, padding=1)     # ResNet's stem
    Field(size=11, jump=4, start=-5)
    """

    size: Any = 1
    jump: Any = 1
    start: Any = 0

    def through(self, kernel: Any, *, stride: Any = 1, dilation: Any = 1, padding: Any = 0) -> Field:
        """The field behind a window of ``kernel`` taps: size + (kernel - 1) * dilation * jump.

        >>> from costmodel.symbols import symbol
        >>> Field().through(symbol("K"), dilation=symbol("d")).size
        d*(K - 1) + 1
        """
        size = self.size + (kernel - 1) * dilation * self.jump
        return Field(size, self.jump * stride, self.start - padding * self.jump)

    def over(self, count: Any) -> Field:
        """The field of what depends on ``count`` neighbours at once, as every position behind attention does."""
        return Field(self.size + (count - 1) * self.jump, self.jump, self.start)

    def joined(self, other: Field) -> Field:
        """The smallest window that holds both: what a sum or concatenation of two branches sees.

        >>> Field(3, 1, -1).joined(Field(5, 1, -2)), Field(3, 1, 0).joined(Field(3, 1, -2))
        (Field(size=5, jump=1, start=-2), Field(size=5, jump=1, start=-2))
        """
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Field(end - start, max(self.jump, other.jump), start)
