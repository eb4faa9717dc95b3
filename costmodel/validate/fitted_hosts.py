"""One host for each machine of a file, found from its own rows: what is left is the error of the time model.

A file of measurements seldom says which computer issued the work, and a step of small kernels is that computer's. Rows
of one device that name the same ``host`` and release of PyTorch, or none, are taken for one machine's. Its slowdown,
one number, is taken where its eager rows fit best; other modes are predicted with it. Where the inputs lay on the host,
the rate of their copy is found with it. Nothing else is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from costmodel.host import HostProfile
from costmodel.timing import step_interval

if TYPE_CHECKING:
    from costmodel.analysis import Analysis
    from costmodel.validate.judged import Judged
    from costmodel.validate.rows import MeasuredRow

__all__ = ["FittedHost", "HostCurve", "fit_hosts", "host_curve", "machine_of"]

#: Slowdowns under which every step is worked out [1], each 6 % above the one before.
SLOWDOWNS = tuple(0.3 * 1.06**i for i in range(55))
#: Slowdowns that are tried [1], between those.
TRIED = tuple(0.3 * 1.02**i for i in range(162))
#: Rates of copies from pageable memory that are tried [B/s].
COPY_RATES = tuple(1e9 * 1.1**i for i in range(29))
#: |log error| of a row beyond which it has no more weight: a handful of odd rows must not choose the host.
_MOST = 0.5
#: One standard deviation of a host's times when its slowdown is known [1].
SPREAD = 0.15
SIGMAS = 1.645


@dataclass(frozen=True, slots=True)
class HostCurve:
    """How long one step takes under each of :data:`SLOWDOWNS` [s], and what its inputs' copy would add.

    ``device_low``, ``device_high``  the kernels' own interval over their prediction [1]
    ``copied_bytes``  B that the host copies within the step; 0 where the inputs lie on the device
    """

    latencies_s: tuple[float, ...]
    device_low: float
    device_high: float
    copied_bytes: float

    def at(self, slowdown: float, copy_bytes_per_s: float) -> float:
        """Seconds under a host, between the two slowdowns next to its own."""
        position = min(max(math.log(slowdown / SLOWDOWNS[0], 1.06), 0.0), len(SLOWDOWNS) - 1.0)
        left = min(int(position), len(SLOWDOWNS) - 2)
        low, high = self.latencies_s[left : left + 2]
        return low + (high - low) * (position - left) + self.copied_bytes / copy_bytes_per_s


@dataclass(frozen=True, slots=True)
class FittedHost:
    """The host that fits the eager rows of a machine best; ``copy_bytes_per_s`` is None where nothing was copied."""

    device: str
    host: str
    torch: str
    slowdown: float
    copy_bytes_per_s: float | None
    rows: int


def host_curve(analysis: Analysis) -> HostCurve:
    """The curve of a step. Its inputs' copy is left out of the latencies and stands beside them."""
    on_device = analysis.at(inputs="device")
    hosts = (HostProfile(name="tried", slowdown=slowdown) for slowdown in SLOWDOWNS)
    latency = on_device.latency or 1.0
    low, high = step_interval(on_device.plan, on_device.timeline)
    copied = analysis.issuing.input_bytes if analysis.execution.inputs == "host" else 0.0
    return HostCurve(tuple(map(on_device.latency_under, hosts)), low / latency, high / latency, copied)


def fit_hosts(judged: Sequence[Judged]) -> tuple[list[Judged], list[FittedHost]]:
    """The rows predicted with one host for each device and named host, and those hosts; rows without a curve stay."""
    groups: dict[tuple[str, str, str], list[Judged]] = {}
    for item in judged:
        if item.curve is not None:
            groups.setdefault(machine_of(item.row), []).append(item)
    hosts, fitted = {}, []
    for machine, items in sorted(groups.items()):
        eager = [item for item in items if getattr(item.row, "mode", "") == "eager"]
        if not eager:
            continue
        rates = COPY_RATES if any(item.curve.copied_bytes for item in eager if item.curve) else (math.inf,)
        _, slowdown, rate = min((_misfit(eager, s, r), s, r) for s in TRIED for r in rates)
        hosts[machine] = (slowdown, rate)
        fitted.append(FittedHost(*machine, slowdown, None if rate == math.inf else rate, len(eager)))
    return [_under(item, hosts) for item in judged], fitted


def machine_of(row: MeasuredRow) -> tuple[str, str, str]:
    """Device, host and release of PyTorch in the row's own words: rows that share them are taken for one machine's."""
    said = getattr(row, "conditions", {})
    return row.device, said.get("host", ""), said.get("torch", "")


def _misfit(items: Iterable[Judged], slowdown: float, rate: float) -> float:
    return math.fsum(
        min(abs(math.log(item.curve.at(slowdown, rate) / item.measured_s)), _MOST) for item in items if item.curve
    )


def _under(item: Judged, hosts: dict[tuple[str, str, str], tuple[float, float]]) -> Judged:
    found = hosts.get(machine_of(item.row))
    if found is None or item.curve is None:
        return item
    slowdown, rate = found
    curve, wide = item.curve, 1 + SIGMAS * SPREAD
    return replace(
        item,
        predicted_s=curve.at(slowdown, rate),
        low_s=curve.device_low * curve.at(slowdown / wide, rate),
        high_s=curve.device_high * curve.at(slowdown * wide, rate),
    )
