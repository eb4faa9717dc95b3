"""A trace that was recorded elsewhere, on the nodes of the graph. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.measure.attribution import attribute
from costmodel.measure.events import Recording, read_trace
from costmodel.measure.measurement import Measurement, node_measurements

__all__ = ["import_trace"]


def import_trace(
    path: str | Path,
    graph: OpGraph,
    *,
    model: str,
    device: str,
    execution: Execution,
    recording: Recording | None = None,
) -> Measurement:
    """Place a Chrome trace of torch.profiler on ``graph``, bound to the sizes at which the trace was recorded.

    ``recording`` is what :func:`~costmodel.measure.events.read_trace` made of the file, where it was read before.
    Raises InputError for a file that is no such trace, and for one of another model or other sizes, with the nodes
    that have no partner.
    """
    recording = read_trace(path) if recording is None else recording
    attribution = attribute(recording, graph, strict=True)
    step_us = attribution.step_us
    return Measurement(
        model=model,
        device=device,
        execution=execution,
        sizes=execution.sizes,
        latency_s=(step_us or attribution.attributed_us) * 1e-6,
        latency_spread=None,
        repeats=attribution.steps,
        nodes=node_measurements(attribution, graph),
        unattributed=attribution.unattributed,
        step_us=step_us,
        on_device=recording.on_device,
        notes=(f"from {Path(path).name}: the latency is that of a step as recorded, with the profiler's own time",),
    )
