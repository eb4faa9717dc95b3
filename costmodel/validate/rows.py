"""Measured timings, one object a row, and the rows that cannot be used with the reason why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from costmodel.validate.published import Stated

__all__ = ["Measured", "MeasuredRow", "MemoryRow", "ModelRow", "OperatorRow", "Unusable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One measured step of a whole model.

    ``request`` is what :func:`costmodel.analyze` would be asked for; ``sizes`` are those of the inputs
    beside the batch (``height``, ``width``, ``seq_len``); ``conditions`` are further columns of the row.
    ``params`` and ``macs`` (of one sample) are the network's, where the row states them.
    ``times_device_inputs``: the script that made the row is known to put its inputs on the device before.
    """

    file: str
    line: int
    model: str
    request: str
    device: str
    dtype: str
    layout: str
    mode: str
    phase: str
    batch: int
    latency_s: float
    torch: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    family: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)
    params: Stated | None = None
    macs: Stated | None = None
    times_device_inputs: bool = False

    @property
    def group(self) -> tuple[str, ...]:
        """What rows are scored by."""
        return (self.device, self.dtype, self.layout, self.mode, self.phase)

    @property
    def trace_key(self) -> tuple[object, ...]:
        """Rows of the same key share one traced graph."""
        mode = self.conditions.get("train_mode", "")
        return (self.request, self.layout, tuple(sorted(self.sizes.items())), mode, self.phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRow(ModelRow):
    """The measured memory of a step of a whole model [B]; ``kind`` says what was measured. It states no time."""

    memory_bytes: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """One measured operator. ``input`` and ``other`` are shapes; ``other`` is a weight or the second operand.

    ``library`` says whose kernel ran, where the file does.
    ``timing``: ``kernel`` and ``graph_replay`` are device time alone; ``eager_call`` is one eager call between
    two events, host time included. ``floor_s`` is what such a call takes when its kernel takes no time.
    """

    file: str
    line: int
    device: str
    op: str
    dtype: str
    input: tuple[int, ...]
    latency_s: float
    other: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    algorithm: str = ""
    timing: str = "kernel"
    library: str = ""
    floor_s: float = 0.0
    lead_s: float = 0.0  # host time before the kernel starts

    @property
    def model(self) -> str:
        """The row in a few words, as lists of the worst rows name it."""
        shapes = ["x".join(map(str, shape)) for shape in (self.input, self.other) if shape]
        return " ".join([self.op, *shapes])

    @property
    def at_floor(self) -> bool:
        """Whether host time hides the kernel: not 30 % above the floor."""
        return self.latency_s < 1.3 * self.floor_s

    @property
    def group(self) -> tuple[str, ...]:
        """What rows are scored by."""
        return (self.device, self.dtype, self.op, self.algorithm, self.timing, "at the floor" if self.at_floor else "")


MeasuredRow: TypeAlias = "ModelRow | OperatorRow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A row that is not held against a prediction: why, and what it was about."""

    file: str
    line: int
    reason: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What files hold: rows to judge, and rows that cannot be."""

    rows: tuple[MeasuredRow, ...]
    unusable: tuple[Unusable, ...]
