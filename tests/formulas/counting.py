"""A counting oracle: numbers that tally every elementary operation done on them.

A test writes an operator as plain Python loops over :class:`Counted` numbers, runs it on a tiny shape
inside ``with counting() as tally`` and compares ``tally.flops`` with the formula. The numbers carry
real values, so the same loops can be checked against torch: then the reference is known to be the
operator, and its count is known to be the operator's count.

The convention, without exceptions:

* every arithmetic operation (add, subtract, multiply, divide, remainder, power, negate, absolute value),
  every comparison (``<``, ``==``, ``max_``, ``min_``), every logical or bitwise operation, every rounding
  and every elementary function (exp, log, sqrt, tanh, erf, sin, ...) of an element is 1 FLOP;
* negation counts 1 like any other operation: sigmoid 1 / (1 + exp(-x)) is 4 FLOP;
* a fused multiply-add is 2 FLOP; squaring is one multiplication;
* choosing between values already there (:func:`select`), moving, casting and making a constant are 0 FLOP;
  both branches of a selection are computed, as vector machines do;
* arithmetic among plain Python numbers (indices, ``sqrt(2 / pi)``, ``1 - momentum``) is done once, ahead,
  and is not counted: only operations that touch at least one Counted number are.

>>> with counting() as tally:
...     y = 1 / (1 + exp(-Counted(0.0)))
>>> y.value, tally.flops, dict(tally)
(0.5, 4, {'neg': 1, 'exp': 1, 'add': 1, 'div': 1})
"""

from __future__ import annotations

import cmath
import functools
import itertools
import math
import operator
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import mpmath
import numpy as np


class Tally(Counter[str]):
    """How often each elementary operation was done."""

    @property
    def flops(self) -> int:
        """All operations together: 1 FLOP each."""
        return sum(self.values())


_open_tallies: list[Tally] = []


@contextmanager
def counting() -> Iterator[Tally]:
    """Tally the operations done on Counted numbers in this block; blocks may nest."""
    tally = Tally()
    _open_tallies.append(tally)
    try:
        yield tally
    finally:
        _open_tallies.pop()


def _plain(x: Any) -> Any:
    return x.value if isinstance(x, Counted) else x


def apply(name: str, function: Callable[..., Any], *operands: Any) -> Any:
    """``function`` of the operands' values, tallied once under ``name`` if any operand is Counted."""
    if not any(isinstance(x, Counted) for x in operands):
        return function(*operands)
    for tally in _open_tallies:
        tally[name] += 1
    return Counted(function(*map(_plain, operands)))


def elementary(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A counted version of an elementary function: one FLOP a call."""
    return functools.wraps(function, assigned=())(lambda *operands: apply(name, function, *operands))


class Counted:
    """A number whose every use in arithmetic, comparison or an elementary function counts 1 FLOP."""

    __slots__ = ("value",)
    __array_ufunc__ = None  # numpy scalars leave mixed arithmetic to us

    def __init__(self, value: Any = 1.0) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Counted({self.value!r})"

    def __bool__(self) -> bool:
        """Branching on a counted comparison is free; the comparison was counted."""
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value)

    __hash__ = None  # type: ignore[assignment]


def _binary(name: str, function: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    def forward(self: Counted, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else apply(name, function, self, other)

    def backward(self: Counted, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else apply(name, function, other, self)

    return forward, backward


for _name, _function in {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift, "rshift": operator.rshift,
}.items():  # fmt: skip
    _forward, _backward = _binary("div" if _name == "truediv" else _name, _function)
    setattr(Counted, f"__{_name}__", _forward)
    setattr(Counted, f"__r{_name}__", _backward)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Counted, f"__{_name}__", _binary(_name, getattr(operator, _name))[0])
for _name, _function in {"neg": operator.neg, "abs": abs, "invert": operator.invert}.items():
    setattr(Counted, f"__{_name}__", functools.partialmethod(lambda self, n, f: apply(n, f, self), _name, _function))


def select(condition: Any, if_true: Any, if_false: Any) -> Any:
    """One of two values already there: 0 FLOP."""
    return if_true if condition else if_false


def total(items: Iterable[Any]) -> Any:
    """Sum of n numbers by n - 1 additions.

    >>> with counting() as tally:
    ...     total(array(5))  # doctest: +ELLIPSIS
    Counted(...)
    >>> tally.flops
    4
    """
    return functools.reduce(operator.add, items)


def array(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Any:
    """A numpy object array of Counted numbers with arbitrary values: index it, loop over it, reshape it."""
    generator = random.Random(seed)  # noqa: S311 - test data
    result = np.empty(shape, dtype=object)
    for index in itertools.product(*map(range, shape)):
        result[index] = Counted(generator.uniform(low, high))
    return result


def values(items: Any) -> Any:
    """The bare numbers of an array (or one number), to compare with torch: costs nothing."""
    if isinstance(items, Counted):
        return items.value
    return np.vectorize(_plain)(np.asarray(items, dtype=object))


def _polygamma0(x: float) -> float:
    return float(mpmath.digamma(x))


def _erfinv(x: float) -> float:
    return float(mpmath.erfinv(x))


max_, min_ = elementary("max", max), elementary("min", min)
abs_, round_, power = elementary("abs", abs), elementary("round", round), elementary("pow", operator.pow)
floor, ceil, trunc = elementary("floor", math.floor), elementary("ceil", math.ceil), elementary("trunc", math.trunc)
sign = elementary("sign", lambda x: (x > 0) - (x < 0))
exp = elementary("exp", lambda x: cmath.exp(x) if isinstance(x, complex) else math.exp(x))
exp2, expm1 = elementary("exp2", lambda x: 2.0**x), elementary("expm1", math.expm1)
log, log2, log10 = elementary("log", math.log), elementary("log2", math.log2), elementary("log10", math.log10)
log1p, sqrt = elementary("log1p", math.log1p), elementary("sqrt", math.sqrt)
rsqrt = elementary("rsqrt", lambda x: 1 / math.sqrt(x))
sin, cos, tan = elementary("sin", math.sin), elementary("cos", math.cos), elementary("tan", math.tan)
asin, acos, atan = elementary("asin", math.asin), elementary("acos", math.acos), elementary("atan", math.atan)
sinh, cosh, tanh = elementary("sinh", math.sinh), elementary("cosh", math.cosh), elementary("tanh", math.tanh)
asinh, acosh = elementary("asinh", math.asinh), elementary("acosh", math.acosh)
atanh, atan2 = elementary("atanh", math.atanh), elementary("atan2", math.atan2)
erf, erfc, erfinv = elementary("erf", math.erf), elementary("erfc", math.erfc), elementary("erfinv", _erfinv)
lgamma, digamma = elementary("lgamma", math.lgamma), elementary("digamma", _polygamma0)
