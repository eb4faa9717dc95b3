"""A module and its named inputs in, an :class:`~costmodel.graph.OpGraph` out."""

from __future__ import annotations

from costmodel.trace.execute import execute
from costmodel.trace.tracer import SYMBOLS, agrees, trace

__all__ = ["SYMBOLS", "agrees", "execute", "trace"]
