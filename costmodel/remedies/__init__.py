"""What would make a step fit: changes of a run in order of disruption, each evaluated with its bytes and its time."""

from __future__ import annotations

from costmodel.remedies.evaluate import Remedies, remedies
from costmodel.remedies.remedy import Change, Remedy

__all__ = ["Change", "Remedies", "Remedy", "remedies"]
