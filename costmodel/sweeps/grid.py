"""What a sweep is made of: its axes, the points that they span, and tasks of points that are worked out together."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from costmodel.engines import engine_of
from costmodel.errors import InputError, UnknownModelError, librarian
from costmodel.execution import DTYPES, LAYOUTS, Phase, WeightScheme
from costmodel.execution.words import chosen
from costmodel.hardware import HardwareProfile, load, names
from costmodel.host import host_of
from costmodel.sources.arguments import alternatives

__all__ = ["Grid", "Point", "Task", "machines_of", "requests_of"]

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Point:
    """One model under one set of conditions. ``batch``, ``image_size`` (height, width), ``seq_len``,
    ``context``, ``dtype`` and ``weights`` None: the model's own."""

    model: str
    hw: str
    batch: int | None
    image_size: tuple[int, int] | None
    seq_len: int | None
    context: int | None
    dtype: str | None
    weights: str | None
    mode: str
    layout: str
    phase: str

    @property
    def traced_at(self) -> tuple[Any, ...]:
        """What its trace depends on beside the model and the kind of device."""
        return self.layout, self.phase, self.image_size, self.seq_len, self.context, self.batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The axes of a sweep; every combination is a point. ``others`` are further words of :func:`costmodel.analyze`
    that all points share (``host``, ``power_limit``, ``inputs_on``, ``assume``).

    Raises InputError for an axis without a value, for a value that is there twice, and for an unknown word.
    """

    models: tuple[str, ...]
    machines: tuple[HardwareProfile, ...]
    batch: tuple[int | None, ...] = (None,)
    image_size: tuple[tuple[int, int] | None, ...] = (None,)
    seq_len: tuple[int | None, ...] = (None,)
    context: tuple[int | None, ...] = (None,)
    dtype: tuple[str | None, ...] = (None,)
    weights: tuple[str | None, ...] = (None,)
    mode: tuple[str, ...] = ("eager",)
    layout: tuple[str, ...] = ("nchw",)
    phase: tuple[str, ...] = ("inference",)
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.axes.items():
            if not values:
                raise InputError(f"a sweep needs a value for {name}")
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise InputError(f"the {name} {twice} is asked for twice")
        for dtype in filter(None, self.dtype):
            chosen("dtype", dtype, DTYPES)
        for weights in filter(None, self.weights):
            WeightScheme.of(weights)
        for word in self.layout:
            chosen("layout", word, LAYOUTS)
        for word in self.mode:
            engine_of(word)
        for word in self.phase:
            Phase.of(word)
        if "host" in self.others:
            for machine in self.machines:
                host_of(self.others["host"], machine)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Values by the name of the axis, in the order of the table's columns; the last changes first."""
        return {
            "model": self.models,
            "hw": tuple(machine.name for machine in self.machines),
            "image_size": self.image_size,
            "seq_len": self.seq_len,
            "context": self.context,
            "dtype": self.dtype,
            "weights": self.weights,
            "mode": self.mode,
            "layout": self.layout,
            "phase": self.phase,
            "batch": self.batch,
        }

    def points(self) -> list[Point]:
        """Every point, in the order of the table. Only a step that writes text has a cache, so that other phases are
        there once, whatever contexts are asked for."""
        axes = self.axes
        points = (Point(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values()))
        if self.context == (None,):
            return list(points)
        decode = Phase.DECODE.value
        return list(dict.fromkeys(p if p.phase == decode else replace(p, context=None) for p in points))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Sizes that are best left open in the traces: the batch, and others where several are asked for."""
        opened = ("frames", "height", "width", "seq_len", "decoder_seq_len")
        several = len(self.image_size) > 1 or len(self.seq_len) > 1
        written = ("context",) if Phase.DECODE.value in self.phase else ()
        return ("batch", *(opened if several else ()), *written)

    def tasks(self, jobs: int = 1, done: Iterable[int] = ()) -> list[Task]:
        """The points that are not ``done`` (by number), a model at a time; where that makes fewer tasks than several
        for each of ``jobs`` workers, the machines of a model are dealt out too."""
        finished = set(done)
        parts = 1 if jobs == 1 else min(len(self.machines), -(-4 * jobs // len(self.models)))
        deal = {machine.name: number % parts for number, machine in enumerate(self.machines)}
        machines = {machine.name: machine for machine in self.machines}
        dealt: dict[tuple[str, int], list[tuple[int, Point]]] = {}
        for number, point in enumerate(self.points()):
            if number not in finished:
                dealt.setdefault((point.model, deal[point.hw]), []).append((number, point))
        return [
            Task(
                model=model,
                points=tuple(points),
                machines={point.hw: machines[point.hw] for _, point in points},
                symbols=self.symbols,
                others=dict(self.others),
            )
            for (model, _), points in dealt.items()
        ]

    def fingerprint(self) -> str:
        """Equal for sweeps of the same points under the same versions: rows of one may stand in the other."""
        from costmodel import cache

        machines = [[machine.name, hashlib.sha256(machine.path.read_bytes()).hexdigest()] for machine in self.machines]
        files = [[name, _digest(name)] for name in self.models]
        said = {**{name: values for name, values in self.axes.items() if name != "hw"}, "others": dict(self.others)}
        return cache.key(
            "sweep", {"axes": json.loads(json.dumps(said, default=str)), "machines": machines, "files": files}
        )


def _digest(request: str) -> str:
    """Of the file that a request names; empty where it names none."""
    name = request.partition("(")[0].removeprefix("hf:")
    path = Path(name if Path(name).is_file() else name.rpartition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Points of one model, by their number in the sweep, with what is needed to work them out elsewhere."""

    model: str
    points: tuple[tuple[int, Point], ...]
    machines: Mapping[str, HardwareProfile]
    symbols: tuple[str, ...]
    others: Mapping[str, Any]

    def by_trace(self) -> Iterator[tuple[Point, list[tuple[int, Point]]]]:
        """Points that one trace serves, with one of them that stands for all; kinds of devices apart."""
        groups: dict[tuple[Any, ...], list[tuple[int, Point]]] = {}
        for number, point in self.points:
            kind = self.machines[point.hw].family.torch_device
            groups.setdefault((kind, *point.traced_at), []).append((number, point))
        for members in groups.values():
            yield members[0][1], members


def requests_of(models: Sequence[str]) -> tuple[str, ...]:
    """The requests that ``models`` stand for: braces are alternatives, ``timm:resnet*`` all models of such names.

    Raises InputError where a request cannot be read, UnknownModelError where no model has such a name.
    """
    found: dict[str, None] = {}
    for asked in models:
        for request in alternatives(asked):
            name = request.partition("(")[0]
            is_pattern = _WILD & set(name) and "/" not in name and ".py" not in name
            found.update(dict.fromkeys(_matching(request) if is_pattern else [request]))
    return tuple(found)


def _matching(pattern: str) -> list[str]:
    from costmodel.sources import known_models

    prefix, colon, name = pattern.rpartition(":")
    name, parenthesis, arguments = name.partition("(")
    known = [model for model in known_models(name) if not colon or model.source == prefix]
    if not known:
        raise UnknownModelError(librarian(f"no model is called {pattern}", do="`costmodel models PATTERN` lists them."))
    return [f"{model.source}:{model.name}{parenthesis}{arguments}" for model in known]


def machines_of(hw: Sequence[str | HardwareProfile]) -> tuple[HardwareProfile, ...]:
    """The machines that are asked for; ``all`` are those that have a profile."""
    asked = [each for name in hw for each in (names() if name == "all" else [name])]
    found = [load(each) if isinstance(each, str) else each for each in asked]
    return tuple({machine.name: machine for machine in found}.values()) if "all" in hw else tuple(found)
