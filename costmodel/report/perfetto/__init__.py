"""A step as a Chrome trace, as PyTorch's profiler writes one: what Perfetto, chrome://tracing, HolisticTraceAnalysis
and ``costmodel measure --from-trace`` open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.report.as_json import execution_json
from costmodel.report.perfetto.events import Events, Place
from costmodel.report.perfetto.predicted import add_prediction
from costmodel.report.perfetto.recorded import add_recording

if TYPE_CHECKING:
    from costmodel.measure.events import Recording

__all__ = ["recorded_trace", "render_perfetto", "trace_of", "trace_text"]


def render_perfetto(analyses: Sequence[Any]) -> str:
    """The text of the trace of one analysis or several."""
    return trace_text(trace_of(analyses))


def trace_text(value: dict[str, Any]) -> str:
    """A trace as JSON, one line an event."""
    events = value.pop("traceEvents")
    head = json.dumps(value, indent=1, allow_nan=False)
    lines = ",\n".join(json.dumps(event, separators=(",", ":"), allow_nan=False) for event in events)
    return f'{head[:-2]},\n "traceEvents": [\n{lines}\n]}}\n'


def trace_of(analyses: Sequence[Any]) -> dict[str, Any]:
    """The trace as plain dicts and lists. Several analyses (machines, modes) stand one below the other."""
    events = Events()
    for number, analysis in enumerate(analyses):
        run = f"predicted, {analysis.hardware.name}, {analysis.execution.engine}"
        add_prediction(events, analysis, Place.of(number), label="predicted" if len(analyses) == 1 else run)
    return _trace(analyses, events)


def recorded_trace(
    recording: Recording, title: str, analysis: Any = None, measured_us: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """A measured step, and the predicted one above it where there is an analysis. ``title`` says what was measured
    where; ``measured_us`` is the measured time of nodes by name, to be read beside the predicted."""
    events = Events()
    if analysis is not None:
        add_prediction(events, analysis, Place.of(0), measured_us=measured_us)
    add_recording(events, recording, title, Place.of(1))
    return _trace([] if analysis is None else [analysis], events)


def _trace(analyses: Sequence[Any], events: Events) -> dict[str, Any]:
    return {
        "schemaVersion": 1,
        "deviceProperties": [_device(number, analysis) for number, analysis in enumerate(analyses)],
        "distributedInfo": {"rank": 0, "world_size": 1},
        "record_shapes": 1,
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": 0,
        "costmodel": [
            {
                "model": analysis.name,
                "hardware": analysis.hardware.name,
                **execution_json(analysis),
                "predicted_latency_us": 1e6 * analysis.latency,
            }
            for analysis in analyses
        ],
        "traceEvents": list(events.listed()),
    }


def _device(number: int, analysis: Any) -> dict[str, Any]:
    hardware = analysis.hardware
    return {
        "id": number,
        "name": hardware.title,
        "totalGlobalMem": int(hardware.dram.capacity_bytes or 0),
        "numSms": hardware.unit_count,
    }
