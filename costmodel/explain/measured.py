"""A measurement beside the prediction: what the model of the machine cannot explain, in total and by node.

    predicted + unexplained nodes + kernels without a node + idle time beyond the predicted = measured

A file is what ``costmodel measure --format json -o FILE`` writes, with a measured time for each node of the graph.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.explain.split import Split

__all__ = ["CONDITIONS", "MeasuredRun", "MeasuredSplit", "NodeGap", "read_measured_run"]

#: Conditions of a run that a file states, by the names of the command line.
CONDITIONS = ("batch", "image_size", "dtype", "layout", "mode", "phase", "optimizer", "checkpoint", "trainable")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """A measured step: seconds of each node of its graph by name, of kernels without a node, and of the whole."""

    path: str
    latency_s: float
    nodes: Mapping[str, float]
    unattributed: Mapping[str, float]
    runs_in: Mapping[str, str]
    """Nodes whose work a kernel of another node did, each with that node."""
    model: str = ""
    device: str = ""
    conditions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeGap:
    """One node, predicted and measured, in seconds on the device."""

    node: int
    name: str
    op: str
    predicted_s: float
    measured_s: float

    @property
    def unexplained_s(self) -> float:
        """Measured less predicted."""
        return self.measured_s - self.predicted_s


def read_measured_run(path: str) -> MeasuredRun:
    """Read a measurement. Raises InputError where the file cannot be read or is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"cannot read the measurement {path}: {reason}") from error
    try:
        return _measurement(path, json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        do = "`costmodel measure MODEL --format json -o FILE` writes one, with a measured time for each node"
        raise InputError(librarian(f"{path} is no measurement by node ({_reason(error)})", do=do)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return "it is no JSON" if isinstance(error, json.JSONDecodeError) else str(error)


def _measurement(path: str, value: Mapping[str, Any]) -> MeasuredRun:
    nodes = _summed((node["name"], node["measured_us"]) for node in value["nodes"])
    return MeasuredRun(
        path=path,
        latency_s=_positive(value["latency_ms"]) * 1e-3,
        nodes=nodes,
        unattributed=_summed((kernel["name"], kernel["us"]) for kernel in value.get("unattributed", ())),
        runs_in={str(node["name"]): str(node["runs_in"]) for node in value["nodes"] if node.get("runs_in")},
        model=str(value.get("model", "")),
        device=str(value.get("device", "")),
        conditions={name: value[name] for name in CONDITIONS if value.get(name)},
    )


def _summed(pairs: Any) -> dict[str, float]:
    """Seconds by name from (name, microseconds); what occurs several times is added up."""
    found: dict[str, float] = {}
    for name, microseconds in pairs:
        value = float(microseconds)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} takes {microseconds} us")
        found[str(name)] = found.get(str(name), 0.0) + value * 1e-6
    return found


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"the latency is {value}")
    return number


class MeasuredSplit:
    """A split with what was measured beside it.

    Raises InputError where nodes of the file are not in the graph: it is of another model, or of another version.
    """

    def __init__(self, split: Split, run: MeasuredRun) -> None:
        self.split, self.run = split, run
        self.analysis = split.analysis
        self._check_nodes()

    def _check_nodes(self) -> None:
        known = self._index
        strange = [name for name in self.run.nodes if name not in known]
        if strange or not self.run.nodes:
            there = f"{len(self.run.nodes) - len(strange)} of {len(self.run.nodes)} nodes match"
            named = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
            do = f"It was measured on {self.run.model}" if self.run.model else "Is it of another model?"
            asked = f"{self.run.path} measures nodes that {self.analysis.name} does not have: {named or 'none at all'}"
            raise InputError(f"{librarian(asked, near=near_matches(strange[0], known, 1) if strange else (), do=do)}\n"
                             f"  {there}")  # fmt: skip

    @cached_property
    def nodes(self) -> tuple[NodeGap, ...]:
        """Every node that was predicted or measured to take time, the largest difference first."""
        predicted: dict[int, float] = {}
        for position, launch in enumerate(self.analysis.plan.launches):
            owner = self._owner(launch.nodes[0])
            predicted[owner] = predicted.get(owner, 0.0) + self.split.device_s(position)
        found = [
            NodeGap(index, node.name, node.op, predicted.get(index, 0.0), self.run.nodes.get(node.name, 0.0))
            for index, node in enumerate(self.analysis.bound.nodes)
            if index in predicted or node.name in self.run.nodes
        ]
        return tuple(sorted(found, key=lambda gap: (-abs(gap.unexplained_s), gap.node)))

    def _owner(self, node: int) -> int:
        """The node whose kernel did the work in the measured run: the same, or the one that it was fused into."""
        name = self.analysis.bound.nodes[node].name
        return self._index.get(self.run.runs_in.get(name, name), node)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {node.name: index for index, node in enumerate(self.analysis.bound.nodes)}

    @property
    def slower_s(self) -> float:
        """Seconds by which nodes took longer than predicted."""
        return math.fsum(gap.unexplained_s for gap in self.nodes if gap.unexplained_s > 0)

    @property
    def faster_s(self) -> float:
        """Seconds by which nodes took less time than predicted; negative."""
        return math.fsum(gap.unexplained_s for gap in self.nodes if gap.unexplained_s < 0)

    @property
    def unattributed_s(self) -> float:
        """Seconds of kernels that belong to no node."""
        return math.fsum(self.run.unattributed.values())

    @property
    def idle_s(self) -> float:
        """Measured seconds outside of any kernel, less those that the prediction has (waiting for the host)."""
        in_kernels = math.fsum(self.run.nodes.values()) + self.unattributed_s
        return self.run.latency_s - in_kernels - self.split.seconds("host")

    @property
    def unexplained_s(self) -> float:
        """Measured less predicted: the sum of the four above."""
        return math.fsum((self.slower_s, self.faster_s, self.unattributed_s, self.idle_s))
