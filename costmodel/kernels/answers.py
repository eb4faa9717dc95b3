"""Answers: what a lowering was told of its machine. Machines that would tell it the same share its plan.

Rules of kernels are plain code, and the machine is all that parts two lowerings of one graph under one execution. So a
plan holds for every machine that answers what was asked on the way as the first one did: of a hundred profiles, a
convolutional network in fp32 sees three kinds of GPU, whatever their generations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, NamedTuple, cast

from costmodel.errors import CostmodelError
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import KernelPlan

__all__ = ["Answers", "answers_of", "questioned", "shared_plan", "would_tell"]

#: The way to a fact, from a profile: attributes, and calls as (method, arguments, those by name); and the fact, of a
#: record its type.
Answers = dict[tuple[Any, ...], Any]

#: Plans that are kept with a graph: more than there are kinds of machines that differ in them.
_MOST_PLANS = 64


class _Questioned:
    """A profile, or a record in it, that notes what is read of it: plain values, and of records only what is read."""

    def __init__(self, subject: Any, answers: Answers, way: tuple[Any, ...]) -> None:
        self._subject, self._answers, self._way = subject, answers, way

    def __getattr__(self, name: str) -> Any:
        """Called for what has not been asked before; kept for the next time."""
        value = getattr(self._subject, name)
        found = self._method(name, value) if callable(value) else self._noted(name, value)
        self.__dict__[name] = found
        return found

    def _method(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            return self._noted((name, arguments, tuple(named.items())), method(*arguments, **named))

        return ask

    def _noted(self, question: Any, value: Any) -> Any:
        way = (*self._way, question)
        self._answers[way] = _fact(value)
        return _Questioned(value, self._answers, way) if _is_record(value) else value


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _fact(value: Any) -> Any:
    return type(value) if _is_record(value) else value


def questioned(hardware: HardwareProfile, answers: Answers) -> HardwareProfile:
    """The same machine to whoever reads it; what is read is noted in ``answers``."""
    return cast("HardwareProfile", _Questioned(hardware, answers, ()))


def answers_of(hardware: HardwareProfile) -> Answers:
    """What a questioned machine has answered so far; of a profile itself nothing is known."""
    return hardware._answers if isinstance(hardware, _Questioned) else {}


def would_tell(hardware: HardwareProfile, answers: Mapping[tuple[Any, ...], Any]) -> bool:
    """Whether a machine answers all that another was asked as that one did.

    >>> from costmodel.hardware import load
    >>> told: Answers = {}
    >>> questioned(load("a100"), told).has_tf32, would_tell(load("l4"), told), would_tell(load("t4"), told)
    (True, True, False)
    """
    subject = hardware._subject if isinstance(hardware, _Questioned) else hardware
    return all(_told(subject, way) == answer for way, answer in answers.items())


def _told(subject: Any, way: tuple[Any, ...]) -> Any:
    """The fact at the end of a way; NotImplemented, which equals no fact, where the machine has no such thing."""
    value = subject
    try:
        for step in way:
            if isinstance(step, str):
                value = getattr(value, step)
            else:
                name, arguments, named = step
                value = getattr(value, name)(*arguments, **dict(named))
    except (AttributeError, CostmodelError):
        return NotImplemented
    return _fact(value)


class _Shared(NamedTuple):
    """A plan, and what it hangs on: sizes and execution, and what the machine told."""

    conditions: tuple[Any, ...]
    answers: Answers
    plan: KernelPlan


def shared_plan(
    graph: OpGraph,
    execution: Execution,
    hardware: HardwareProfile,
    lower: Callable[[OpGraph, Execution, HardwareProfile], KernelPlan],
) -> KernelPlan:
    """What ``lower`` makes of a bound graph on a machine: made once for all machines that tell it the same, and kept
    with the graph."""
    if graph.origin is None or graph.origin[0].memo is not graph.memo:
        return lower(graph, execution, hardware)
    run, sizes = execution, tuple(graph.origin[1].items())
    conditions = (sizes, run.batch, run.precision, run.software, run.layout, run.engine, run.phase, run.train_mode)
    kept: list[_Shared] = graph.memo.setdefault("plans", [])
    for shared in kept[::-1]:
        if shared.conditions == conditions and would_tell(hardware, shared.answers):
            return shared.plan
    answers: Answers = {}
    plan = lower(graph, execution, questioned(hardware, answers))
    kept.append(_Shared(conditions, answers, plan))
    del kept[:-_MOST_PLANS]
    return plan
