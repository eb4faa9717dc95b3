"""The table of engines: a module of this package that ends in ``register(...)`` adds one."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from costmodel.errors import InputError, librarian, near_matches
from costmodel.execution.words import spellings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.engines.engine import Engine
    from costmodel.execution import Execution, Phase
    from costmodel.graph import OpGraph
    from costmodel.hardware import HardwareProfile
    from costmodel.kernels.plan import KernelPlan

__all__ = ["engine_names", "engine_of", "engine_spellings", "lower", "register"]

_ENGINES: dict[str, Engine] = {}
_Class = TypeVar("_Class", bound="type[Engine]")


def register(kind: _Class) -> _Class:
    """Class decorator: the engine takes its place under its name. Raises ValueError where that is taken."""
    if kind.name in _ENGINES:
        raise ValueError(f"engine {kind.name!r} is registered twice")
    _ENGINES[kind.name] = kind()
    return kind


@lru_cache(maxsize=1)
def _found() -> Mapping[str, Engine]:
    for module in iter_modules([str(Path(__file__).parent)]):
        import_module(f"{__package__}.{module.name}")
    return MappingProxyType(_ENGINES)


def engine_names(phase: Phase | None = None) -> tuple[str, ...]:
    """The words of all engines, or of those that run a phase, PyTorch's default first."""
    found = (name for name, engine in _found().items() if phase is None or phase in engine.phases)
    return tuple(sorted(found, key=lambda name: (name != "eager", name)))


def engine_of(word: str) -> Engine:
    """The engine that ``mode=word`` asks for. Raises InputError for an unknown word.

    >>> engine_of("eager").fuses_pointwise, engine_of("compile").fuses_pointwise
    (False, True)
    """
    if not isinstance(word, str) or word not in _found():
        names = engine_names()
        near = near_matches(str(word), names)
        raise InputError(librarian(f"there is no mode {word!r}", there_is=names, near=near))
    return _ENGINES[word]


def engine_spellings() -> dict[str, str]:
    """Every word that files of measurements have for an engine -> its name."""
    return spellings(engine_names(), {other: name for name in engine_names() for other in engine_of(name).spellings})


def lower(graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
    """The kernels of one step of ``graph`` (bound to numbers) under the engine of ``execution``.

    Raises InputError for an unknown engine, FormulaError where a formula fails.
    """
    return engine_of(execution.engine).lower(graph, execution, hardware)
