"""A recorded step as tracks: the operators that the profiler saw, and the kernels that they launched."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from costmodel.report.perfetto.events import Events, Place, Track
from costmodel.report.perfetto.predicted import MAIN_THREAD, STREAM

if TYPE_CHECKING:
    from costmodel.measure.events import Event, Recording, Step

__all__ = ["add_recording", "usual_step"]


def usual_step(recording: Recording) -> Step:
    """The step that took as long as half of them did; the first where none says how long it took."""
    timed = [step for step in recording.steps if step.duration_us is not None]
    if not timed:
        return recording.steps[0]
    middle = statistics.median_low(step.duration_us for step in timed)  # type: ignore[type-var]
    return next(step for step in timed if step.duration_us == middle)


def add_recording(events: Events, recording: Recording, title: str, place: Place, *, label: str = "measured") -> None:
    """Adds one step of a recording, begun at 0; ``title`` says what was measured where."""
    step = usual_step(recording)
    host, device, first_id = place
    events.process(host, title, f"{label} host", 100 * host)
    events.track(Track(host, MAIN_THREAD), f"{label}: host" if recording.on_device else f"{label}: CPU", 1)
    if recording.on_device:
        events.process(device, title, f"{label} device", 100 * host + 1)
        events.track(Track(device, STREAM), f"{label}: stream {STREAM}", 1)
    begun_us = step.start_us if step.start_us is not None else min(event.start_us for event in step.events)
    writer = _Writer(events, Track(host, MAIN_THREAD), Track(device, STREAM), begun_us, first_id)
    if step.duration_us is not None:
        events.span("user_annotation", "ProfilerStep#0", writer.host, 0.0, 1e-6 * step.duration_us, {})
    for event in step.events:
        writer.operator(event)


class _Writer:
    def __init__(self, events: Events, host: Track, device: Track, begun_us: float, first_id: int) -> None:
        self.events, self.host, self.device, self.begun_us, self.number = events, host, device, begun_us, first_id

    def operator(self, event: Event) -> None:
        """An operator, what it called, and its kernels."""
        number = self.number
        self.number += 1
        about: dict[str, Any] = {"External id": number}
        if event.shapes is not None:
            about["Input Dims"] = [list(shape) for shape in event.shapes]
        start = 1e-6 * (event.start_us - self.begun_us)
        self.events.span("cpu_op", event.name, self.host, start, start + 1e-6 * event.duration_us, about)
        for kernel in event.kernels:
            if math.isfinite(kernel.start_us):
                begin = 1e-6 * (kernel.start_us - self.begun_us)
                stream = {"device": self.device.process, "stream": STREAM, "correlation": self.number}
                end = begin + 1e-6 * kernel.us
                self.events.span("kernel", kernel.name, self.device, begin, end, {"External id": number, **stream})
                self.events.arrow(self.number, self.host, start, self.device, begin)
                self.number += 1
        for child in event.children:
            self.operator(child)
