"""Cost: what one operator asks of any machine. Only quantities that add."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from costmodel.symbols import Binding, Dim, as_expr, bind, is_symbolic, symbol_names

__all__ = ["Cost", "total"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Work and compulsory traffic of an operator, exact integers or sympy expressions.

    ``matrix_flops``     FLOP of contractions (convolution, matrix product): 2 per MAC.
    ``vector_flops``     FLOP of everything else: 1 per arithmetic operation, comparison or
                         elementary function (exp, sqrt, ...) of an element.
    ``bytes_read``       B, every operand once, from device memory.
    ``bytes_written``    B, every result once, to device memory.
    ``launches``         kernels started in eager mode; 0 for a view.
    ``activations``      elements put out by convolutions and matrix products.
    ``workspace_bytes``  B that the textbook algorithm needs besides: the im2col matrix. Not part of
                         ``bytes_read`` or ``bytes_written``.

    >>> Cost(matrix_flops=8, bytes_read=4) + Cost(matrix_flops=2)
    Cost(matrix_flops=10, vector_flops=0, bytes_read=4, bytes_written=0, launches=0, activations=0, workspace_bytes=0)
    """

    matrix_flops: Dim = 0
    vector_flops: Dim = 0
    bytes_read: Dim = 0
    bytes_written: Dim = 0
    launches: Dim = 0
    activations: Dim = 0
    workspace_bytes: Dim = 0

    @property
    def flops(self) -> Dim:
        """All FLOP: matrix and vector."""
        return self.matrix_flops + self.vector_flops

    @property
    def macs(self) -> Dim:
        """Multiply-accumulates of the contractions: half of their FLOP."""
        if isinstance(self.matrix_flops, int):
            return self.matrix_flops // 2
        return self.matrix_flops / 2

    @property
    def bytes(self) -> Dim:
        """Compulsory traffic in B: read and written."""
        return self.bytes_read + self.bytes_written

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))

    def __mul__(self, times: Dim) -> Cost:
        return Cost(*(getattr(self, f.name) * times for f in fields(Cost)))

    __rmul__ = __mul__

    def bind(self, binding: Binding) -> Cost:
        """The same cost in numbers, at the sizes of ``binding``.

        Raises KeyError naming the symbol when ``binding`` leaves one free.

        >>> from costmodel.symbols import symbol
        >>> Cost(matrix_flops=2 * symbol("batch")).bind({"batch": 4}).matrix_flops
        8
        """
        missing = symbol_names(getattr(self, f.name) for f in fields(Cost)) - set(binding)
        if missing:
            raise KeyError(f"no size given for {', '.join(sorted(missing))}")
        return Cost(*(bind(getattr(self, f.name), binding) for f in fields(Cost)))

    @property
    def is_symbolic(self) -> bool:
        """Whether any quantity still holds a free symbol."""
        return any(is_symbolic(getattr(self, f.name)) for f in fields(Cost))

    def expand(self) -> Cost:
        """The same cost with every expression expanded, for printing and comparing."""
        import sympy

        return Cost(*(sympy.expand(as_expr(getattr(self, f.name))) for f in fields(Cost)))


def total(costs: Iterable[Cost]) -> Cost:
    """Sum of costs.

    >>> total([Cost(launches=1), Cost(launches=2)]).launches
    3
    """
    columns = list(zip(*(tuple(getattr(c, f.name) for f in fields(Cost)) for c in costs), strict=True))
    return Cost(*map(_sum, columns)) if columns else Cost()


def _sum(column: tuple[Dim, ...]) -> Dim:
    """Sum that stays linear in time for long symbolic columns."""
    if all(isinstance(v, int) for v in column):
        return sum(column)  # type: ignore[arg-type, return-value]
    import sympy

    return sympy.Add(*column)
