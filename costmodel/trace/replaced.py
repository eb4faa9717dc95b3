"""Attributes of modules that are replaced while at least one thread traces."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Replaced"]


class Replaced:
    """A table of (owner, attribute, what makes the replacement of the original).

    The replacements must answer threads that do not trace as the originals do.
    """

    def __init__(self, table: list[tuple[Any, str, Callable[[Any], Any]]]) -> None:
        self._table, self._lock, self._users = table, threading.Lock(), 0
        self._kept: list[Any] = []

    def install(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._kept = [getattr(owner, name) for owner, name, _ in self._table]
                for (owner, name, make), original in zip(self._table, self._kept, strict=True):
                    setattr(owner, name, functools.wraps(original)(make(original)))

    def remove(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for (owner, name, _), original in zip(self._table, self._kept, strict=True):
                    setattr(owner, name, original)
