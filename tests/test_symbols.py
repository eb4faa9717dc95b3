"""Sizes: exact for numbers and symbols alike, written as code and read back, and nothing but arithmetic."""

from __future__ import annotations

import math

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from costmodel.symbols import (
    as_expr,
    bind,
    ceil_div,
    compile_codes,
    floor_div,
    from_code,
    is_symbolic,
    maximum,
    product,
    symbol,
    symbol_names,
    to_code,
)

NAMES = ("batch", "height", "width")
bindings = st.fixed_dictionaries({name: st.integers(1, 3000) for name in NAMES})
positive = st.integers(1, 40)


class Size:
    """A random size twice: as an expression, and as Python's own integer arithmetic on numbers."""

    def __init__(self, dim, value):
        self.dim, self.value = dim, value

    def __repr__(self):
        return str(self.dim)


def _leaf(name):
    return Size(symbol(name), lambda at: at[name])


def _floor(size, divisor):
    return Size(floor_div(size.dim, divisor), lambda at: size.value(at) // divisor)


def _ceil(size, divisor):
    return Size(ceil_div(size.dim, divisor), lambda at: -(-size.value(at) // divisor))


def _plus(size, number):
    return Size(size.dim + number, lambda at: size.value(at) + number)


def _times(left, right):
    return Size(left.dim * right.dim, lambda at: left.value(at) * right.value(at))


def _sum(left, right):
    return Size(left.dim + right.dim, lambda at: left.value(at) + right.value(at))


def _max(left, right):
    return Size(maximum(left.dim, right.dim), lambda at: max(left.value(at), right.value(at)))


def _grown(smaller):
    return st.one_of(
        st.builds(_floor, smaller, positive),
        st.builds(_ceil, smaller, positive),
        st.builds(_plus, smaller, st.integers(-5, 20)),
        st.builds(_times, smaller, smaller),
        st.builds(_sum, smaller, smaller),
        st.builds(_max, smaller, smaller),
    )


sizes = st.recursive(st.sampled_from(NAMES).map(_leaf), _grown, max_leaves=5)


@given(sizes, bindings)
def test_an_expression_takes_the_value_of_pythons_integer_arithmetic(size, at):
    assert bind(size.dim, at) == size.value(at)


@given(sizes, bindings)
def test_code_evaluates_to_the_same_number(size, at):
    assert compile_codes([to_code(size.dim)], NAMES)(at) == [size.value(at)]


@given(sizes, bindings)
def test_code_reads_back_as_an_expression_of_the_same_value(size, at):
    again = from_code(to_code(size.dim))
    assert bind(again, at) == size.value(at)
    assert symbol_names([again]) <= symbol_names([size.dim])


@given(st.integers(-1000, 1000), positive, positive)
def test_roundings_of_numbers(number, first, second):
    assert floor_div(number, first) == math.floor(sympy.Rational(number, first))
    assert ceil_div(number, first) == math.ceil(sympy.Rational(number, first))
    assert floor_div(floor_div(number, first), second) == number // (first * second)  # nested roundings are one


@given(positive, positive, bindings)
def test_nested_roundings_of_symbols_are_folded(first, second, at):
    folded = ceil_div(ceil_div(symbol("height"), first), second)
    assert len(as_expr(folded).atoms(sympy.ceiling, sympy.floor)) <= 1
    assert bind(folded, at) == math.ceil(sympy.Rational(at["height"], first * second))


def test_a_division_known_to_be_exact_stays_exact_beyond_the_precision_of_floats():
    half = symbol("batch") * (symbol("batch") + 1) / 2
    large = 2**61 + 1  # odd, and (n * (n + 1) / 2) has 122 bits
    assert compile_codes([to_code(half)], ["batch"])({"batch": large}) == [large * (large + 1) // 2]


def test_integers_need_no_code():
    assert to_code(7) == from_code(7) == bind(7, {}) == 7
    assert to_code(sympy.Integer(7)) == 7
    assert type(to_code(sympy.Integer(7))) is int
    assert product([2, 3]) == 6 and not is_symbolic(product([2, 3]))


NOT_ARITHMETIC = [
    "__import__('os')",
    "batch.__class__",
    "batch.real",
    "[batch]",
    "{batch: 1}",
    "'text'",
    "lambda: 1",
    "batch; batch",
    "batch\nimport os",
    "(x := 1)",
    "batch == 1",
    "open(batch)",
    "exec(batch)",
    "().__doc__",
]


@pytest.mark.parametrize("code", NOT_ARITHMETIC)
def test_code_that_is_more_than_integer_arithmetic_is_refused(code):
    """Codes come from cache files, which anybody may have written."""
    with pytest.raises((ValueError, SyntaxError, NameError)):
        compile_codes([code], ["batch"])({"batch": 2})


@pytest.mark.parametrize("code", NOT_ARITHMETIC)
def test_an_expression_is_not_read_from_such_code_either(code):
    with pytest.raises((ValueError, SyntaxError, TypeError)):
        from_code(code)


@pytest.mark.parametrize("name", ["batch=open", "__builtins__", "a.b", "a b"])
def test_names_that_are_not_identifiers_are_refused(name):
    with pytest.raises((ValueError, SyntaxError)):
        compile_codes(["1"], [name])


@pytest.mark.parametrize(
    "code",
    [
        "batch if batch else 1",
        "[batch for batch in batch]",
        "9**9**9",
        "batch**batch",
        "not batch",
        "lambda: 1",
        "(x:=9)",
    ],
)
def test_codes_that_are_more_than_arithmetic_are_refused(code):
    with pytest.raises(ValueError, match="not an integer expression"):
        compile_codes([code], ["batch"])
    with pytest.raises(ValueError, match="not an integer expression"):
        from_code(code)
