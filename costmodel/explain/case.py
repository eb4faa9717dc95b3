"""Case: one analysis as the rules see it: its split, its convolutions, and the same design changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from costmodel.analysis import Analysis
from costmodel.engines import engine_of
from costmodel.errors import CostmodelError
from costmodel.explain.split import Split, split
from costmodel.graph import OpGraph
from costmodel.kernels import Kernel, Launch
from costmodel.kernels.plan import Read
from costmodel.kernels.shapes import Window
from costmodel.tensor import TensorSpec
from costmodel.timing import KERNEL_TIME, step_timeline
from costmodel.units import format_seconds

__all__ = ["HOST_SHARE", "LEAST_EFFECT", "SPEAKS_FROM", "Case", "Started"]

#: Share of the predicted time below which a rule has nothing to say [1].
SPEAKS_FROM = 0.01
#: Share of the step that the device may wait before the host is called the bottleneck [1].
HOST_SHARE = 0.1
#: Share of the step below which a change is said to change nothing [1].
LEAST_EFFECT = 1e-3


class Started(NamedTuple):
    """One launch: its position, main node, kernel, and seconds on the device."""

    position: int
    node: int
    kernel: Kernel
    seconds: float


class Case:
    """An analysis under examination. ``channels_last`` is the same model traced in that layout, where it is at hand."""

    def __init__(self, analysis: Analysis, channels_last: Callable[[], Analysis | None] | None = None) -> None:
        self.analysis, self._retrace = analysis, channels_last
        self._in_hand = analysis.in_hand()  # what a change would save is asked of many batches: no model runs for it
        self._changed: dict[tuple[tuple[str, Any], ...], Analysis | None] = {}

    @cached_property
    def split(self) -> Split:
        """Why the step takes longer than its FLOPs say."""
        return split(self.analysis)

    @property
    def latency_s(self) -> float:
        """Predicted seconds of the step."""
        return self.analysis.latency

    def matters(self, seconds: float, share: float = SPEAKS_FROM) -> bool:
        """Whether this is worth a sentence."""
        return seconds > 0 and seconds >= share * self.latency_s

    def of_step(self, seconds: float) -> str:
        """``12 µs of 3.4 ms``: seconds beside the whole step."""
        return f"{format_seconds(seconds)} of {format_seconds(self.latency_s)}"

    # -- what runs -----------------------------------------------------------------------------

    @cached_property
    def starts(self) -> tuple[Started, ...]:
        """Every launch in program order."""
        plan = self.analysis.plan
        return tuple(
            Started(position, launch.nodes[0], plan.kernels[launch.kernel], self.split.device_s(position))
            for position, launch in enumerate(plan.launches)
        )

    @cached_property
    def device_s(self) -> dict[int, float]:
        """Seconds on the device by node."""
        found: dict[int, float] = {}
        for start in self.starts:
            found[start.node] = found.get(start.node, 0.0) + start.seconds
        return found

    def device_s_of(self, nodes: Iterable[int]) -> dict[int, float]:
        """Seconds on the device of those of the nodes that launch anything, in program order."""
        asked = set(nodes)
        return {node: seconds for node, seconds in self.device_s.items() if node in asked}

    def flops(self, nodes: Iterable[int]) -> int:
        """FLOPs of nodes."""
        return sum(self.analysis.node_costs.of_node(node).flops for node in nodes)  # type: ignore[misc]

    def flop_share(self, nodes: Iterable[int]) -> float:
        """Share of the FLOPs of the step [1]."""
        whole: int = self.analysis.node_costs.total.flops  # type: ignore[assignment]
        return self.flops(nodes) / whole if whole else 0.0

    def names(self, nodes: Iterable[int]) -> tuple[str, ...]:
        """Names of nodes."""
        return tuple(self.analysis.bound.nodes[node].name for node in nodes)

    def by_stake(self, seconds: dict[int, float]) -> list[int]:
        """Nodes with seconds at stake, most first."""
        return sorted((node for node, s in seconds.items() if s > 0), key=lambda node: (-seconds[node], node))

    def arguments(self, node: int) -> dict[str, Any]:
        """Arguments of a node by schema name, in numbers."""
        graph = self.analysis.bound
        return graph.arguments(graph.calls[graph.nodes[node].call])

    def outputs(self, node: int) -> tuple[TensorSpec, ...]:
        """Specs of what a node puts out."""
        graph = self.analysis.bound
        return tuple(graph.specs[graph.tensors[t].spec] for t in graph.nodes[node].outputs)

    @cached_property
    def convolutions(self) -> dict[int, Window]:
        """The 2-d convolutions by node, transposed ones left out."""
        nodes = self.analysis.bound.nodes
        found = ((index, self._convolution(index)) for index, node in enumerate(nodes) if "conv" in node.op)
        return {index: conv for index, conv in found if conv is not None}

    def _convolution(self, node: int) -> Window | None:
        return None if "transpose" in self.analysis.bound.nodes[node].op else Window.of_call(self.arguments(node))

    # -- the same design, changed --------------------------------------------------------------

    def at(self, **changes: Any) -> Analysis | None:
        """The analysis under other conditions; None where it cannot be had (a fixed batch, a dtype without a peak).

        ``layout="nhwc"`` is the model traced in channels_last, where that is at hand.
        """
        key = tuple(sorted(changes.items()))
        if key not in self._changed:
            self._changed[key] = self._evaluate(changes)
        return self._changed[key]

    def _evaluate(self, changes: dict[str, Any]) -> Analysis | None:
        try:
            found: Analysis | None
            if "layout" not in changes:
                found = self._in_hand.at(**changes)
            else:
                other = self._retrace() if self._retrace else None
                rest = {name: value for name, value in changes.items() if name != "layout"}
                found = other.at(**rest) if other is not None else None
            return found if found is not None and found.latency >= 0 else None
        except CostmodelError:
            return None

    def saving_s(self, **changes: Any) -> float | None:
        """Seconds of the step that other conditions take off, negative where they add; None where unknown.

        At another batch: of the time for as many samples as now.
        """
        other = self.at(**changes)
        if other is None:
            return None
        samples = self.analysis.execution.batch / other.execution.batch
        return self.latency_s - other.latency * samples

    def cause_saving_s(self, *causes: str, **changes: Any) -> float | None:
        """Seconds of some causes that other conditions take off, of all but the host's where none is named.

        At another batch: of the time for as many samples as now. None where unknown.
        """
        other = self.at(**changes)
        if other is None:
            return None
        samples, parts = self.analysis.execution.batch / other.execution.batch, split(other)
        if not causes:
            return self.split.busy_s - parts.busy_s * samples
        return self.split.seconds(*causes) - parts.seconds(*causes) * samples

    def on_device(self, change: str, saved: float | None) -> dict[str, Any]:
        """``change`` and ``saving_s`` of a finding whose change saves time on the device alone.

        Where the host is the bottleneck the step gains nothing: the sentence says so, and there is no saving. What
        saves nothing or would take longer is no advice: then there is neither.
        """
        if saved is not None and not self.matters(saved, LEAST_EFFECT):
            return {}
        if saved is None or self.split.seconds("host") <= HOST_SHARE * self.latency_s:
            return {"change": change, "saving_s": saved}
        hidden = (
            f"{change} ({format_seconds(max(saved, 0.0))} less on the device, hidden while the host is the bottleneck)"
        )
        return {"change": hidden, "saving_s": None}

    def advised(self, trouble: str) -> tuple[str, dict[str, Any]] | None:
        """What the engine of now advises against a trouble, and the change to evaluate; None without advice.

        The change is empty where the advice names no engine that could be evaluated.
        """
        advice = self.analysis.engine.advice.get(trouble)
        if advice is None:
            return None
        if advice.engine and self.analysis.execution.phase not in engine_of(advice.engine).phases:
            return f"{advice.change} (not evaluated: a step of training is modelled in mode eager alone)", {}
        return advice.change, {"mode": advice.engine} if advice.engine else {}

    def in_channels_last(self, *causes: str) -> dict[str, Any]:
        """``change`` and ``saving_s`` of keeping images and weights in channels_last; nothing where they are."""
        if self.analysis.bound.layout == "nhwc":
            return {}
        change, saved = "keep images and weights in channels_last", self.cause_saving_s(*causes, layout="nhwc")
        if saved is None:
            return {"change": f"{change} (not evaluated: analyze the model with --layout nhwc once)"}
        return self.on_device(change, saved)

    @property
    def times_kernels(self) -> bool:
        """Whether a kernel has a time of its own on this machine, whatever runs around it."""
        return KERNEL_TIME.of(self.analysis.hardware) is not None

    def kernel_s(self, kernel: Kernel) -> float:
        """Seconds of a changed kernel on this machine, operands from memory; only where it ``times_kernels``."""
        time = KERNEL_TIME.of(self.analysis.hardware)
        assert time is not None, "ask times_kernels first"  # noqa: S101 - for the type checker
        return time(kernel, self.analysis.hardware).seconds()

    def without(self, nodes: Sequence[int], instead: Callable[[int], Kernel | None]) -> float:
        """Seconds of the step when ``nodes`` (of one input, one output) pass their input on.

        ``instead(node)`` is the kernel that runs in its place, if one must.
        """
        plan, graph, gone = self.analysis.plan, self.analysis.bound, set(nodes)
        kernels, launches = list(plan.kernels), []
        moved = {graph.tensors[graph.nodes[n].outputs[0]].storage: _input_storage(graph, n) for n in nodes}
        for launch in plan.launches:
            reads = tuple(Read(_root(read.storage, moved), read.spec) for read in launch.reads)
            writes = tuple(_root(storage, moved) for storage in launch.writes)
            if not gone.issuperset(launch.nodes):
                launches.append(replace(launch, reads=reads, writes=writes))
            elif (kernel := instead(launch.nodes[0])) is not None:
                kernels.append(kernel)
                launches.append(Launch(len(kernels) - 1, launch.nodes, reads, writes))
        new = replace(plan, kernels=tuple(kernels), launches=tuple(launches))
        passed_on = [replace(n, op="aten.alias") if i in gone else n for i, n in enumerate(graph.nodes)]
        now, changed = self.analysis, replace(graph, nodes=passed_on, memo={})
        issued = now.engine.issued(new, changed, now.execution, now.host)
        return step_timeline(new, graph, self.analysis.hardware, issued).latency_s


def _input_storage(graph: OpGraph, node: int) -> int:
    return graph.tensors[graph.nodes[node].inputs[0]].storage


def _root(storage: int, moved: dict[int, int]) -> int:
    """The storage that holds the data once nodes that pass their input on are gone."""
    while moved.get(storage, storage) != storage:
        storage = moved[storage]
    return storage
