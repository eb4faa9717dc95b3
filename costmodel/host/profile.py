"""HostProfile: one computer that issues steps to a device."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INSTANT", "ITSELF", "HostProfile"]

#: Rate of copies from pageable memory to a device [B/s]: three of four hosts of torchvision's classifiers at batch 12
#: have 3 to 4 GB/s (``benchmarks/fit_hosts.py``).
USUAL_COPY = 3.5e9
#: Host time of a compiled step on a CPU before its first kernel: guards and the checks of the inputs [s], as timm's
#: compiled models spend it on an i9-10940X, whatever their size.
_CPU_GUARDS_S = 0.7e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProfile:
    """One host, as far as a step depends on it.

    ``slowdown``  how long PyTorch's code takes on one of its cores, over the reference core [1]; 0: no time at all
    ``spread``    one standard deviation of its host times, over them [1]: governor, neighbours, Python, driver
    ``pageable_copy_bytes_per_s``  rate at which it copies ordinary (pageable) memory to a device; None where unknown
    ``guards_s``  of a compiled step before its first launch, where the host itself computes [s]
    """

    name: str
    title: str = ""
    cpu: str = ""
    slowdown: float = 1.0
    spread: float = 0.15
    pageable_copy_bytes_per_s: float | None = None
    guards_s: float = 0.0
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def copy_bytes_per_s(self) -> float:
        """Rate at which it copies pageable memory to a device [B/s]; :data:`USUAL_COPY` where its own is not known."""
        return self.pageable_copy_bytes_per_s or USUAL_COPY

    def seconds(self, reference_us: float) -> float:
        """Seconds that this host takes for what takes ``reference_us`` µs on the reference core.

        >>> HostProfile(name="slow", slowdown=2.0).seconds(1e6)
        2.0
        """
        return self.slowdown * reference_us * 1e-6


#: A host that takes no time: what is left of a step is the device's.
INSTANT = HostProfile(name="instant", title="a host that takes no time", slowdown=0.0, spread=0.0)
#: Where the host itself computes, a call's time is part of its kernels' fixed time.
ITSELF = HostProfile(name="itself", title="the CPU itself", slowdown=0.0, spread=0.0, guards_s=_CPU_GUARDS_S)
