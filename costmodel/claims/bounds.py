"""What can be proved of a convolution's memory access cost at fixed MACs (ShuffleNet V2, arXiv:1807.11164, G1, G2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmodel.claims.design import maps
from costmodel.claims.layers import conv
from costmodel.symbols import as_expr, symbol

if TYPE_CHECKING:
    import sympy

__all__ = ["LowerBound", "group_convolution_access", "memory_access_bound"]


@dataclass(frozen=True, slots=True)
class LowerBound:
    """``value = bound + excess``, where ``excess`` is a square times a positive size, hence never negative.

    ``holds`` says whether sympy could prove both; ``equality`` is the condition under which the excess is zero.
    """

    value: sympy.Expr
    bound: sympy.Expr
    excess: sympy.Expr
    equality: sympy.Expr
    holds: bool


def memory_access_bound() -> LowerBound:
    """G1: a 1x1 convolution of B = h*w*c1*c2 MACs accesses at least 2*sqrt(h*w*B) + B/(h*w) elements.

    The access is the formula's own: input, output and weights, each once. Proof: the difference is
    h*w*(sqrt(c1) - sqrt(c2))**2, a square, which is zero where c1 = c2 and nowhere else.
    """
    import sympy

    h, w, c1, c2 = (symbol(name) for name in ("h", "w", "c1", "c2"))
    layer = conv(c2, 1)(maps(c1, h, w))
    macs = as_expr(layer["macs"])
    value = sympy.expand(layer.access)
    bound = 2 * sympy.sqrt(h * w * macs) + macs / (h * w)
    excess = h * w * (sympy.sqrt(c1) - sympy.sqrt(c2)) ** 2
    identity = sympy.simplify(value - bound - excess) == 0
    return LowerBound(value, bound, excess, sympy.Eq(c1, c2), bool(identity and excess.is_nonnegative))


def group_convolution_access() -> tuple[sympy.Expr, sympy.Expr]:
    """G2: (access, its derivative by g) of a 1x1 group convolution of B MACs: h*w*c1 + B*g/c1 + B/(h*w).

    The derivative B/c1 is positive: at equal MACs and equal input, more groups mean more memory access.
    """
    import sympy

    h, w, c1, g, macs = (symbol(name) for name in ("h", "w", "c1", "g", "B"))
    c2 = symbol("c2")
    layer = conv(c2, 1, groups=g)(maps(c1, h, w))
    at_macs = sympy.solve(sympy.Eq(as_expr(layer["macs"]), macs), c2)[0]
    access = sympy.expand(as_expr(layer.access).subs(c2, at_macs))
    return access, sympy.diff(access, g)
