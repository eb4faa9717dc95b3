"""Host time in measured operators: what one eager call between two events takes beside its kernel.

The first event is recorded, the host then works for ``lead_s`` until the kernel starts, and for ``after`` until the
second event is recorded. What is measured is ``max(floor, lead + kernel)`` with ``floor = lead + after``: a kernel
shorter than ``after`` does not show.
The floor is a figure of the host and of Python, not of the GPU, so it is read off the file itself, from its smallest
operators, and no prediction of a kernel depends on it. ``after`` is a share of the floor of the device's quickest
operator, which is hardly more than a launch, and the start of a kernel, which goes on while the host returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from costmodel.validate.rows import OperatorRow
from costmodel.validate.statistics import quantile

__all__ = ["AFTER_SHARE", "call_time", "with_floors"]

#: Share of the floor of the quickest calls that follows the launch [1]: element-wise kernels show from about there on
#: (A100 and T4: 11.5 of 25 µs, V100: 15 of 32, P100: 20 of 43; ``benchmarks/fit_ops.py``).
AFTER_SHARE = 0.46
#: The same in seconds where no quick operator has calls that are mostly host.
_AFTER_S = 11.5e-6
#: Operators whose smallest kernels last about as long as the host takes to return: their floor is their lead. With
#: this their errors have no trend over the time they take; ``benchmarks/fit_gemm.py`` takes it so as well.
_SLOW = frozenset({"conv2d", "linear", "linear_no_bias", "bmm"})

_QUICKEST = 0.02  # share of calls that may be outliers below the floor
_SMALLEST = 0.05  # share of rows, by elements, whose calls are taken to be nearly all host
_HOST_SHARE = 0.5  # of their time that must be host at least, else the file has no operator small enough to tell
_PARTS = 10  # of the file, to see whether the host slows down while it is written
_FEW = 10  # rows in each part, below which the floor is one number

#: Least time of a row's kernel in seconds: its datasheet roofline, which no time model has a part in.
KernelTime: TypeAlias = "Callable[[OperatorRow], float]"
#: (file, device, operator, with the library where it is named) -> the places of its calls.
_Calls: TypeAlias = "dict[tuple[str, str, str], list[int]]"


def with_floors(
    rows: Iterable[OperatorRow], kernel_s: KernelTime, start_s: KernelTime = lambda row: 0.0, *, default_s: float = 5e-6
) -> list[OperatorRow]:
    """Rows in their order, those timed as eager calls with the floor of their file, device and operator.

    Where small operators are spread all over a file the floor follows the rows' order (hosts slow down in long runs,
    by 0.3 ms in NeuSight's convolutions); else it is the 5th percentile of the smallest 5 %, less what
    shows of their kernels. An operator of which the file has large calls alone takes the median floor of the others
    on the same device, or a lead of ``default_s`` where there are none. ``start_s`` is the start of a row's kernel.
    """
    found = list(rows)
    calls: _Calls = {}
    for index, row in enumerate(found):
        if row.timing == "eager_call":
            calls.setdefault(
                (row.file, row.device, f"{row.op} {row.dtype} {row.library}" if row.library else row.op), []
            ).append(index)
    after = _after_launch(found, calls, kernel_s)
    floors = {key: _floors([found[i] for i in indices], kernel_s, after[key]) for key, indices in calls.items()}
    for key, indices in calls.items():
        own = floors[key] or [_elsewhere(floors, key[:2], default_s + after[key])] * len(indices)
        for index, floor in zip(indices, own, strict=True):
            lead = max(floor - after[key] - start_s(found[index]), 0.0)
            found[index] = replace(found[index], floor_s=floor, lead_s=lead)
    return found


def _after_launch(
    rows: Sequence[OperatorRow], calls: _Calls, kernel_s: KernelTime
) -> dict[tuple[str, str, str], float]:
    """Seconds that a kernel may last without showing, by file, device and operator."""
    quick: dict[tuple[str, str], float] = {}
    for (file, device, op), indices in calls.items():
        quickest = min((rows[index] for index in indices), key=lambda row: row.latency_s)
        if op.partition(" ")[0] not in _SLOW and kernel_s(quickest) < (1 - _HOST_SHARE) * quickest.latency_s:
            least = AFTER_SHARE * quantile([rows[index].latency_s for index in indices], _QUICKEST)
            quick[file, device] = min(least, quick.get((file, device), math.inf))
    return {key: 0.0 if key[2].partition(" ")[0] in _SLOW else quick.get(key[:2], _AFTER_S) for key in calls}


def _elsewhere(floors: dict[tuple[str, str, str], list[float]], place: tuple[str, str], default_s: float) -> float:
    """The median floor of other operators of the same file and device."""
    known = [values[0] for key, values in floors.items() if key[:2] == place and values]
    return quantile(known, 0.5) if known else default_s


def call_time(row: OperatorRow, kernel_s: float) -> float:
    """What the row's way of timing shows of a kernel that takes ``kernel_s``."""
    if row.timing != "eager_call":
        return kernel_s
    return max(row.floor_s, row.lead_s + kernel_s)


def _floors(rows: Sequence[OperatorRow], kernel_s: KernelTime, after_s: float) -> list[float]:
    """The floor at each row; empty where even the smallest calls are mostly kernel."""
    elements = [_elements(row) for row in rows]
    limit = quantile(elements, _SMALLEST)
    small = [index for index, size in enumerate(elements) if size <= limit]
    shown = {index: max(kernel_s(rows[index]) - after_s, 0.0) for index in small}
    if quantile([shown[index] / rows[index].latency_s for index in small], 0.5) > 1 - _HOST_SHARE:
        return []
    points = [(index / len(rows), max(rows[index].latency_s - shown[index], 0.0)) for index in small]
    parts = [[point for point in points if int(point[0] * _PARTS) == part] for part in range(_PARTS)]
    if min(map(len, parts)) < _FEW:
        return [quantile([floor for _, floor in points], 0.05)] * len(rows)
    levels = [quantile([floor for _, floor in part], 0.05) for part in parts]
    return [_between(levels, index / len(rows) * _PARTS) for index in range(len(rows))]


def _elements(row: OperatorRow) -> int:
    total = 0
    for shape in (row.input, row.other):
        count = 1 if shape else 0
        for size in shape:
            count *= size
        total += count
    return total


def _between(levels: Sequence[float], position: float) -> float:
    """The level at a position, on straight lines between those of the parts; the last of them go on at the ends.

    Under a steady rise the 5th percentile of a part lies a twentieth behind its beginning.

    >>> [round(_between([1.0, 2.0, 4.0], x + 0.05), 9) for x in (0, 0.5, 1, 1.5, 2, 2.5)]
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0]
    """
    part = min(max(int(position - 0.05), 0), len(levels) - 2)
    return levels[part] + (levels[part + 1] - levels[part]) * (position - 0.05 - part)
