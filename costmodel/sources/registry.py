"""The table of sources: one function under ``@source("prefix")`` adds a place that models come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from costmodel.errors import InputError
from costmodel.execution import Phase
from costmodel.symbols import checked_size

if TYPE_CHECKING:
    from costmodel.sources.loaded import LoadedModel

__all__ = ["Options", "Source", "all_sources", "source"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a request says about input sizes, None where it leaves the model's own default, and its arguments.

    ``image_size`` is (height, width) in pixels, ``input_shape`` the first input without its batch; ``phase`` and
    ``context`` [tokens in the cache] belong to models that write text; ``arguments`` are what the model is built with,
    by name, for the source to check.
    """

    image_size: tuple[int, int] | None = None
    input_shape: tuple[int, ...] | None = None
    seq_len: int | None = None
    context: int | None = None
    phase: Phase = Phase.INFERENCE
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        image_size: int | tuple[int, int] | None = None,
        input_shape: tuple[int, ...] | None = None,
        seq_len: int | None = None,
        context: int | None = None,
        phase: Phase = Phase.INFERENCE,
    ) -> Options:
        """Options whose sizes are whole numbers of at least 1.

        Raises InputError otherwise, and for an image size beside an input shape that contradicts it.
        """
        pair = (image_size, image_size) if isinstance(image_size, int) else image_size and tuple(image_size)
        shape = input_shape and tuple(input_shape)
        for what, values in (
            ("image size", pair),
            ("input shape", shape),
            ("seq_len", (seq_len,)),
            ("context", (context,)),
        ):
            if values is not None and any(v is not None and (type(v) is not int or v < 1) for v in values):
                text = ",".join(dict.fromkeys(map(str, values)))
                raise InputError(f"{what} must be made of whole numbers of at least 1, not {text}")
            for value in values or ():
                if value is not None:
                    checked_size(what, value)
        if pair is not None and len(pair) != 2:
            raise InputError(f"image size is one number or height and width, not {pair}")
        if input_shape is not None and not shape:
            raise InputError("input shape needs at least one number, such as 3,224,224")
        if pair and shape and tuple(shape[-2:]) != tuple(pair):
            raise InputError(f"image size {pair[0]}x{pair[1]} contradicts input shape {','.join(map(str, shape))}")
        if pair is None and shape and len(shape) == 3:
            pair = (shape[1], shape[2])
        return cls(pair, shape, seq_len, context, phase)


Load: TypeAlias = "Callable[[str, Options], LoadedModel]"
Names: TypeAlias = "Callable[[], dict[str, str | None]]"


def _no_names() -> dict[str, str | None]:
    return {}


@dataclass(frozen=True, slots=True)
class Source:
    """A place that models come from.

    ``load`` builds one; ``names`` lists what there is, each with its family; ``claims`` recognises a request
    without a prefix by its look (``model.pt2``); ``bare`` says whether names may be given without the prefix,
    ``builds`` whether it builds what it loads, so that a request may hold arguments, ``generates`` whether it knows
    models that write text.
    """

    prefix: str
    load: Load
    names: Names
    claims: Callable[[str], bool]
    bare: bool
    builds: bool = True
    generates: bool = False


_SOURCES: dict[str, Source] = {}

#: Modules that register a source, in the order in which a bare name is looked for.
_ROOMS = (
    "from_timm",
    "from_torchvision",
    "from_zoo",
    "huggingface",
    "exported",
    "onnx_file",
    "saved_weights",
    "factory",
)


def source(
    prefix: str,
    *,
    names: Names = _no_names,
    claims: Callable[[str], bool] = lambda _: False,
    bare: bool = False,
    builds: bool = True,
    generates: bool = False,
) -> Callable[[Load], Load]:
    """Register the function below as the source of ``prefix:NAME``; it raises UnknownModelError or ModelError."""

    def register(load: Load) -> Load:
        if prefix in _SOURCES:
            raise ValueError(f"source {prefix!r} is registered twice")
        _SOURCES[prefix] = Source(prefix, load, names, claims, bare, builds, generates)
        return load

    return register


def all_sources() -> dict[str, Source]:
    """Every source by prefix. Their modules import torch and the model libraries only when they build something."""
    for room in _ROOMS:
        import_module(f"costmodel.sources.{room}")
    return _SOURCES
