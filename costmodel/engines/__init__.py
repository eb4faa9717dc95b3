"""Engines: who lowers a graph to kernels and issues them. One file an engine; :mod:`costmodel.engines.engine` says
what one is, the files register themselves by the word that ``mode=`` takes."""

from __future__ import annotations

from costmodel.engines.engine import Advice, Engine
from costmodel.engines.registry import engine_names, engine_of, engine_spellings, lower

__all__ = ["Advice", "Engine", "engine_names", "engine_of", "engine_spellings", "lower"]
