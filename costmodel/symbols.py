"""Sizes that may be symbols: integer arithmetic that is exact both for numbers and for sympy.

A :data:`Dim` is a Python ``int`` or a sympy expression in positive integer symbols (``batch``,
``height``, ``width``, ``seq_len``, ...). Everything here takes a fast path for plain integers and
imports sympy (0.5 s) only when an expression really is symbolic, so that a cached analysis never
pays for it.

Expressions are stored as *codes*: an ``int``, or Python source in integer arithmetic
(``"64*batch*(-(-height//32))"``), which evaluates exactly and without sympy. ``//`` is a floor and
``exact(a, b)`` a division known to leave no remainder.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from costmodel.errors import InputError

if TYPE_CHECKING:
    import sympy

Dim: TypeAlias = "int | sympy.Expr"
Code: TypeAlias = "int | str"
Binding: TypeAlias = Mapping[str, int]

__all__ = [
    "LARGEST_SIZE",
    "Binding",
    "Code",
    "Dim",
    "as_expr",
    "bind",
    "ceil_div",
    "checked_size",
    "compile_codes",
    "floor_div",
    "from_code",
    "is_symbolic",
    "maximum",
    "minimum",
    "product",
    "symbol",
    "symbol_names",
    "to_code",
]


#: The largest number of elements or bytes that a tensor can have: PyTorch counts both in signed 64-bit integers.
LARGEST_SIZE = 2**63 - 1


def checked_size(name: str, value: object) -> int:
    """``value``, or InputError where it is no whole number between 1 and what a tensor can hold.

    >>> checked_size("batch", 8)
    8
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    if value > LARGEST_SIZE:
        raise InputError(
            f"{name} {value} is larger than any machine holds\n"
            f"  sizes are counted in 64 bits: at most {LARGEST_SIZE}, and so are the bytes of each tensor"
        )
    return value


@cache
def symbol(name: str) -> sympy.Symbol:
    """The positive integer symbol of this name; equal names are the same symbol.

    >>> symbol("batch") * 3
    3*batch
    """
    import sympy

    return sympy.Symbol(name, positive=True, integer=True)


def is_symbolic(dim: Dim) -> bool:
    """Whether ``dim`` still holds a free symbol.

    >>> is_symbolic(7), is_symbolic(symbol("batch"))
    (False, True)
    """
    return not isinstance(dim, int) and bool(dim.free_symbols)


def symbol_names(dims: Iterable[Dim]) -> set[str]:
    """Names of all free symbols in ``dims``.

    >>> sorted(symbol_names([3, symbol("batch") * symbol("height")]))
    ['batch', 'height']
    """
    return {s.name for d in dims if not isinstance(d, int) for s in d.free_symbols}


def as_expr(dim: Dim) -> sympy.Expr:
    """``dim`` as a sympy expression, integers included."""
    import sympy

    return sympy.sympify(dim)


def product(dims: Iterable[Dim]) -> Dim:
    """Product of sizes; 1 for a scalar's empty shape.

    >>> product((2, 3, 4)), product(())
    (24, 1)
    """
    return math.prod(dims)  # type: ignore[call-overload, no-any-return]


def maximum(*dims: Dim) -> Dim:
    """The largest of some sizes.

    >>> maximum(2, 3), maximum(symbol("n"), symbol("n"))
    (3, n)
    """
    if all(isinstance(d, int) for d in dims):
        return max(dims)  # type: ignore[type-var, return-value]
    import sympy

    return sympy.Max(*dims)


def minimum(*dims: Dim) -> Dim:
    """The smallest of some sizes.

    >>> minimum(2, 3), minimum(symbol("n"), symbol("n"))
    (2, n)
    """
    if all(isinstance(d, int) for d in dims):
        return min(dims)  # type: ignore[type-var, return-value]
    import sympy

    return sympy.Min(*dims)


def floor_div(numerator: Dim, denominator: int) -> Dim:
    """``numerator // denominator`` for a positive whole denominator, nested roundings folded into one.

    >>> n = symbol("n")
    >>> floor_div(7, 2), floor_div(floor_div(n, 2), 3), floor_div(ceil_div(n, 4), 8)
    (3, floor(n/6), floor(n/32 + 3/32))
    """
    if isinstance(numerator, int):
        return numerator // denominator
    inner, offset, divisor = _as_floor(numerator)
    return _floor(inner, offset, divisor * denominator)


def ceil_div(numerator: Dim, denominator: int) -> Dim:
    """``numerator / denominator`` rounded up, for a positive whole denominator, nested roundings folded into one.

    >>> n = symbol("n")
    >>> ceil_div(7, 2), ceil_div(ceil_div(n, 2), 2), ceil_div(ceil_div(n, 2) - 3, 2)
    (4, ceiling(n/4), floor(n/4 + 1/4) - 1)
    """
    if isinstance(numerator, int):
        return -(-numerator // denominator)
    inner, offset, divisor = _as_floor(numerator)
    return _floor(inner, offset + divisor * (denominator - 1), divisor * denominator)


def _as_floor(expression: sympy.Expr) -> tuple[sympy.Expr, int, int]:
    """(n, c, d) with ``expression = floor((n + c) / d)``; every sum with one rounding in it has such a form."""
    import sympy

    constant, rest = expression.as_coeff_Add()
    if not constant.is_Integer:
        return expression, 0, 1
    if rest.func not in (sympy.floor, sympy.ceiling):
        return rest, int(constant), 1
    numerator, denominator = sympy.fraction(sympy.together(rest.args[0]))
    if not denominator.is_Integer:
        return rest, int(constant), 1
    offset, inner = numerator.as_coeff_Add()
    divisor = int(denominator)
    rounding_up = divisor - 1 if rest.func is sympy.ceiling else 0
    return inner, int(offset) + rounding_up + int(constant) * divisor, divisor


def _floor(inner: sympy.Expr, offset: int, divisor: int) -> sympy.Expr:
    """floor((inner + offset) / divisor), written as a person would: without an offset where one rounding says it."""
    import sympy

    whole, rest = divmod(offset, divisor)
    if rest == 0:
        return sympy.floor(inner / divisor) + whole
    if rest == divisor - 1:
        return sympy.ceiling(inner / divisor) + whole
    return sympy.floor((inner + rest) / sympy.Integer(divisor)) + whole


def bind(dim: Dim, binding: Binding) -> int:
    """The value of ``dim`` where the symbols take the sizes of ``binding``.

    >>> bind(3 * symbol("batch"), {"batch": 8})
    24
    """
    if isinstance(dim, int):
        return dim
    return int(dim.subs({symbol(name): value for name, value in binding.items()}))


@lru_cache(maxsize=1)
def _printer() -> Any:
    """sympy's Python printer, with divisions kept in exact integer arithmetic."""
    from sympy.printing.pycode import PythonCodePrinter

    class IntegerCodePrinter(PythonCodePrinter):
        def _fraction(self, expr: Any) -> tuple[str, str]:
            import sympy

            numerator, denominator = sympy.fraction(sympy.together(expr))
            return f"({self._print(numerator)})", f"({self._print(denominator)})"

        def _print_floor(self, expr: Any) -> str:
            numerator, denominator = self._fraction(expr.args[0])
            return f"({numerator}//{denominator})"

        def _print_ceiling(self, expr: Any) -> str:
            numerator, denominator = self._fraction(expr.args[0])
            return f"(-(-{numerator}//{denominator}))"

        def _print_Mod(self, expr: Any) -> str:
            return f"(({self._print(expr.args[0])}) % ({self._print(expr.args[1])}))"

        def _print_Max(self, expr: Any) -> str:
            return f"max({', '.join(self._print(a) for a in expr.args)})"

        def _print_Min(self, expr: Any) -> str:
            return f"min({', '.join(self._print(a) for a in expr.args)})"

        def exact(self, expr: Any) -> str:
            import sympy

            numerator, denominator = sympy.fraction(sympy.together(expr))
            if denominator == 1:
                return str(self.doprint(expr))
            return f"exact({self.doprint(numerator)}, {self.doprint(denominator)})"

    return IntegerCodePrinter()


def to_code(dim: Dim | str) -> Code:
    """``dim`` as an integer or as integer Python source, fit for JSON; what is source already stays.

    >>> to_code(5), to_code(64 * symbol("batch") * ceil_div(symbol("height"), 32))
    (5, '64*batch*(-(-(height)//(32)))')
    """
    if isinstance(dim, (int, str)):
        return dim
    if dim.is_Integer:
        return int(dim)
    return str(_printer().exact(dim))


_TOKENS = re.compile(r"[A-Za-z_]\w*")
_NUMERIC: dict[str, Callable[..., int]] = {
    "max": max,
    "min": min,
    "exact": lambda numerator, denominator: numerator // denominator,
}
_KEYWORDS = frozenset(keyword.kwlist)
_TOWER = re.compile(r"\*\*(?!\s*\d{1,2}\b(?!\s*\*\*))")  # powers that could take for ever
_ALLOWED = re.compile(r"[\w\s+\-*/%(),]*")


def _checked(code: Code) -> str:
    """Refuse anything but integer arithmetic: codes come from cache files, which are not trusted."""
    text = str(code)
    words = set(_TOKENS.findall(text))
    if not _ALLOWED.fullmatch(text) or "__" in text or words & _KEYWORDS or _TOWER.search(text):
        raise ValueError(f"not an integer expression: {text!r}")
    return text


def from_code(code: Code) -> Dim:
    """The expression that :func:`to_code` wrote.

    >>> from_code("2*batch + (-(-(height)//(32)))")
    2*batch + ceiling(height/32)
    """
    if isinstance(code, int):
        return code
    import sympy

    names: dict[str, Any] = {n: _Exact(symbol(n)) for n in set(_TOKENS.findall(_checked(code))) - _NUMERIC.keys()}
    names["max"] = lambda *values: _Exact(sympy.Max(*map(_plain, values)))
    names["min"] = lambda *values: _Exact(sympy.Min(*map(_plain, values)))
    names["exact"] = lambda numerator, denominator: _Exact(_plain(numerator) / _plain(denominator))
    return _plain(eval(code, {"__builtins__": {}}, names))  # noqa: S307 - checked above


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Exact) else value


class _Exact:
    """Evaluates integer Python source to sympy: ``//`` is a floor, ``-(-a//b)`` a ceiling."""

    def __init__(self, value: Any, negated_floor: Any = None) -> None:
        self.value, self.negated_floor = value, negated_floor

    def __add__(self, other: Any) -> _Exact:
        return _Exact(self.value + _plain(other))

    def __sub__(self, other: Any) -> _Exact:
        return _Exact(self.value - _plain(other))

    def __rsub__(self, other: Any) -> _Exact:
        return _Exact(_plain(other) - self.value)

    def __mul__(self, other: Any) -> _Exact:
        return _Exact(self.value * _plain(other))

    def __pow__(self, other: Any) -> _Exact:
        return _Exact(self.value ** _plain(other))

    def __mod__(self, other: Any) -> _Exact:
        import sympy

        return _Exact(sympy.Mod(self.value, _plain(other)))

    def __floordiv__(self, other: Any) -> _Exact:
        import sympy

        quotient = self.value / _plain(other)
        return _Exact(sympy.floor(quotient), negated_floor=sympy.ceiling(-quotient))

    def __neg__(self) -> _Exact:
        return _Exact(-self.value if self.negated_floor is None else self.negated_floor)

    __radd__, __rmul__ = __add__, __mul__


def compile_codes(codes: Sequence[Code], names: Sequence[str]) -> Callable[[Binding], list[int]]:
    """One function that evaluates all ``codes`` exactly for a binding of ``names``.

    >>> compile_codes([3, "2*batch"], ["batch"])({"batch": 5})
    [3, 10]
    """
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name) or "__" in name:
            raise ValueError(f"not the name of a size: {name!r}")
    arguments = ", ".join(dict.fromkeys(names))
    body = ", ".join(_checked(c) for c in codes)
    function = eval(f"lambda {arguments}: [{body}]", {"__builtins__": {}, **_NUMERIC})  # noqa: S307
    return lambda binding: function(**{name: binding[name] for name in names})
