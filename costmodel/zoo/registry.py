"""The table of the zoo's networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

__all__ = ["IMAGE", "Entry", "entries", "model"]

Build = TypeVar("Build", bound="Callable[..., nn.Module]")

#: A picture of three channels, 224x224 unless said.
IMAGE: tuple[int | str, ...] = ("batch", 3, "height", "width")

_IMAGE_SIZES = {"height": 224, "width": 224}
_ROOMS = ("alexnet", "charcnn", "im2col", "nin", "resnet", "shufflenet", "shufflenetv2_micro")
_ENTRIES: dict[str, Entry] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """One network: how to build it, the paper that it is from, and the tensor that it takes.

    ``dims`` are sizes or names of sizes, whose defaults are in ``sizes``.
    """

    name: str
    build: Callable[..., nn.Module]
    paper: str
    family: str
    dims: tuple[int | str, ...] = IMAGE
    dtype: str = "float32"
    sizes: Mapping[str, int] = field(default_factory=lambda: dict(_IMAGE_SIZES))
    input_name: str = "x"


def model(
    name: str,
    *,
    paper: str,
    dims: tuple[int | str, ...] = IMAGE,
    dtype: str = "float32",
    sizes: Mapping[str, int] | None = None,
    **arguments: Any,
) -> Callable[[Build], Build]:
    """Register the class or function below, called with ``arguments``, as ``zoo:name``; decorators stack."""

    def register(build: Build) -> Build:
        if name in _ENTRIES:
            raise ValueError(f"the zoo has two networks called {name!r}")
        _ENTRIES[name] = Entry(
            name=name,
            build=partial(build, **arguments),
            paper=paper,
            family=build.__module__.rpartition(".")[2],
            dims=dims,
            dtype=dtype,
            sizes=dict(_IMAGE_SIZES if sizes is None else sizes),
        )
        return build

    return register


def entries() -> Mapping[str, Entry]:
    """Every network of the zoo, by name; imports torch."""
    for room in _ROOMS:
        import_module(f"costmodel.zoo.{room}")
    return _ENTRIES
