"""Conditions on the rows of a sweep, ``latency_ms < 5 and fits``: read as syntax, checked, and never run as code.

Names are columns (:func:`costmodel.sweeps.columns.named`); there are numbers, 'texts', comparisons, ``in``, ``and``,
``or``, ``not``, and sums and products of numbers. What a row does not know makes a condition neither true nor false,
and a row passes only where it is true.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from costmodel.errors import InputError, librarian
from costmodel.sweeps.columns import named

__all__ = ["condition"]

_Row: TypeAlias = "Mapping[str, Any]"
_Reader: TypeAlias = "Callable[[_Row], Any]"

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_EQUAL = (operator.eq, operator.ne)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_EXAMPLE = "Write such as: latency_ms < 5 and fits and hw in ('t4', 'a100') and bound == 'memory'"


def condition(text: str) -> Callable[[_Row], bool]:
    """The condition that ``text`` says, as a function of a row.

    Raises InputError for what is no condition, with the part that is not understood.

    >>> condition("latency_ms < 5 and not fits")({"latency_s": 0.001, "fits": False})
    True
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(librarian(f"{text!r} is no condition", do=_EXAMPLE)) from error
    _must_be_condition(tree)
    read = _reader(tree)

    def holds(row: _Row) -> bool:
        try:
            return bool(read(row) is True)
        except TypeError as error:
            raise InputError(librarian(f"{text!r} compares texts with numbers", do=_EXAMPLE)) from error

    return holds


def _must_be_condition(node: ast.expr) -> None:
    """Raises InputError where ``node`` is a number or a text, which is neither true nor false."""
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _must_be_condition(value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _must_be_condition(node.operand)
    elif isinstance(node, ast.Name):
        if (column := named(node.id).column).kind != "truth":
            said = {"text": "is a text", "count": "is a count"}.get(column.kind, "is a quantity")
            raise InputError(librarian(f"{node.id} alone {said}, neither true nor false", do=_EXAMPLE))
    elif isinstance(node, (ast.BinOp, ast.Constant, ast.Tuple, ast.List)) and not _is_truth(node):
        raise InputError(librarian(f"{ast.unparse(node)} alone is neither true nor false", do=_EXAMPLE))


def _is_truth(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _reader(node: ast.expr) -> _Reader:
    """A value of a row: True, False or None for conditions, a number or a text."""
    if isinstance(node, ast.BoolOp):
        return _and_or(isinstance(node.op, ast.And), [_reader(value) for value in node.values])
    if isinstance(node, ast.Compare):
        return _compared(node)
    if isinstance(node, ast.Name):
        return named(node.id).of
    if isinstance(node, (ast.Constant, ast.Tuple, ast.List)):
        return _constant(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        change: Callable[[Any], Any] = operator.not_ if isinstance(node.op, ast.Not) else operator.neg
        inner = _reader(node.operand)
        return lambda row: None if (value := inner(row)) is None else change(value)
    if isinstance(node, ast.BinOp) and (work := _ARITHMETIC.get(type(node.op))):
        return _worked(work, _reader(node.left), _reader(node.right))
    raise InputError(librarian(f"a condition has no {ast.unparse(node)!r}", do=_EXAMPLE))


def _and_or(is_and: bool, parts: list[_Reader]) -> _Reader:
    """All or any of the parts; not known where those that are known do not decide."""

    def read(row: _Row) -> bool | None:
        values = [part(row) for part in parts]
        decided = [value for value in values if value is not None and bool(value) is not is_and]
        return (not is_and) if decided else None if None in values else is_and

    return read


def _compared(node: ast.Compare) -> _Reader:
    sides = [node.left, *node.comparators]
    about_machines = any(isinstance(side, ast.Name) and side.id in ("hw", "machine") for side in sides)
    readers = [_machine(_reader(side)) if about_machines else _reader(side) for side in sides]
    tests = []
    for i, op in enumerate(node.ops):
        if type(op) not in _COMPARISONS:
            raise InputError(librarian(f"a condition has no {ast.unparse(node)!r}", do=_EXAMPLE))
        tests.append((_COMPARISONS[type(op)], readers[i], readers[i + 1]))

    def read(row: _Row) -> bool | None:
        for test, left, right in tests:
            a, b = left(row), right(row)
            if a is None or b is None:
                return None
            if test in _EQUAL and isinstance(a, str) is not isinstance(b, str):
                raise TypeError  # a text without quotes, such as bound == memory, is a column
            if not test(a, b):
                return False
        return True

    return read


def _machine(read: _Reader) -> _Reader:
    """Machines by any of their names."""
    from costmodel.hardware import aliases

    known = aliases()

    def proper(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(proper, value))
        name = value.lower() if isinstance(value, str) else value
        return known.get(name, name)

    return lambda row: proper(read(row))


def _worked(work: Callable[[Any, Any], Any], left: _Reader, right: _Reader) -> _Reader:
    def read(row: _Row) -> Any:
        a, b = left(row), right(row)
        if isinstance(a, (str, tuple)) or isinstance(b, (str, tuple)):
            raise TypeError  # Python repeats and joins them
        try:
            return None if a is None or b is None else work(a, b)
        except ZeroDivisionError:
            return None

    return read


def _constant(node: ast.expr) -> _Reader:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise InputError(librarian(f"a condition has no {ast.unparse(node)!r}", do=_EXAMPLE)) from error
    values = tuple(value) if isinstance(value, (list, tuple)) else value
    for each in values if isinstance(values, tuple) else (values,):
        if not isinstance(each, (bool, int, float, str)):
            raise InputError(librarian(f"a condition has no {each!r}", do=_EXAMPLE))
    return lambda row: values
