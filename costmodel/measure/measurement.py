"""Measurement: one model on one machine, end to end and by node; what it is written as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.execution import Execution
    from costmodel.graph import OpGraph
    from costmodel.measure.attribution import Attribution

__all__ = ["CSV_COLUMNS", "Measurement", "NodeMeasurement", "node_measurements"]

#: One row of measured whole models: the columns that `costmodel validate` reads, then those that it keeps.
CSV_COLUMNS = (
    "model", "device", "phase", "dtype", "layout", "mode", "torch", "batch", "image_size", "latency_ms", "height",
    "width", "seq_len", "latency_spread", "repeats", "threads", "cache", "optimizer", "peak_memory_bytes",
    "checkpoint", "trainable",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMeasurement:
    """Measured time of one node of the graph, in µs, and the kernels that it is made of.

    ``host_us`` is the host's part where ``measured_us`` is a GPU's. ``runs_in`` names the node on which a kernel is
    booked that does this one's work too.
    """

    name: str
    op: str
    module: str
    measured_us: float
    phase: str = "forward"
    host_us: float = 0.0
    kernels: tuple[tuple[str, float], ...] = ()
    runs_in: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One model, measured.

    ``latency_s``       end to end: the median of ``repeats`` calls without a profiler. From a trace that was recorded
                        elsewhere: the median step as recorded, its profiler's time included.
    ``latency_spread``  interquartile range over the median; None where there was one step.
    ``step_us``         a step as profiled; ``nodes`` and ``unattributed`` (name, µs) are parts of it.
    ``page_faults``     of a call, on the host: memory that came from the system anew; None where not counted.
    ``peak_memory_bytes``  the most that torch's allocator had handed out in a call, with what lay there before; None
                        where it was not asked.
    ``torch``, ``threads``  as far as they are known: "" and None in a trace from elsewhere.
    """

    model: str
    device: str
    execution: Execution
    sizes: Mapping[str, int]
    latency_s: float
    latency_spread: float | None
    repeats: int
    nodes: tuple[NodeMeasurement, ...]
    unattributed: tuple[tuple[str, float], ...]
    step_us: float | None
    torch: str = ""
    threads: int | None = None
    cache: str = "warm"
    on_device: bool = False
    page_faults: float | None = None
    peak_memory_bytes: int | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def image_size(self) -> int | None:
        """Height and width in pixels where they are equal."""
        height, width = self.sizes.get("height"), self.sizes.get("width")
        return height if height == width else None

    @property
    def attributed_us(self) -> float:
        """Time on nodes, of one step."""
        return sum(node.measured_us for node in self.nodes)

    @property
    def unattributed_us(self) -> float:
        """Time of operators and kernels that belong to no node."""
        return sum(us for _, us in self.unattributed)

    @property
    def attributed_share(self) -> float:
        """Time on nodes over that of all recorded operators."""
        whole = self.attributed_us + self.unattributed_us
        return self.attributed_us / whole if whole else 1.0

    def csv_row(self) -> dict[str, Any]:
        """The whole model as one row of :data:`CSV_COLUMNS`; an empty cell where there is nothing to say."""
        square = self.image_size is not None
        values = {
            **self._conditions(),
            "latency_ms": 1e3 * self.latency_s,
            "height": None if square else self.sizes.get("height"),
            "width": None if square else self.sizes.get("width"),
            "seq_len": self.sizes.get("seq_len"),
            "latency_spread": self.latency_spread,
            "repeats": self.repeats,
            "threads": self.threads,
            "cache": self.cache,
            "peak_memory_bytes": self.peak_memory_bytes,
        }
        return {column: values.get(column) for column in CSV_COLUMNS}

    def json(self, predicted_us: Sequence[float] | None = None) -> dict[str, Any]:
        """Plain dicts and lists. ``predicted_us`` are the predictions of the nodes, where there are any."""
        predicted = [None] * len(self.nodes) if predicted_us is None else predicted_us
        return {
            "schema_version": 1,
            **self._conditions(),
            "sizes": dict(self.sizes),
            "threads": self.threads,
            "cache": self.cache,
            "latency_ms": 1e3 * self.latency_s,
            "latency_spread": self.latency_spread,
            "repeats": self.repeats,
            "profiled_step_us": self.step_us,
            "page_faults": self.page_faults,
            "peak_memory_bytes": self.peak_memory_bytes,
            "nodes": [_node_json(node, us) for node, us in zip(self.nodes, predicted, strict=True)],
            "unattributed": [{"name": name, "us": us} for name, us in self.unattributed],
            "notes": list(self.notes),
        }

    def _conditions(self) -> dict[str, Any]:
        run = self.execution
        return {
            "model": self.model,
            "device": self.device,
            **run.words,
            **run.trained.words,
            "torch": self.torch,
            "batch": run.batch,
            "image_size": self.image_size,
        }


def _node_json(node: NodeMeasurement, predicted_us: float | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": node.name,
        "op": node.op,
        "module": node.module,
        "phase": node.phase,
        "measured_us": node.measured_us,
        "predicted_us": predicted_us,
        "kernels": [{"name": name, "us": us} for name, us in node.kernels],
    }
    return value | ({"runs_in": node.runs_in} if node.runs_in else {})


def node_measurements(attribution: Attribution, graph: OpGraph) -> tuple[NodeMeasurement, ...]:
    """The measured times of a graph's nodes, in program order."""
    return tuple(
        NodeMeasurement(
            name=node.name,
            op=node.op,
            module=node.module,
            phase=node.phase.value,
            measured_us=time.us,
            host_us=time.host_us,
            kernels=tuple(time.kernels),
            runs_in="" if time.runs_in is None else graph.nodes[time.runs_in].name,
        )
        for node, time in zip(graph.nodes, attribution.nodes, strict=True)
    )
