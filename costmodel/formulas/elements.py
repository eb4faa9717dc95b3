"""What the sheets without contractions share: traffic, and the cost of one textbook expression per element."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.operands import nbytes
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec, tensors_in

__all__ = ["aten", "cost", "elementwise", "expression_flops", "lines"]

#: Names that stand for tensor elements in an expression; all other names are numbers known ahead. g is a gradient; s
#: and t are values of the element made once and used more than once, named where they are made: ``(t := exp(x))``.
ELEMENTS = frozenset("xyzcgst")


def aten(names: str) -> tuple[str, ...]:
    """Operators of ``aten`` by their names, separated by white space.

    >>> aten("sum mean")
    ('aten.sum', 'aten.mean')
    """
    return tuple(f"aten.{name}" for name in names.split())


def cost(flops: Dim, read: Iterable[Any], out: Any, *, read_also: Dim = 0) -> Cost:
    """One launch that reads the tensors of ``read`` and ``read_also`` bytes, and writes ``out`` (a spec or several)."""
    written = out.nbytes if isinstance(out, TensorSpec) else sum(t.nbytes for t in tensors_in(out))
    return Cost(vector_flops=flops, bytes_read=nbytes(*read) + read_also, bytes_written=written, launches=1)


def lines(spec: TensorSpec, dim: int) -> Dim:
    """How many lines run along dimension ``dim``: the elements of all other dimensions.

    >>> lines(TensorSpec((2, 3, 4)), -2), lines(TensorSpec(()), -1)
    (8, 1)
    """
    if not spec.shape:
        return 1
    dim %= len(spec.shape)
    return product(spec.shape[:dim] + spec.shape[dim + 1 :])


@cache
def expression_flops(expression: str) -> int:
    """FLOP of one evaluation of a textbook expression in the elements x, y, z, g (and a condition c).

    Every operator, comparison and function that touches an element is 1 FLOP, negation included.
    ``select(c, x, y)`` chooses between values already there: 0. Arithmetic among other names and
    numbers is done once, ahead of all elements: 0.

    >>> expression_flops("1 / (1 + exp(-x))")                      # neg, exp, add, div
    4
    >>> expression_flops("x * (sqrt(2 / pi) * alpha)")             # one multiplication by a constant
    1
    """
    return sum(1 for node in ast.walk(ast.parse(expression, mode="eval")) if _is_operation(node) and _has_element(node))


def _is_operation(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id == "select")
    return isinstance(node, (ast.BinOp, ast.UnaryOp, ast.Compare))


def _has_element(node: ast.AST) -> bool:
    return any(isinstance(leaf, ast.Name) and leaf.id in ELEMENTS for leaf in ast.walk(node))


def elementwise(expression: str, read: Iterable[Any], out: Any) -> Cost:
    """Cost of evaluating ``expression`` once for every element of the (first) result.

    Broadcast operands count their own stored size.

    >>> elementwise("x + y", [TensorSpec((4, 5)), TensorSpec((5,))], TensorSpec((4, 5))).bytes_read   # (20 + 5) * 4 B
    100
    """
    first = out if isinstance(out, TensorSpec) else out[0]
    return cost(expression_flops(expression) * first.numel, read, out)
