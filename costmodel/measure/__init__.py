"""Timings of this machine: end to end, and per kernel on the nodes of the graph that predicts them.

Importing this package does not import torch; its modules do.
"""

from __future__ import annotations
