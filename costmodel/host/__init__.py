"""The host: the computer that issues a step's operators to the device, and what that takes."""

from __future__ import annotations

from costmodel.host.issue import by_launch, by_node
from costmodel.host.profile import INSTANT, HostProfile, host_names, host_of

__all__ = ["INSTANT", "HostProfile", "by_launch", "by_node", "host_names", "host_of"]
