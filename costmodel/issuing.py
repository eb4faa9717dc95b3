"""Issuing: the hosts that a step may run with, when each has issued its launches, and how long the step then takes."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.engines import Engine
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.host import HostProfile, HostSpan
from costmodel.kernels import KernelPlan
from costmodel.timing import HostLatencies, Timeline, step_timeline

__all__ = ["Issuing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuing:
    """The launches of one step, ``graph`` in numbers, and the ``span`` of hosts that may issue them."""

    plan: KernelPlan
    graph: OpGraph
    execution: Execution
    hardware: HardwareProfile
    engine: Engine
    span: HostSpan

    @property
    def input_bytes(self) -> float:
        """B of the inputs in this run."""
        storages = {self.graph.tensors[index].storage for index in self.graph.inputs}
        return sum(self.plan.storage_bytes[storage] for storage in storages)

    def input_copy_s(self, host: HostProfile) -> float:
        """Seconds that the host copies inputs to the device, during which it issues nothing; 0 where they lie there."""
        if self.execution.inputs != "host" or not host.slowdown:
            return 0.0
        return self.input_bytes / host.copy_bytes_per_s

    def under(self, host: HostProfile) -> list[float]:
        """For each launch, when ``host`` has issued it: seconds since the step began."""
        issued = self.engine.issued(self.plan, self.graph, self.execution, host)
        copied_s = self.input_copy_s(host)
        return [copied_s + seconds for seconds in issued] if copied_s else issued

    def latency_s(self, host: HostProfile, assumed: Timeline) -> float:
        """Seconds of the step issued by ``host``; its kernels are as quick as in ``assumed``, the step under the host
        that is assumed, though a board that waits less may hold a lower clock."""
        issued = self.under(host)
        if self.graph.synchronizing:  # then the host itself waits for the device now and then
            return step_timeline(self.plan, self.graph, self.hardware, issued).latency_s
        return assumed.latency_if_issued(issued)

    def latencies(self, assumed: Timeline) -> HostLatencies:
        """Seconds of the step under the quickest host that it may run with, the one assumed, and the slowest.

        A host of which only the kind is known is the quickest or slowest of that kind, one that was named is itself;
        either way its own times scatter (:attr:`~costmodel.host.HostProfile.spread`).
        """
        usual, (quickest, slowest) = assumed.latency_s, self.span.bounds
        if quickest.slowdown == slowest.slowdown:
            return HostLatencies(usual, usual, usual)
        low, high = (self.latency_s(host, assumed) for host in (quickest, slowest))
        return HostLatencies(min(low, usual), usual, max(high, usual))
