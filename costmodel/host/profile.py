"""HostProfile: what a host takes for the things that an engine asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

from costmodel.errors import InputError, librarian, near_matches
from costmodel.execution.execution import USUAL_HOST
from costmodel.hardware import HardwareProfile
from costmodel.host.operators import host_weight

__all__ = ["INSTANT", "HostProfile", "host_names", "host_of"]

#: Host time of a compiled step on a CPU before its first kernel: guards and the checks of the inputs [s], as timm's
#: compiled models spend it on an i9-10940X, whatever their size.
_CPU_GUARDS_S = 0.7e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProfile:
    """One host, in seconds.

    ``dispatch_s``  of the lightest call that reaches the device; operators and launches are multiples of it. 0 where
                    the host itself computes: there a call's time is part of its kernels' fixed time.
    ``guards_s``    of a compiled step before its first launch: guards, checks of the inputs. Known for CPUs alone.
    """

    name: str
    dispatch_s: float
    guards_s: float = 0.0

    def operator_s(self, op: str) -> float:
        """Seconds of one eager call of ``op`` from Python, with everything that it launches."""
        return host_weight(op) * self.dispatch_s

    def through_s(self, ops: Sequence[str]) -> list[float]:
        """When the host is through with each of these eager calls, made one after the other; seconds from the first.

        >>> HostProfile(name="h", dispatch_s=1e-6).through_s(["aten.relu", "aten.view"])
        [2.4e-06, 3e-06]
        """
        weights = {op: host_weight(op) for op in set(ops)}
        return [weight * self.dispatch_s for weight in accumulate(weights[op] for op in ops)]

    @property
    def launch_s(self) -> float:
        """Seconds of one launch from generated code."""
        return self.dispatch_s


#: A host that takes no time: what is left of a step is the device's.
INSTANT = HostProfile(name="instant", dispatch_s=0.0)


def _usual(hardware: HardwareProfile) -> HostProfile:
    if hardware.family.issues_ahead:
        return HostProfile(name=USUAL_HOST, dispatch_s=hardware.overheads.dispatch_s)
    return HostProfile(name=USUAL_HOST, dispatch_s=0.0, guards_s=_CPU_GUARDS_S)


_HOSTS: Mapping[str, Callable[[HardwareProfile], HostProfile]] = MappingProxyType(
    {USUAL_HOST: _usual, INSTANT.name: lambda hardware: INSTANT}
)


def host_names() -> tuple[str, ...]:
    """Hosts that a run can name: the machine's usual one, and one that takes no time."""
    return tuple(_HOSTS)


def host_of(name: str, hardware: HardwareProfile) -> HostProfile:
    """The host of this name beside a machine. Raises InputError for an unknown one.

    >>> from costmodel.hardware import load
    >>> host_of("usual", load("a100")).dispatch_s, host_of("instant", load("a100")).dispatch_s
    (5e-06, 0.0)
    """
    if name not in _HOSTS:
        near = near_matches(str(name), _HOSTS)
        raise InputError(librarian(f"there is no host {name!r}", there_is=host_names(), near=near))
    return _HOSTS[name](hardware)
