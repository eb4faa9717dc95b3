"""Writing text: a prompt and the steps after it added up, and what of a step is its cache.

``run`` adds up, ``cache`` says what keys and values take and cost, ``page`` shows both.
"""

from __future__ import annotations

from costmodel.generation.cache import CacheTraffic, cache_traffic
from costmodel.generation.run import Generation, generate

__all__ = ["CacheTraffic", "Generation", "cache_traffic", "generate"]
