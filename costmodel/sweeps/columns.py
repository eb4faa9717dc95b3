"""The columns of a sweep's table, and the names by which conditions and objectives ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from costmodel.errors import InputError, librarian, near_matches
from costmodel.rows import QUANTITIES

__all__ = ["COLUMNS", "COORDINATES", "SHARED", "Named", "SweepColumn", "named"]


class SweepColumn(NamedTuple):
    """``kind`` is text, count, number or truth; ``unit`` of a number; ``more_is_better`` as an objective."""

    key: str
    kind: str
    unit: str
    meaning: str
    more_is_better: bool = False


#: What a point is.
COORDINATES = (
    SweepColumn("model", "text", "", "the request, as the sweep was asked for it"),
    SweepColumn("hw", "text", "", "name of the machine"),
    SweepColumn("height", "count", "", "of the images, in pixels; empty where there are none"),
    SweepColumn("width", "count", "", "of the images, in pixels"),
    SweepColumn("seq_len", "count", "", "tokens; empty where there are none"),
    SweepColumn("context", "count", "", "tokens of each sequence in the cache; of steps that write text"),
    SweepColumn("dtype", "text", "", "number formats of the run"),
    SweepColumn("weights", "text", "", "how weights are stored, where the sweep says it"),
    SweepColumn("mode", "text", "", "who launches the kernels"),
    SweepColumn("layout", "text", "", "memory format of images"),
    SweepColumn("phase", "text", "", "what the run is for"),
    SweepColumn("optimizer", "text", "", "what a training step does with its gradients; empty in other phases"),
    SweepColumn("trained", "text", "", "which weights a training step trains and what it keeps, where not all and all"),
    SweepColumn("batch", "count", "", "samples a step"),
)

#: What may hold for a whole sweep, or follow from the machine.
SHARED = (
    SweepColumn("host", "text", "", "the computer that issues the work"),
    SweepColumn("power_limit_w", "number", "W", "what the board may draw, where that is less than its own limit"),
)

_TOTALS = tuple(
    SweepColumn(q.key, "count" if q.is_whole else "number", q.unit, q.meaning)
    for q in QUANTITIES
    if q.in_data and q.key != "latency_s"
)

#: In the order of the table.
COLUMNS = (
    *COORDINATES,
    *SHARED,
    SweepColumn("latency_s", "number", "s", "predicted time of a step"),
    SweepColumn("latency_low_s", "number", "s", "lower end of the interval"),
    SweepColumn("latency_high_s", "number", "s", "upper end of the interval"),
    SweepColumn("throughput_per_s", "number", "1/s", "samples a second: batch over latency", more_is_better=True),
    SweepColumn("bound", "text", "", "what bounds the largest share of the time: compute, memory or launch"),
    SweepColumn("fits", "truth", "", "whether the step fits, by the best estimate; empty where that is not known"),
    SweepColumn("peak_memory_bytes", "count", "B", "the most that the device's allocator has handed out at once"),
    SweepColumn("usable_bytes", "count", "B", "memory of the device that one process can have, context included"),
    SweepColumn("param_bytes", "count", "B", "parameters in the dtype of the run"),
    *_TOTALS,
    SweepColumn("power_w", "number", "W", "average power; empty where it is not modelled"),
    SweepColumn("uncosted_ops", "count", "", "operators without a formula"),
    SweepColumn("reason", "text", "", "why the point has no numbers; empty where it has"),
)

_BY_KEY = {column.key: column for column in COLUMNS}

#: Short names -> keys.
_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "machine": "hw", "image_size": "height", "latency": "latency_s", "throughput": "throughput_per_s",
        "memory": "peak_memory_bytes", "peak_memory": "peak_memory_bytes", "energy": "energy_j",
        "power": "power_w",
    }
)  # fmt: skip

#: Unit of a column -> endings of its names -> the factor to that unit.
_ENDINGS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "s": {"_s": 1.0, "_ms": 1e-3, "_us": 1e-6},
        "J": {"_j": 1.0, "_mj": 1e-3, "_kj": 1e3},
        "W": {"_w": 1.0, "_kw": 1e3},
        "B": {"_bytes": 1.0, "_kb": 1e3, "_mb": 1e6, "_gb": 1e9, "_tb": 1e12, "_mib": 2.0**20, "_gib": 2.0**30},
    }
)
_PREFIXES: Mapping[str, float] = MappingProxyType({"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12})


class Named(NamedTuple):
    """A column by one of its names: what is named is its value over ``scale``."""

    column: SweepColumn
    scale: float = 1.0

    def of(self, row: Mapping[str, Any]) -> Any:
        """The value in a row; None where it has none."""
        value = row.get(self.column.key)
        return value if value is None or self.scale == 1.0 else value / self.scale


def named(name: str) -> Named:
    """The column that ``name`` means, with its unit: ``latency_ms``, ``memory_gb``, ``gmacs``, ``throughput``.

    Raises InputError with near matches.

    >>> named("latency_ms").of({"latency_s": 0.5}), named("gmacs").of({"macs": 4_000_000_000})
    (500.0, 4.0)
    """
    key = _SHORT.get(name, name)
    if key in _BY_KEY:
        return Named(_BY_KEY[key])
    for unit, endings in _ENDINGS.items():
        for ending, scale in endings.items():
            base = name.removesuffix(ending)
            column = _of_unit(base, unit) if base != name else None
            if column:
                return Named(column, scale)
    if name[:1] in _PREFIXES and (column := _BY_KEY.get(name[1:])) and column.kind == "count" and column.unit != "B":
        return Named(column, _PREFIXES[name[0]])
    known = [*_BY_KEY, *_SHORT, "latency_ms", "memory_gb", "gmacs", "mparams"]
    raise InputError(librarian(f"no column is called {name!r}", there_is=list(_BY_KEY), near=near_matches(name, known)))


def _of_unit(base: str, unit: str) -> SweepColumn | None:
    """The column of this unit whose name without it is ``base``."""
    whole = next(iter(_ENDINGS[unit]))
    column = _BY_KEY.get(_SHORT.get(base, base + whole))
    return column if column and column.unit == unit else None
