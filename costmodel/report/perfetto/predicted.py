"""The predicted step as tracks: modules and operators on the host, kernels on the device, what they reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from costmodel.execution import NodePhase
from costmodel.report.perfetto.calls import HostCall, calls_of, tensor_arguments
from costmodel.report.perfetto.events import Events, Place, Track
from costmodel.report.text import module_spans

__all__ = ["MAIN_THREAD", "STREAM", "add_prediction"]

#: Threads and streams, numbered as PyTorch's profiler shows them: stream 7 is CUDA's default stream.
MAIN_THREAD, STREAM = 1, 7
#: Where autograd runs the backward pass.
_AUTOGRAD_THREAD = 2
_MODULES_STREAM = 8

#: Time of one launch on the host, as a span [s]: what CUDA's runtime call takes; shorter where its operator is.
_LAUNCH_S = 4e-6


def add_prediction(
    events: Events, analysis: Any, place: Place, *, label: str = "predicted",
    measured_us: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Adds the step of an analysis. ``measured_us``: measured time of nodes by name, which their kernels then say."""
    tracks = _Tracks(events, analysis, place, measured_us or {})
    tracks.name(label)
    tracks.step()
    for call in calls_of(analysis):
        tracks.call(call)
    tracks.modules()
    if tracks.on_device:
        tracks.counters()


class _Tracks:
    def __init__(self, events: Events, analysis: Any, place: Place, measured_us: Mapping[str, float]) -> None:
        self.events, self.analysis, self.measured_us = events, analysis, measured_us
        self.host, self.device = Track(place.host, MAIN_THREAD), Track(place.device, STREAM)
        self.on_device = bool(analysis.hardware.family.issues_ahead)
        self.first_id = self.number = place.first_id
        self.autograd = Track(place.host, _AUTOGRAD_THREAD)
        self.by_module: dict[Track, list[tuple[str, float, float]]] = {}
        self.calls: dict[int, HostCall] = {}
        self.host_end_s = 0.0

    def name(self, label: str) -> None:
        """Names of processes and tracks."""
        analysis, events = self.analysis, self.events
        order = 100 * self.host.process
        events.process(self.host.process, f"{analysis.name} on {analysis.hardware.title}", f"{label} host", order)
        events.track(self.host, f"{label}: host {analysis.host.name}" if self.on_device else f"{label}: CPU", 1)
        if any(node.phase is NodePhase.BACKWARD for node in analysis.bound.nodes):
            events.track(self.autograd, f"{label}: autograd", 2)
        if self.on_device:
            events.process(self.device.process, analysis.hardware.title, f"{label} device", order + 1)
            events.track(self.device, f"{label}: stream {STREAM}", 1)
            events.track(Track(self.device.process, _MODULES_STREAM), f"{label}: modules", 2)

    def step(self) -> None:
        """The whole step, as the profiler marks it, and the host that waits for its end."""
        self.events.span("user_annotation", "ProfilerStep#0", self.host, 0.0, self.analysis.latency, {})

    def call(self, call: HostCall) -> None:
        """One call on the host with its launches."""
        graph, number = self.analysis.bound, self.number
        self.number += 1
        node = graph.nodes[call.node]
        track = self.autograd if node.phase is NodePhase.BACKWARD else self.host
        dims, types = tensor_arguments(graph, call.node)
        about: dict[str, Any] = {"External id": number, "Record function id": 0, "Ev Idx": number - self.first_id}
        about |= {"Input Dims": dims, "Input type": types, "node": node.name, "module": node.module}
        about |= {"module type": node.module_type, "phase": node.phase.value}
        end_s = call.end_s if call.waits_s is None else max(call.end_s, call.waits_s)
        if not self.on_device:
            about |= self._work(call.launches)
        self.events.span("cpu_op", call.name, track, call.start_s, end_s, about)
        self.calls[call.node] = call
        if node.forward in self.calls:
            ahead = self.calls[node.forward]
            self.events.arrow(number, self.host, ahead.start_s, track, call.start_s, "fwdbwd")
        if not self.analysis.engine.captures:
            self.by_module.setdefault(track, []).append((node.module, call.start_s, end_s))
        if call.waits_s is not None:
            self._runtime("cudaStreamSynchronize", track, call.end_s, end_s, number, number)
        if self.on_device:
            self._launches(call, track, number)
        elif len(call.launches) > 1:
            self._stages(call, track)
        self.host_end_s = max(self.host_end_s, end_s)

    def modules(self) -> None:
        """Modules around what they run: on the host as the profiler's Python functions, on the device as annotations.
        After the last launch the host waits for the device."""
        if not self.analysis.engine.captures:
            for track, parts in self.by_module.items():
                for path, start_s, end_s in module_spans(parts):
                    about = {"module": path}
                    self.events.span("python_function", f"nn.Module: {path}", track, start_s, end_s, about)
        if not self.on_device:
            return
        end_s = self.analysis.latency
        if end_s > self.host_end_s:
            self._runtime("cudaDeviceSynchronize", self.host, self.host_end_s, end_s, self.number, self.number)
        rows = self.analysis.kernels
        track = Track(self.device.process, _MODULES_STREAM)
        for path, start_s, end_s in module_spans([(row.module, row.start_s, row.end_s) for row in rows]):
            self.events.span("gpu_user_annotation", path, track, start_s, end_s, {"module": path})

    def counters(self) -> None:
        """What the device reaches while each kernel runs, what it draws, and what the allocator has handed out."""
        device, events = self.device.process, self.events
        for row, allocated in zip(self.analysis.kernels, self.analysis.memory.course, strict=True):
            events.counter(device, "memory allocated", "MB", row.start_s, round(allocated / 1e6, 3))
            moved = row.bytes if row.dram_bytes is None else row.dram_bytes
            for name, unit, amount in (("arithmetic", "TFLOP/s", row.flops / 1e12), ("DRAM", "GB/s", moved / 1e9)):
                events.counter(device, name, unit, row.start_s, round(amount / row.busy_s if row.busy_s else 0.0, 3))
                events.counter(device, name, unit, row.end_s, 0.0)
            if math.isfinite(row.energy_j) and row.latency_s:
                begun_s = row.end_s - row.latency_s
                events.counter(device, "power", "W", begun_s, round(row.energy_j / row.latency_s, 1))

    def _launches(self, call: HostCall, host: Track, external: int) -> None:
        """Runtime calls inside the operator, their kernels, and the arrows between."""
        captured = self.analysis.engine.captures
        count = len(call.launches)
        width = min(_LAUNCH_S, (call.end_s - call.start_s) / (count + 1)) if count else 0.0
        correlation = self.number
        if captured and count:
            self._runtime("cudaGraphLaunch", host, call.start_s, call.end_s, external, correlation)
        for place, position in enumerate(call.launches):
            row, arrow = self.analysis.kernels[position], self.number
            self.number += 1
            begin = call.start_s if captured else call.end_s - width * (count - place)
            if not captured:  # each has a call of its own
                correlation = arrow
                self._runtime("cudaLaunchKernel", host, begin, begin + width, external, correlation)
            stream = {"device": self.device.process, "context": 1, "stream": STREAM, "correlation": correlation}
            about = {"External id": external, "queued": 0, **stream, **self._work((position,))}
            self.events.span("kernel", kernel_name(row), self.device, row.start_s, row.end_s, about)
            self.events.arrow(arrow, host, begin, self.device, row.start_s)

    def _stages(self, call: HostCall, track: Track) -> None:
        """What an operator of a CPU does in turn: reorders around a kernel, say."""
        for position in call.launches:
            row = self.analysis.kernels[position]
            self.events.span("user_annotation", row.algorithm, track, row.start_s, row.end_s, self._work((position,)))

    def _work(self, positions: Sequence[int]) -> dict[str, Any]:
        """What launches do and what bounds them, with units in the keys."""
        rows = [self.analysis.kernels[position] for position in positions]
        if not rows:
            return {"bound": "free"}
        longest = max(rows, key=lambda row: row.busy_s)
        about: dict[str, Any] = {
            "node": longest.name,
            "module": longest.module,
            "serves": ", ".join(longest.nodes),
            "algorithm": longest.algorithm,
            "tile": "x".join(map(str, longest.tile)) if longest.tile else "",
            "units": longest.units,
            "FLOP": sum(row.flops for row in rows),
            "bytes": sum(row.bytes for row in rows),
            "bound": longest.bound,
        }
        if all(row.dram_bytes is not None for row in rows):
            about["DRAM bytes"] = round(sum(row.dram_bytes for row in rows))
            about["cache bytes"] = round(sum(row.cache_bytes for row in rows))
        for key in ("compute_s", "memory_s", "launch_s", "waited_s"):
            about[key.removesuffix("s") + "us"] = round(1e6 * sum(getattr(row, key) for row in rows), 3)
        if longest.name in self.measured_us:
            about["measured_us of the node"] = round(self.measured_us[longest.name], 3)
        return about

    def _runtime(self, name: str, host: Track, start_s: float, end_s: float, external: int, correlation: int) -> None:
        about = {"External id": external, "cbid": 211, "correlation": correlation}
        self.events.span("cuda_runtime", name, host, start_s, end_s, about)


def kernel_name(row: Any) -> str:
    """A name that tells what a profiler's would: how it works, on what, in which tiles, for which operator."""
    tile = "_" + "x".join(map(str, row.tile)) if row.tile else ""
    if row.matrix_flops:
        return f"{row.algorithm}_{row.dtype}{tile}"
    packets = row.op.rpartition(".")[2]
    return row.algorithm if row.algorithm == packets else f"{row.algorithm}_{packets}"
