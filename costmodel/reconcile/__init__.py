"""What other counters print for a model, and why it is not our number: rules over the nodes of a traced graph.

Each tool is a set of rules (:mod:`costmodel.reconcile.tools`) that say what it counts for an operator, read from its
source. So its total is worked out without running it, and every difference has a reason and the nodes that make it.
"""

from __future__ import annotations

from costmodel.reconcile.account import Account, Difference, reconcile
from costmodel.reconcile.tools import TOOLS

__all__ = ["TOOLS", "Account", "Difference", "reconcile"]
