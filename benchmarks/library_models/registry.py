"""What is known of a model before it is built: whose it is, how to build it, and what its count is held against."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Expected", "LibraryModel", "catalogue", "entry", "family"]

#: Modules of this package that hold models.
FIELDS = ("detection", "vision", "segmentation", "transformers", "generation", "audio", "series", "graphs", "values")

#: A factory returns the module and its inputs, as ``analyze`` takes them.
Built = tuple[Any, Any]


@dataclass(frozen=True)
class Expected:
    """MACs that torch's counter does not see, counted by hand.

    ``macs`` of (module,
        inputs) are added to what the counter says; ``why`` names the operators that it takes for nothing.
    """

    why: str
    macs: Callable[[Any, Any], int]


@dataclass(frozen=True)
class LibraryModel:
    """``executed``: how much is computed depends on values, so one forward pass really runs on the CPU."""

    library: str
    name: str
    build: Callable[[], Built]
    executed: bool = False
    expected: Expected | None = None

    @property
    def title(self) -> str:
        return f"{self.library}:{self.name}"

    @property
    def way(self) -> str:
        """How it is analyzed."""
        return "executed" if self.executed else "static"


_MODELS: dict[str, LibraryModel] = {}


def _add(model: LibraryModel) -> None:
    if model.title in _MODELS:
        raise ValueError(f"{model.title} stands twice in the catalogue")
    _MODELS[model.title] = model


def entry(
    library: str, name: str, *, executed: bool = False, expected: Expected | None = None
) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """Adds the decorated factory to the catalogue."""

    def register(build: Callable[[], Built]) -> Callable[[], Built]:
        _add(LibraryModel(library, name, build, executed, expected))
        return build

    return register


def family(
    library: str, names: Iterable[str], *, executed: bool = False, prefix: str = ""
) -> Callable[[Callable[[str], Built]], Callable[[str], Built]]:
    """Adds one model a name; the decorated factory is given the name."""

    def register(build: Callable[[str], Built]) -> Callable[[str], Built]:
        for name in names:
            _add(LibraryModel(library, prefix + name, lambda name=name: build(name), executed))  # type: ignore[misc]
        return build

    return register


def catalogue() -> list[LibraryModel]:
    """Every model, in the order of the fields. Imports torch, but no other library."""
    for field in FIELDS:
        importlib.import_module(f"library_models.{field}")
    return list(_MODELS.values())
