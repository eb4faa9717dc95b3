"""Chrome's trace format, as PyTorch's profiler (Kineto) writes it: spans on tracks, arrows between them, counters.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU describes the format. Timestamps and
durations are in µs with three decimals: both ends of a span are whole nanoseconds, so that spans that touch never
overlap by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["DEVICE_CALLS", "HOST_CALLS", "Events", "Place", "Track"]

#: Categories by which readers tell events apart.
HOST_CALLS = ("cpu_op", "cuda_runtime")
DEVICE_CALLS = ("kernel", "gpu_memcpy", "gpu_memset")
#: Processes of hosts are numbered from here.
_FIRST_HOST = 1000
#: Calls are numbered from one in the first step, from beyond this in the next.
_MOST_EVENTS = 10_000_000
#: From what encloses to what is enclosed.
_INWARD = ("user_annotation", "python_function", *HOST_CALLS)


class Track(NamedTuple):
    """A line of the timeline: a thread of a process, a stream of a device."""

    process: int
    thread: int


class Place(NamedTuple):
    """Where a step stands in a trace: the numbers of its host's and its device's process, and the first of its own for
    calls and launches, which must not meet those of other steps."""

    host: int
    device: int
    first_id: int

    @classmethod
    def of(cls, number: int) -> Place:
        """The place of the number-th step. Devices count from 0, as the profiler's do."""
        return cls(_FIRST_HOST + number, number, 1 + _MOST_EVENTS * number)


@dataclass(slots=True)
class Events:
    """The events of a trace in the order in which they are added; :meth:`listed` sorts them as readers want them."""

    spans: list[dict[str, Any]] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)
    names: list[dict[str, Any]] = field(default_factory=list)

    def process(self, process: int, name: str, label: str, order: int) -> None:
        """Names a process; ``order`` sorts them from the top."""
        for kind, arguments in (
            ("process_name", {"name": name}),
            ("process_labels", {"labels": label}),
            ("process_sort_index", {"sort_index": order}),
        ):
            self.names.append({"ph": "M", "name": kind, "ts": 0.0, "pid": process, "tid": 0, "args": arguments})

    def track(self, track: Track, name: str, order: int) -> None:
        """Names a track; ``order`` sorts those of a process."""
        for kind, arguments in (("thread_name", {"name": name}), ("thread_sort_index", {"sort_index": order})):
            event = {"ph": "M", "name": kind, "ts": 0.0, "pid": track.process, "tid": track.thread, "args": arguments}
            self.names.append(event)

    def span(
        self, category: str, name: str, track: Track, start_s: float, end_s: float, arguments: Mapping[str, Any]
    ) -> None:
        """Something that takes from ``start_s`` to ``end_s`` [s]."""
        start, end = _nanoseconds(start_s), _nanoseconds(end_s)
        self.spans.append(
            {
                "ph": "X",
                "cat": category,
                "name": name,
                "pid": track.process,
                "tid": track.thread,
                "ts": start / 1000,
                "dur": max(end - start, 0) / 1000,
                "args": dict(arguments),
            }
        )

    def arrow(self, number: int, start: Track, start_s: float, end: Track, end_s: float, kind: str = "ac2g") -> None:
        """An arrow from what lies at ``start_s`` on a track to what begins at ``end_s`` on another: from a launch to
        its kernel (``ac2g``: CPU to GPU), from a forward operator to its backward one (``fwdbwd``)."""
        for phase, track, seconds, more in (("s", start, start_s, {}), ("f", end, end_s, {"bp": "e"})):
            self.others.append(
                {
                    "ph": phase,
                    "id": number,
                    "pid": track.process,
                    "tid": track.thread,
                    "ts": _nanoseconds(seconds) / 1000,
                    "cat": kind,
                    "name": kind,
                    **more,
                }
            )

    def counter(self, process: int, name: str, unit: str, seconds: float, value: float) -> None:
        """The value of a quantity in ``unit`` from ``seconds`` on."""
        event = {"ph": "C", "name": name, "pid": process, "tid": 0, "ts": _nanoseconds(seconds) / 1000}
        self.others.append({**event, "args": {unit: value}})

    def listed(self) -> Iterator[dict[str, Any]]:
        """Names, then spans by start, those that enclose others first, then arrows and counters.

        Of spans as long as each other the outer one comes first: that is how viewers nest them.
        """
        yield from self.names
        yield from sorted(self.spans, key=lambda event: (event["ts"], -event["dur"], _depth(event["cat"])))
        yield from self.others


def _depth(category: str) -> int:
    return _INWARD.index(category) if category in _INWARD else len(_INWARD)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
