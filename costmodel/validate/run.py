"""validate(): measured rows in, predictions beside them out; graphs load once each, in several processes."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from costmodel.analysis import Analysis
from costmodel.cache import CachedTrace
from costmodel.errors import CostmodelError, InputError, TraceError, UnknownHardwareError, UnknownModelError, librarian
from costmodel.execution import Phase, Variant
from costmodel.hardware import HardwareProfile, load
from costmodel.validate.conditions import execution_of, unsaid
from costmodel.validate.fitted_hosts import FittedHost, fit_hosts, host_curve
from costmodel.validate.host_time import with_floors
from costmodel.validate.judged import Judged, judge, judge_operator, operator_roofline_s
from costmodel.validate.memory import JudgedMemory, judge_memory
from costmodel.validate.published import OtherNetworkError, check_network
from costmodel.validate.rows import Measured, MeasuredRow, MemoryRow, ModelRow, OperatorRow, Unusable

__all__ = ["Progress", "TraceLoader", "Validation", "load_row", "sample", "validate"]

#: :func:`costmodel.traced.load_trace`, or another function of its signature.
TraceLoader: TypeAlias = "Callable[..., CachedTrace]"
#: Called with rows done and rows in all.
Progress: TypeAlias = "Callable[[int, int], None]"
_Outcome: TypeAlias = "Judged | JudgedMemory | Unusable"
_Machines: TypeAlias = "Mapping[str, HardwareProfile]"

_T = TypeVar("_T")

_OPERATORS_A_TASK = 500


@dataclass(frozen=True, slots=True)
class Validation:
    """Rows judged, rows that could not be with reasons, and how many usable rows a sample left aside."""

    judged: tuple[Judged, ...]
    unusable: tuple[Unusable, ...]
    not_sampled: int = 0
    seconds: float = 0.0
    hosts: tuple[FittedHost, ...] = ()
    memory: tuple[JudgedMemory, ...] = ()
    """Rows of measured memory, beside those of time."""


class _How(NamedTuple):
    """What all rows are predicted with: hosts by device, and whether one is to be fitted."""

    hosts: Mapping[str, str]
    fit_host: bool


def validate(
    measured: Measured,
    *,
    trace: TraceLoader,
    hardware: Mapping[str, HardwareProfile] | None = None,
    limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    hosts: Mapping[str, str] | None = None,
    fit_host: bool = False,
    progress: Progress | None = None,
) -> Validation:
    """Predict every row of ``measured`` and put the prediction beside the measurement.

    ``trace`` loads the graph of a named model; it must be a module's function where ``jobs`` > 1. ``hardware`` gives
    profiles for devices that have none of their own, by the name in the rows; the key "" serves all such devices.
    ``hosts`` names the host of a device, "" that of all others; ``fit_host`` finds one for each device from its eager
    rows instead (:mod:`costmodel.validate.fitted_hosts`).
    ``limit`` judges a random sample of that many rows, drawn from each group in proportion.
    Raises InputError when no row can be judged.
    """
    started = time.perf_counter()
    machines, rows, unusable = _with_machines(measured.rows, hardware or {})
    models: list[MeasuredRow] = [row for row in rows if isinstance(row, ModelRow)]
    operators = with_floors(
        (row for row in rows if isinstance(row, OperatorRow)),
        lambda row: operator_roofline_s(row, machines[row.device]),
        lambda row: machines[row.device].kernel_fixed_s,
    )
    chosen = sample([*models, *operators], limit, seed)
    judged: list[Judged] = []
    memory: list[JudgedMemory] = []
    how = _How(hosts or {}, fit_host)
    for outcome in _outcomes(_tasks(chosen), trace, machines, how, jobs, progress, len(chosen)):
        if isinstance(outcome, JudgedMemory):
            memory.append(outcome)
        else:
            (judged if isinstance(outcome, Judged) else unusable).append(outcome)  # type: ignore[arg-type]
    everything = [*measured.unusable, *unusable]
    if not judged and not memory:
        raise InputError(_nothing(everything))
    judged.sort(key=lambda item: (item.row.file, item.row.line))
    memory.sort(key=lambda item: (item.row.file, item.row.line))
    everything.sort(key=lambda row: (row.file, row.line))
    fitted: list[FittedHost] = []
    if fit_host and judged:
        judged, fitted = fit_hosts(judged)
    seconds = time.perf_counter() - started
    left = len(rows) - len(chosen)
    return Validation(tuple(judged), tuple(everything), left, seconds, tuple(fitted), tuple(memory))


def sample(rows: Sequence[MeasuredRow], limit: int | None, seed: int) -> list[MeasuredRow]:
    """``limit`` of the rows (all of them where None), from each group in proportion to its size, one at least
    where there is room; the same rows for the same seed."""
    if limit is None or limit >= len(rows):
        return list(rows)
    groups: dict[tuple[str, ...], list[MeasuredRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    generator = random.Random(seed)  # noqa: S311 - a sample, no secret
    shuffled = [generator.sample(groups[key], len(groups[key])) for key in sorted(groups)]
    # Every row gets the share of its group that is chosen up to it: taking the least shares is in proportion.
    order = sorted((i / len(group), -len(group), g, i) for g, group in enumerate(shuffled) for i in range(len(group)))
    return [shuffled[g][i] for _, _, g, i in order[:limit]]


def _with_machines(
    rows: Iterable[MeasuredRow], given: Mapping[str, HardwareProfile]
) -> tuple[dict[str, HardwareProfile], list[MeasuredRow], list[Unusable]]:
    """Profiles by the rows' own words, the rows with their device's proper name, and the rows without a machine."""
    machines: dict[str, HardwareProfile] = {}
    names: dict[str, str | None] = {}
    usable, unusable = [], []
    for row in rows:
        if row.device not in names:
            profile = _machine(row.device, given)
            names[row.device] = None if profile is None else profile.name
            if profile is not None:
                machines[profile.name] = profile
        name = names[row.device]
        if name is None:
            unusable.append(_reason(row, f"unknown device: {row.device}"))
        else:
            usable.append(row if row.device == name else replace(row, device=name))
    return machines, usable, unusable


def _machine(device: str, given: Mapping[str, HardwareProfile]) -> HardwareProfile | None:
    if device in given:
        return given[device]
    try:
        return load(device)
    except UnknownHardwareError:
        return given.get("")


def _reason(row: MeasuredRow, reason: str) -> Unusable:
    return Unusable(file=row.file, line=row.line, reason=reason, about=row.model)


def _nothing(unusable: Sequence[Unusable]) -> str:
    counts: dict[str, int] = {}
    for row in unusable:
        counts[row.reason] = counts.get(row.reason, 0) + 1
    listed = "\n".join(
        f"{count} x {reason}" for reason, count in sorted(counts.items(), key=lambda pair: -pair[1])[:10]
    )
    return librarian("no row can be held against a prediction", do=listed)


# -- tasks: rows of one trace, or a handful of operators -----------------------------------------


def _tasks(rows: Iterable[MeasuredRow]) -> list[list[MeasuredRow]]:
    """Rows that are best done together, the graphs with most rows first."""
    traces: dict[tuple[object, ...], list[MeasuredRow]] = {}
    operators: list[MeasuredRow] = []
    for row in rows:
        if isinstance(row, ModelRow):
            traces.setdefault(row.trace_key, []).append(row)
        else:
            operators.append(row)
    chunks = [operators[i : i + _OPERATORS_A_TASK] for i in range(0, len(operators), _OPERATORS_A_TASK)]
    return [*sorted(traces.values(), key=len, reverse=True), *chunks]


def _outcomes(
    tasks: Sequence[list[MeasuredRow]],
    trace: TraceLoader,
    machines: _Machines,
    how: _How,
    jobs: int,
    progress: Progress | None,
    count: int,
) -> Iterator[_Outcome]:
    done = 0
    for outcomes in _run(tasks, trace, machines, how, min(jobs, len(tasks))):
        done += len(outcomes)
        if progress is not None:
            progress(done, count)
        yield from outcomes


def _run(
    tasks: Sequence[list[MeasuredRow]], trace: TraceLoader, machines: _Machines, how: _How, jobs: int
) -> Iterator[list[_Outcome]]:
    """Outcomes of each task as it is done: here, or in processes that start afresh (torch does not fork well)."""
    if jobs <= 1:
        for task in tasks:
            yield _work(task, trace, _machines_of(task, machines), how)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[list[_Outcome]], list[MeasuredRow]] = {
            pool.submit(_work, task, trace, _machines_of(task, machines), how): task for task in tasks
        }
        try:
            for future in as_completed(waiting):
                yield _result(future, waiting[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _machines_of(task: Iterable[MeasuredRow], machines: _Machines) -> _Machines:
    return {row.device: machines[row.device] for row in task}


def _result(future: Future[list[_Outcome]], task: list[MeasuredRow]) -> list[_Outcome]:
    """What a process found; where it died (out of memory?), that is why its rows have no prediction."""
    error = future.exception()
    if error is None:
        return future.result()
    return [_reason(row, f"the process died: {type(error).__name__}") for row in task]


def _work(rows: list[MeasuredRow], trace: TraceLoader, machines: _Machines, how: _How) -> list[_Outcome]:
    """Judge rows that share a trace, or operators."""
    models = [row for row in rows if isinstance(row, ModelRow)]
    operators = [row for row in rows if isinstance(row, OperatorRow)]
    outcomes = _judge_models(models, trace, machines, how) if models else []
    return outcomes + [_outcome(row, partial(judge_operator, row, machines[row.device])) for row in operators]


def _judge_models(rows: Sequence[ModelRow], trace: TraceLoader, machines: _Machines, how: _How) -> list[_Outcome]:
    """Rows of one trace, or of one for each batch where the graph cannot leave the batch open."""
    loaded = _guarded(partial(_load, rows[0], trace))
    if isinstance(loaded, str):
        return [_reason(row, loaded) for row in rows]
    return [_outcome(row, partial(_judge_model, row, loaded, trace, machines[row.device], how)) for row in rows]


def _judge_model(
    row: ModelRow, traced: CachedTrace, trace: TraceLoader, hardware: HardwareProfile, how: _How
) -> Judged | JudgedMemory:
    folded = _folded(traced)
    if folded and execution_of(row, traced.graph.symbols).software.reparameterized:
        row = replace(row, request=folded)
        traced = _load(row, trace)
    if "batch" not in traced.graph.symbols:
        traced = _load(row, trace, batch=row.batch)
    analysis = _analysis(row, traced, hardware, how.hosts.get(row.device) or how.hosts.get(""))
    check_network(analysis, row.params, None if analysis.execution.phase is Phase.TRAINING else row.macs)
    if isinstance(row, MemoryRow):
        return judge_memory(row, analysis)
    judged = judge(row, analysis)
    if hardware.family.issues_ahead and (open_conditions := unsaid(row)):
        judged = _widened(judged, analysis.at(**open_conditions))
    return replace(judged, curve=host_curve(analysis)) if how.fit_host else judged


def _widened(judged: Judged, other: Analysis) -> Judged:
    """The row with an interval that holds the same step under other conditions too."""
    low, high = other.totals.latency_low_s, other.totals.latency_high_s
    return replace(judged, low_s=min(judged.low_s, low), high_s=max(judged.high_s, high))


def _folded(traced: CachedTrace) -> str | None:
    """The request for the same model with its branches folded, from the note of a model that can fold some."""
    requests = (word.rstrip(";,") for note in traced.graph.notes for word in note.split())
    return next((word for word in requests if word.endswith("+reparameterized")), None)


def load_row(row: ModelRow, trace: TraceLoader) -> CachedTrace:
    """The graph of a row's model; one at the row's own batch where the batch cannot be left open."""
    traced = _load(row, trace)
    return traced if "batch" in traced.graph.symbols else _load(row, trace, batch=row.batch)


def _load(row: ModelRow, trace: TraceLoader, **options: Any) -> CachedTrace:
    """The graph of a row's model: one of timm's, or of any other source where timm has none of that name."""
    options |= {"symbols": ("batch",), "sizes": dict(row.sizes)}
    options["variant"] = Variant.of(execution_of(row, {}), "cuda")
    try:
        return trace(row.request, **options)
    except UnknownModelError:
        if row.request == row.model or row.request.startswith("hf:"):
            raise
        return trace(row.model, **options)


def _analysis(row: ModelRow, traced: CachedTrace, hardware: HardwareProfile, host: str | None) -> Analysis:
    return Analysis(
        name=traced.name,
        source=traced.source,
        record=traced.graph,
        hardware=hardware,
        execution=execution_of(row, traced.graph.symbols).changed(host=host),
        closed_forms=traced.closed_forms,
    )


def _outcome(row: MeasuredRow, judge_row: Callable[[], Judged | JudgedMemory]) -> _Outcome:
    try:
        outcome = _guarded(judge_row)
    except OtherNetworkError as error:
        return replace(_reason(row, str(error)), about=f"{row.model}: {error.details}")
    return _reason(row, outcome) if isinstance(outcome, str) else outcome


def _guarded(action: Callable[[], _T]) -> _T | str:
    """What ``action`` returns, or why it failed: one row's failure must not cost the others their prediction."""
    try:
        return action()
    except OtherNetworkError:
        raise
    except UnknownModelError:
        return "unknown model"
    except TraceError as error:
        return f"trace failure: {_first_line(error)}"
    except CostmodelError as error:
        return _first_line(error)
    except Exception as error:  # a fault of ours: named as such and counted
        return f"internal error: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
