"""From a request to a measurement: build, run, time, profile, and place on the graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.measure.attribution import attribute
from costmodel.measure.events import Recording
from costmodel.measure.latency import (
    Latency,
    cache_flush,
    end_to_end,
    page_faults,
    pinned_threads,
    warm_allocator,
)
from costmodel.measure.machine_cpu import cpu_facts
from costmodel.measure.measurement import Measurement, node_measurements
from costmodel.measure.memory import peak_memory_bytes
from costmodel.measure.profiling import record_steps
from costmodel.measure.running import OutOfMemory, Runnable, prepare

__all__ = ["Timed", "device_name", "fitting", "place", "time_and_profile"]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A model that was timed and profiled, not yet on the nodes of a graph. ``page_faults`` are those of a call."""

    runnable: Runnable
    page_faults: float
    latency: Latency
    recording: Recording
    threads: int
    cache: str
    peak_memory_bytes: int


def fitting(
    request: str, execution: Execution, *, halve: bool = False, threads: int | None = None, **where: Any
) -> Runnable:
    """What ``request`` names, run once. ``halve`` halves the batch until it fits in memory.

    ``threads`` are those that it will run with: compiled code is made for a number of threads.
    ``where`` are the keywords of :func:`~costmodel.measure.running.prepare`. Raises what that and
    :meth:`~costmodel.measure.running.Runnable.check` raise.
    """
    while True:
        try:
            runnable = prepare(request, execution, **where)
            with pinned_threads(threads):
                runnable.check()
            return runnable
        except OutOfMemory:
            if not halve or execution.batch == 1:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        execution = replace(execution, batch=execution.batch // 2)


def time_and_profile(
    runnable: Runnable,
    *,
    threads: int | None = None,
    repeats: int = 20,
    steps: int = 5,
    cache: str = "warm",
    keep: Path | None = None,
    progress: Progress = lambda _: None,
) -> Timed:
    """End to end without a profiler first, then ``steps`` steps with it; ``keep`` is a file for the trace.

    The allocator is first brought to the state of a process that has run for a while.
    Raises InputError for fewer than 1 thread or repeat, or an unknown ``cache``.
    """
    with pinned_threads(threads) as in_force:
        progress("timing")
        warm_allocator()
        faults = page_faults()
        latency = end_to_end(runnable.call, device=runnable.device, repeats=repeats, cache=cache)
        faults = page_faults() - faults
        progress("profiling")
        flush = cache_flush(runnable.device, cache)
        recording = record_steps(runnable.call, device=runnable.device, steps=steps, before=flush, keep=keep)
        peak = peak_memory_bytes(runnable.call, runnable.held(), runnable.device)
    return Timed(
        runnable=runnable,
        latency=latency,
        recording=recording,
        threads=in_force,
        cache=cache,
        peak_memory_bytes=peak,
        page_faults=faults / (latency.warm_up_calls + len(latency.samples_s)),
    )


def place(timed: Timed, graph: OpGraph, *, model: str, device: str) -> Measurement:
    """Put what was timed on the nodes of ``graph``, bound to the sizes of the run. ``device`` names the machine."""
    attribution = attribute(timed.recording, graph)
    notes = [*timed.runnable.notes, *timed.runnable.said()]
    if not timed.latency.stable:
        notes.append(f"the latency had not settled after {timed.latency.warm_up_calls} calls")
    return Measurement(
        model=model,
        device=device,
        execution=timed.runnable.execution,
        sizes=timed.runnable.sizes,
        latency_s=timed.latency.median_s,
        latency_spread=timed.latency.spread,
        repeats=len(timed.latency.samples_s),
        nodes=node_measurements(attribution, graph),
        unattributed=attribution.unattributed,
        step_us=attribution.step_us,
        torch=torch.__version__,
        threads=None if timed.recording.on_device else timed.threads,
        cache=timed.cache,
        on_device=timed.recording.on_device,
        page_faults=timed.page_faults,
        peak_memory_bytes=timed.peak_memory_bytes,
        notes=tuple(notes),
    )


def device_name(device: str) -> str:
    """A name for this machine where no profile names it: that of its GPU or CPU, in lower case.

    >>> device_name("cpu") == device_name("cpu").lower()
    True
    """
    title = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_facts().title
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or device
