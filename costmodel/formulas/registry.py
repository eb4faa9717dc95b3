"""The table of formulas: from an operator's name to the function that says what it costs.

A formula is a pure function of tensor specs and plain arguments, named as in the operator's schema
(``self`` is called ``input``), with the result's spec as ``out`` (a tuple of specs where the operator
has several results). It must work for integer sizes and for sympy sizes alike, so it uses plain
arithmetic and :mod:`costmodel.symbols`, never ``math.ceil`` or comparisons of sizes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from costmodel.cost import Cost
from costmodel.errors import FormulaError
from costmodel.tensor import tensors_in

__all__ = [
    "Formula",
    "cost_of",
    "cost_or_default",
    "default_cost",
    "formula",
    "free",
    "is_free",
    "known_operators",
    "lookup",
]

Formula = Callable[..., Cost]

_FORMULAS: dict[str, Formula] = {}
_PARAMETERS: dict[str, tuple[frozenset[str], bool]] = {}
_FREE: set[str] = set()


def formula(*operators: str, replace: bool = False) -> Callable[[Formula], Formula]:
    """Register a function as the cost of ``operators``, e.g. ``@formula("aten.linear")``.

    The function is called with the operator's arguments by schema name (only those that it names) and
    ``out``; it returns a :class:`~costmodel.cost.Cost`. This is also how a user teaches costmodel a
    custom operator::

        @costmodel.formulas.formula("mylib.fused_swiglu")
        def fused_swiglu(x, w1, w2, *, out):
            return Cost(matrix_flops=4 * x.numel * w1.shape[0], bytes_read=..., launches=1)

    Raises FormulaError when an operator already has a formula and ``replace`` is false.
    """

    def register(function: Formula) -> Formula:
        parameters = inspect.signature(function).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        for operator in operators:
            if not replace and (operator in _FORMULAS or operator in _FREE):
                instead = f"to put yours in its place: @formula({operator!r}, replace=True)"
                raise FormulaError(f"{operator} already has a formula\n  {instead}")
            _FREE.discard(operator)
            _FORMULAS[operator] = function
            _PARAMETERS[operator] = (frozenset(parameters), takes_any)
        return function

    return register


def free(*operators: str) -> None:
    """Register operators that move and compute nothing: views and other wiring."""
    for operator in operators:
        if operator in _FORMULAS:
            raise FormulaError(f"{operator} already has a formula and cannot be free as well")
        _FREE.add(operator)


def is_free(operator: str) -> bool:
    """Whether an operator is a view: no FLOPs, no bytes, no launch."""
    return operator in _FREE


def lookup(operator: str) -> Formula | None:
    """The formula of an operator, or None."""
    return _FORMULAS.get(operator)


def known_operators() -> Iterator[str]:
    """Names of all operators that have a formula or are free."""
    yield from _FORMULAS
    yield from _FREE


def default_cost(arguments: Mapping[str, Any], out: Any) -> Cost:
    """The default rule for operators without a formula: every operand read once, every result written once.

    No FLOPs are invented. The operator is reported as uncosted.
    """
    return Cost(
        bytes_read=sum(t.nbytes for t in tensors_in(arguments)),  # type: ignore[misc]
        bytes_written=sum(t.nbytes for t in tensors_in(out)),  # type: ignore[misc]
        launches=1,
    )


def cost_of(operator: str, arguments: Mapping[str, Any], out: Any) -> Cost | None:
    """Cost of one call, or None when the operator has no formula.

    ``arguments`` are keyed by schema name, with ``input`` for ``self``.
    Raises FormulaError, naming the operator, when its formula fails.
    """
    if operator in _FREE:
        return Cost()
    function = _FORMULAS.get(operator)
    if function is None:
        return None
    names, takes_any = _PARAMETERS[operator]
    if "out" in arguments:  # torch.cumsum(x, 0, out=y): where the result goes, not what is read
        arguments = {name: value for name, value in arguments.items() if name != "out"}
    all_known = takes_any or arguments.keys() <= names
    wanted = arguments if all_known else {name: value for name, value in arguments.items() if name in names}
    try:
        return function(**wanted, out=out)
    except Exception as error:
        shapes = ", ".join(str(t.shape) for t in tensors_in(arguments))
        raise FormulaError(
            f"the formula of {operator} failed on tensors of shape {shapes}: {type(error).__name__}: {error}\n"
            f"  it is {function.__module__}.{function.__qualname__}"
        ) from error


def cost_or_default(operator: str, arguments: Mapping[str, Any], out: Any) -> Cost:
    """Cost of one call, by the default rule where the operator has no formula. Raises what :func:`cost_of` raises."""
    cost = cost_of(operator, arguments, out)
    return default_cost(arguments, out) if cost is None else cost
