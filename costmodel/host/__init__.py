"""The host: the computer that issues a step's operators to the device, and what that takes."""

from __future__ import annotations

from costmodel.host.catalogue import HostSpan, host_facts, host_file, host_names, host_of, hosts, read_host, span_of
from costmodel.host.costs import HostCosts, costs_of
from costmodel.host.issue import captured, compiled, node_us, operators
from costmodel.host.profile import INSTANT, HostProfile

__all__ = [
    "INSTANT",
    "HostCosts",
    "HostProfile",
    "HostSpan",
    "captured",
    "compiled",
    "costs_of",
    "host_facts",
    "host_file",
    "host_names",
    "host_of",
    "hosts",
    "node_us",
    "operators",
    "read_host",
    "span_of",
]
