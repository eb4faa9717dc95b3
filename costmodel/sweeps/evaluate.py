"""Points worked out: one record each, numbers or the reason why there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

from costmodel.api import analyze
from costmodel.errors import CostmodelError, ModelError, UnknownModelError
from costmodel.execution import Optimizer, Phase, Trained
from costmodel.presented import Analysis
from costmodel.sweeps.columns import COLUMNS, COORDINATES, SHARED
from costmodel.sweeps.grid import Point, Task
from costmodel.tensor import CACHED

__all__ = ["Record", "evaluate", "evaluated", "failed"]

#: Values by the key of the column, all keys there.
Record: TypeAlias = "dict[str, Any]"

#: Words that a machine, a mode or a dtype may refuse, which must cost its own points alone their numbers.
_OF_THE_POINT = ("power_limit", "kv_dtype")

#: Words that say nothing of the points of other phases.
_OF_TRAINING = (*Optimizer.names(), *Trained.names())

_EMPTY: Record = {column.key: None for column in COLUMNS}
_FROM_TOTALS = tuple(
    column.key
    for column in COLUMNS
    if column not in (*COORDINATES, *SHARED)
    and column.key not in {"throughput_per_s", "bound", "fits", "usable_bytes", "uncosted_ops", "reason"}
)


def evaluated(task: Task) -> list[tuple[int, Record]]:
    """All records of a task, by the number of the point: what is sent to another process."""
    return list(evaluate(task))


def evaluate(task: Task) -> Iterator[tuple[int, Record]]:
    """The record of each point as it is known, by the point's number. A point that fails costs no other one its
    numbers; a model that cannot be built at all is tried once."""
    of_phase: dict[str, Analysis] = {}  # whose words and sizes are each phase's own
    unbuildable = ""
    for point, members in task.by_trace():
        try:
            if unbuildable:
                raise ModelError(unbuildable)
            here = of_phase[point.phase] = _traced(task, point, of_phase.get(point.phase))
        except Exception as error:
            if not of_phase and isinstance(error, (ModelError, UnknownModelError)):
                unbuildable = str(error)
            yield from ((number, _failed(member, error)) for number, member in members)
            continue
        yield from _evaluated(task, members, here)


def _evaluated(task: Task, members: list[tuple[int, Point]], here: Analysis) -> Iterator[tuple[int, Record]]:
    """Points of one trace: what they have in common is worked out once, for all machines."""
    shared = {name: task.others[name] for name in _OF_THE_POINT if name in task.others}
    of_dtype: dict[tuple[str | None, str | None], Analysis] = {}
    for number, member in members:
        try:
            like = of_dtype.get((member.dtype, member.weights), here)
            words = shared if member.weights is None else {**shared, "weights": member.weights}
            analysis = like.at(hw=task.machines[member.hw], dtype=member.dtype, mode=member.mode, **words)
            record = _record(member, analysis)
            of_dtype.setdefault((member.dtype, member.weights), analysis)  # from here on at() finds its costs
        except Exception as error:
            record = _failed(member, error)
        yield number, record


def _traced(task: Task, point: Point, first: Analysis | None) -> Analysis:
    """An analysis whose trace serves ``point``, from one of the same model where there is one; in the default dtype
    and mode, which every machine has."""
    machine = task.machines[point.hw]
    sizes: dict[str, Any] = {"image_size": point.image_size, "seq_len": point.seq_len, "layout": point.layout}
    sizes |= {} if point.context is None else {"context": point.context}
    phase: dict[str, Any] = {} if point.phase == "inference" else {"phase": point.phase}
    if first is None:
        not_for = _OF_THE_POINT if point.phase == Phase.TRAINING.value else (*_OF_THE_POINT, *_OF_TRAINING)
        words = {name: word for name, word in task.others.items() if name not in not_for}
        return analyze(task.model, hw=machine, batch=point.batch, symbols=task.symbols, **sizes, **words, **phase)
    return first.at(hw=machine, batch=point.batch, **sizes, **phase)


def _record(point: Point, analysis: Analysis) -> Record:
    totals = analysis.totals
    usable = analysis.memory.usable_bytes
    batch, seconds = analysis.execution.batch, totals.latency_s
    bounds = analysis.bounds
    return {
        **_coordinates(point),
        **_sizes(analysis),
        **_conditions(analysis),
        "batch": batch,
        **{key: _plain(getattr(totals, key)) for key in _FROM_TOTALS},
        "throughput_per_s": batch / seconds if seconds else None,
        "bound": str(next(iter(bounds), "")) or None,
        "fits": analysis.memory.fits,
        "usable_bytes": None if usable is None else int(usable.usual),
        "uncosted_ops": sum(analysis.node_costs.uncosted.values()),
        "reason": None,
    }


def _conditions(analysis: Analysis) -> Record:
    """The words of a run that are columns; None for those that say nothing of it."""
    execution = analysis.execution
    words = execution.words
    return {
        **{key: words.get(key) for key in ("dtype", "weights", "optimizer", "trained")},
        "host": analysis.host_span.assumed.name,
        "power_limit_w": execution.power_limit_w,
    }


def _sizes(analysis: Analysis) -> Record:
    """Height and width of the images [pixels], tokens of the sequences that go in and of those in the cache, where
    there are some."""
    inputs = [spec for spec in analysis.model.inputs if not spec.name.startswith(CACHED)]
    shapes = [(spec.shape, spec.dtype) for spec in inputs]
    image = next((shape for shape, dtype in shapes if len(shape) >= 4 and dtype.startswith(("float", "bfloat"))), None)
    tokens = next((shape for shape, dtype in shapes if len(shape) == 2 and dtype.startswith("int")), None)
    return {
        "height": int(image[-2]) if image else None,  # type: ignore[call-overload]
        "width": int(image[-1]) if image else None,  # type: ignore[call-overload]
        "seq_len": int(tokens[1]) if tokens else None,  # type: ignore[call-overload]
        "context": analysis.execution.sizes.get("context"),
    }


def _coordinates(point: Point) -> Record:
    height, width = point.image_size or (None, None)
    named = ("model", "hw", "seq_len", "context", "dtype", "weights", "mode", "layout", "phase", "batch")
    known = {key: getattr(point, key) for key in named}
    return {**_EMPTY, **known, "height": height, "width": width}


def _failed(point: Point, error: Exception) -> Record:
    """The record of a point that failed; a fault of ours is named as such."""
    lines = str(error).splitlines() or [type(error).__name__]
    said = lines[0] if isinstance(error, CostmodelError) else f"internal error: {type(error).__name__}: {lines[0]}"
    return failed(point, said[:300])


def failed(point: Point, reason: str) -> Record:
    """The record of a point without numbers."""
    return {**_coordinates(point), "reason": reason}


def _plain(value: Any) -> Any:
    """A number that every format holds: whole ones as such, None for what is not known."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
