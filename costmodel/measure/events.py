"""What torch.profiler saw, as trees of operators with the kernels that each launched, read from a Chrome trace.

The same reader serves a trace that was recorded here and one that came from elsewhere. Operators (``cat`` "cpu_op")
nest by time within a thread; a backward pass on a GPU has a thread of its own. A kernel belongs to the operator that
launched it: its ``correlation`` leads to the runtime call (``cuda_runtime``, ``cuda_driver``) that lies inside that
operator; without one, ``External id`` does.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from costmodel.errors import InputError, librarian

__all__ = ["STEP", "DeviceKernel", "Event", "Recording", "Shapes", "Step", "read_trace"]

#: Name of the annotation around each step of a run that was recorded here.
STEP = "costmodel::step"
_STEP_PREFIXES = (STEP, "ProfilerStep#")  # the latter: torch.profiler's schedule and its step()

#: What autograd calls each function of a backward pass.
_ENGINE = "autograd::engine"

_ON_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
_LAUNCHES = frozenset({"cuda_runtime", "cuda_driver", "hip_runtime"})

#: Timestamps are rounded to nanoseconds and kept in float64, so that a child may seem to end after its parent [µs].
_ROUNDING_US = 0.01

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class DeviceKernel:
    """One kernel, copy or fill on a GPU, in µs. ``start_us`` is on the clock of its operators."""

    name: str
    us: float
    start_us: float = math.nan


@dataclass(slots=True)
class Event:
    """One operator call, in µs: what it called, and the GPU kernels that it launched itself.

    ``shapes`` are those of its tensors in the order of its arguments, scalars left out; None where not recorded.
    """

    name: str
    start_us: float
    duration_us: float
    shapes: Shapes | None = None
    children: list[Event] = field(default_factory=list)
    kernels: list[DeviceKernel] = field(default_factory=list)

    @property
    def end_us(self) -> float:
        """When it returned."""
        return self.start_us + self.duration_us

    @property
    def self_us(self) -> float:
        """Host time outside the operators that it called."""
        return max(self.duration_us - sum(child.duration_us for child in self.children), 0.0)

    def walk(self) -> Iterator[Event]:
        """This event and everything under it, in program order."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def device_us(self) -> float:
        """Time of all kernels launched under it, on the device."""
        return sum(kernel.us for event in self.walk() for kernel in event.kernels)


@dataclass(slots=True)
class Step:
    """Operators of one forward pass at top level, when it began and how long it took as recorded (None: not marked),
    in µs."""

    events: list[Event]
    duration_us: float | None = None
    start_us: float | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace: its steps (one where none were marked), and whether it holds kernels of a GPU."""

    steps: tuple[Step, ...]
    on_device: bool
    marked: bool


def read_trace(path: str | Path) -> Recording:
    """Read a Chrome trace that ``torch.profiler`` exported, ``.json`` or ``.json.gz``.

    Raises InputError for a file that cannot be read, is no such trace, or holds no operators.
    """
    raw = _load(Path(path))
    complete = [event for event in raw if isinstance(event, Mapping) and event.get("ph") == "X" and "ts" in event]
    operators = [event for event in complete if event.get("cat") == "cpu_op"]
    if not operators:
        raise InputError(
            librarian(
                f"{path} holds no operators",
                do="record with torch.profiler.profile(activities=[ProfilerActivity.CPU, ...], record_shapes=True)\n"
                "and export_chrome_trace(FILE)",
            )
        )
    thread = _main_thread(operators)
    forest = _Forest()
    for one in (thread, *_autograd_threads(operators, thread)):
        _plant(forest, [e for e in complete if e.get("cat") in {"cpu_op", *_LAUNCHES} and _thread(e) == one])
    orphans = _attach_kernels(forest, complete)
    roots = sorted([*forest.roots, *orphans], key=lambda event: event.start_us)
    marks = [e for e in complete if e.get("cat") in ("user_annotation", "cpu_op") and _is_mark(e, thread)]
    steps = _steps(_without_marks(roots), marks)
    return Recording(steps, any(event.get("cat") in _ON_DEVICE for event in complete), bool(marks))


def _load(path: Path) -> list[Any]:
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        trace = json.loads(text)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is no Chrome trace: {error}") from error
    events = trace.get("traceEvents") if isinstance(trace, dict) else trace
    if not isinstance(events, list):
        raise InputError(f"{path} is no Chrome trace: it has no traceEvents")
    return events


def _thread(event: Mapping[str, Any]) -> tuple[Any, Any]:
    return event.get("pid"), event.get("tid")


def _main_thread(operators: Iterable[Mapping[str, Any]]) -> tuple[Any, Any]:
    """The thread that made most operator calls outside of a backward pass: the one that ran the model."""
    counts: dict[tuple[Any, Any], int] = {}
    until: dict[tuple[Any, Any], float] = {}  # by thread, the end of the last function of autograd that began
    for event in sorted(operators, key=lambda event: event["ts"]):
        thread = _thread(event)
        if str(event.get("name", "")).startswith(_ENGINE):
            until[thread] = max(until.get(thread, 0.0), event["ts"] + event.get("dur", 0))
        counts[thread] = counts.get(thread, 0) + (event["ts"] >= until.get(thread, 0.0))
    return max(counts, key=lambda thread: counts[thread])


def _autograd_threads(operators: Iterable[Mapping[str, Any]], main: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """Threads of autograd's own, one a device: the backward pass runs there while the main thread waits."""
    engines = (_thread(event) for event in operators if str(event.get("name", "")).startswith(_ENGINE))
    return [thread for thread in dict.fromkeys(engines) if thread != main]


def _is_mark(event: Mapping[str, Any], thread: tuple[Any, Any]) -> bool:
    return _thread(event) == thread and str(event.get("name", "")).startswith(_STEP_PREFIXES)


@dataclass(slots=True)
class _Forest:
    """Trees of operators, and where runtime calls and external ids lead."""

    roots: list[Event] = field(default_factory=list)
    by_correlation: dict[Any, Event] = field(default_factory=dict)
    by_external_id: dict[Any, Event] = field(default_factory=dict)


def _plant(forest: _Forest, raw: list[Mapping[str, Any]]) -> None:
    """Nest operators of one thread by time; runtime calls only note in which operator they lie."""
    open_events: list[Event] = []
    for item in sorted(raw, key=lambda e: (e["ts"], -e.get("dur", 0))):
        event = _event(item)
        while open_events and event.end_us > open_events[-1].end_us + _ROUNDING_US:
            open_events.pop()
        parent = open_events[-1] if open_events else None
        arguments = item.get("args", {})
        if item.get("cat") in _LAUNCHES:
            if parent is not None and "correlation" in arguments:
                forest.by_correlation[arguments["correlation"]] = parent
            continue
        (forest.roots if parent is None else parent.children).append(event)
        forest.by_external_id[arguments.get("External id")] = event
        open_events.append(event)


def _event(item: Mapping[str, Any]) -> Event:
    dims = item.get("args", {}).get("Input Dims")
    shapes = None if dims is None else tuple(_tensor_shapes(dims))
    return Event(str(item.get("name", "")), float(item["ts"]), float(item.get("dur", 0)), shapes)


def _tensor_shapes(dims: Any) -> Iterator[tuple[int, ...]]:
    """Shapes among ``Input Dims``: one list a tensor, a list of lists for a list of tensors, [] for what is none.

    >>> list(_tensor_shapes([[1, 3], [], [[2, 2], [2, 4]]]))
    [(1, 3), (2, 2), (2, 4)]
    """
    if isinstance(dims, list) and dims and all(isinstance(size, int) for size in dims):
        yield tuple(dims)
    elif isinstance(dims, list):
        for item in dims:
            yield from _tensor_shapes(item)


def _attach_kernels(forest: _Forest, complete: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Give every kernel to the operator that launched it; kernels that none launched come back as events."""
    orphans = []
    for item in complete:
        if item.get("cat") not in _ON_DEVICE:
            continue
        arguments = item.get("args", {})
        kernel = DeviceKernel(str(item.get("name", "")), float(item.get("dur", 0)), float(item["ts"]))
        owner = forest.by_correlation.get(arguments.get("correlation", object()))
        owner = owner or forest.by_external_id.get(arguments.get("External id", object()))
        if owner is None:
            owner = Event(kernel.name, float(item["ts"]), 0.0)
            orphans.append(owner)
        owner.kernels.append(kernel)
    return orphans


def _without_marks(roots: Iterable[Event]) -> list[Event]:
    """Top-level operators; annotations that enclose them are looked through."""
    found: list[Event] = []
    for event in roots:
        if event.name.startswith(_STEP_PREFIXES):
            found += _without_marks(event.children)
        else:
            found.append(event)
    return found


def _steps(roots: list[Event], marks: list[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Operators by the annotation in which they began; all in one step where nothing is marked."""
    if not marks:
        return (Step(roots),)
    steps = []
    for mark in sorted(marks, key=lambda item: item["ts"]):
        start, end = float(mark["ts"]), float(mark["ts"]) + float(mark.get("dur", 0))
        inside = [event for event in roots if start <= event.start_us <= end]
        if inside:
            steps.append(Step(inside, float(mark.get("dur", 0)), start))
    return tuple(steps) or (Step(roots),)
