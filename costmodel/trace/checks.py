"""Questions that a forward pass asks of values which nobody knows before it runs, and what is assumed for an answer.

A question is a tensor that becomes a Python number (``if mask.any():``, ``assert (x > 0).all()``, ``int(x.max())``).
It is named by the line of the model that asks, ``net.py:12``, and answered in this order:

1. with what the caller says for that name (``--assume net.py:12=false``), whatever the question is;
2. a *check* is assumed. A check is a truth found by ``all`` or ``any`` (or ``torch.equal``), which is how arguments and
   masks are examined, or any truth that an ``assert`` states or that only decides whether an error is raised. It is
   assumed true, as a condition that arguments have to fulfil, and as "there is something to mask", whose branch does
   the work; only a test for what should not be there, ``isnan`` or ``isinf``, is assumed false;
3. where the line that asked raises an error on the assumed answer, the run is made again with the other one: what lets
   the model go on is what the caller of a model means;
4. everything else (``if x.mean() > 0:``, ``int(x.max())``) decides what is computed and is not assumed: refused, with
   the ways to say it.
"""

from __future__ import annotations

import ast
import linecache
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from costmodel.nodes import Assumption

__all__ = ["Answer", "Checks", "Line", "model_line"]

Answer = bool | int | float

#: Folds of truths, by which code examines arguments.
_FOLDS = frozenset({"aten.all", "aten.any", "aten.equal", "aten._is_all_true", "aten._is_any_true"})
#: What joins the results of several folds.
_JOINS = frozenset(
    f"aten.{name}" for name in "bitwise_and bitwise_or bitwise_not logical_and logical_or logical_not".split()
)
#: Tests for what should not be there.
_BAD = frozenset({"aten.isnan", "aten.isinf"})

_OURS, _TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of code: its file as a person would say it, number, function and text."""

    file: str
    number: int
    function: str
    text: str

    @property
    def name(self) -> str:
        """``net.py:12``"""
        return f"{self.file}:{self.number}"

    def __str__(self) -> str:
        return f"{self.name}, in {self.function}: {self.text}"


@dataclass(slots=True)
class _Asked:
    """The last question that was answered by assumption: where, and the frame that asked."""

    name: str
    answer: bool
    code: tuple[str, str]  # file and function


class Checks:
    """Answers the questions of one run. ``given`` are the caller's answers by name, ``turned`` assumptions that the
    model raised an error on and that are turned round. ``strict``: nothing is assumed, because the value is known at
    the sizes asked for, which this run does not have."""

    def __init__(
        self, given: Mapping[str, Answer] | None = None, turned: Mapping[str, bool] | None = None, strict: bool = False
    ) -> None:
        self.given, self.turned, self.strict = dict(given or {}), dict(turned or {}), strict
        self.used: set[str] = set()
        self.asked: list[str] = []
        self._made: dict[tuple[str, Answer], tuple[str, int]] = {}
        self._last: _Asked | None = None

    def answer(self, op: str, dtype: str, behind: Sequence[str], module: str) -> tuple[Answer | None, str]:
        """(answer or None, name of the question). ``behind`` are the operators that made the value, latest first."""
        frame = _asking_frame()
        line = model_line(frame)
        name = line.name if line else module or "(model)"
        self.asked.append(name)
        for key in (f"{module}@{name}", name):
            if key in self.given:
                self.used.add(key)
                return self._note(name, self._typed(self.given[key], dtype), line), name
        truth = dtype == "bool" or op == "aten.equal"
        if self.strict or not truth or not (_is_fold(op, behind) or _only_raises(frame)):
            return None, name
        assumed = self.turned.get(name, not _BAD & set(behind[:4]))
        if frame is not None:
            self._last = _Asked(name, assumed, (frame.f_code.co_filename, frame.f_code.co_name))
        return self._note(name, assumed, line), name

    def turn_for(self, error: BaseException) -> tuple[str, bool] | None:
        """The assumption to turn round, where ``error`` was raised by the function that asked for it last."""
        last = self._last
        if last is None or last.name in self.turned:
            return None
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if not _is_between(frame)]
        if not frames:
            return None
        code = frames[-1].f_code
        return (last.name, not last.answer) if (code.co_filename, code.co_name) == last.code else None

    @property
    def assumed(self) -> tuple[Assumption, ...]:
        """Every answer that was assumed or given, each once."""
        return tuple(Assumption(name, answer, where, count) for (name, answer), (where, count) in self._made.items())

    def _note(self, name: str, answer: Answer, line: Line | None) -> Answer:
        where, count = self._made.get((name, answer), (str(line or name), 0))
        self._made[name, answer] = (where, count + 1)
        return answer

    @staticmethod
    def _typed(answer: Answer, dtype: str) -> Answer:
        if dtype == "bool":
            return bool(answer)
        return float(answer) if dtype.startswith(("float", "bfloat")) else int(answer)


def _is_fold(op: str, behind: Sequence[str]) -> bool:
    """Whether a truth is the fold of many, or joins such folds."""
    if op in _FOLDS:
        return True
    first = next((made for made in behind if made not in _JOINS), "")
    return first in _FOLDS


def _asking_frame() -> FrameType | None:
    """The innermost frame that is not of the tracer, nor of torch's own way to it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_between(frame):
        frame = frame.f_back
    return frame


def _is_between(frame: FrameType) -> bool:
    """Whether a frame is of the tracer or of torch's way to it: a composite operator's own checks are raised there."""
    return frame.f_code.co_filename.startswith(_OURS) or _is_plumbing(frame)


def _is_plumbing(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(_TORCH) and file.endswith(("_python_dispatch.py", "_ops.py", "_compile.py", "eval_frame.py"))


def model_line(frame: FrameType | None) -> Line | None:
    """The innermost line, from ``frame`` outwards, that is the model's own, neither torch's nor ours."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OURS, _TORCH, "<")):
            text = linecache.getline(file, frame.f_lineno).strip()
            return Line(short_file(file), frame.f_lineno, frame.f_code.co_name, text)
        frame = frame.f_back
    return None


def short_file(filename: str) -> str:
    """A file as a person would say it: inside its package, or its name alone."""
    parts = Path(filename).parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    return Path(filename).name


def _only_raises(frame: FrameType | None) -> bool:
    """Whether the line asks for nothing but an error: ``assert``, or ``if`` around a sole ``raise`` or warning."""
    if frame is None:
        return False
    tree = _parsed(frame.f_code.co_filename)
    if tree is None:
        return False
    around = [s for s in ast.walk(tree) if isinstance(s, (ast.Assert, ast.If)) and _tests(s, frame.f_lineno)]
    if not around:
        return False
    innermost = max(around, key=lambda statement: statement.lineno)
    if isinstance(innermost, ast.Assert):
        return True
    return not innermost.orelse and all(map(_is_complaint, innermost.body))


def _tests(statement: ast.Assert | ast.If, line: int) -> bool:
    test: ast.expr = statement.test
    return statement.lineno <= line <= (test.end_lineno or test.lineno)


def _is_complaint(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        return True
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr.startswith("warn")


@lru_cache(maxsize=64)
def _parsed(filename: str) -> Any:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return None
