"""What a callable takes, and whether the arguments of a request are among it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints
from unittest import mock

from costmodel.errors import InputError, librarian, near_matches

__all__ = ["ANOTHER", "check_arguments", "check_complete", "fixed_by", "passed_on", "taken_by_call", "taken_by_class"]

#: What to do where a builder sets an argument itself.
ANOTHER = "Take another name, or write a function that builds the model, and ask for path/to/file.py:FUNCTION."

_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def taken_by_class(kind: type, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Argument -> default of what ``kind(...)`` takes by name.

    Where its constructor passes ``**kwargs`` on, also what those of the classes above it take, and the fields of a
    configuration that it takes as a dataclass: such constructors replace fields of it by what they are given.
    """
    found: dict[str, Any] = {}
    for each in kind.__mro__:
        if "__init__" not in vars(each) or each.__module__.startswith("torch.nn.modules.module"):
            continue
        signature = inspect.signature(vars(each)["__init__"])
        for name, default in _named(signature, skip=1):
            found.setdefault(name, default)
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
            break
        for name, default in _configured(vars(each)["__init__"]):
            found.setdefault(name, default)
    return {name: default for name, default in found.items() if name not in without}


def taken_by_call(function: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Argument -> default of what a function or class takes by name, and whether it takes any other name too."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return {}, True
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return dict(_named(signature)), inspect.Parameter.VAR_KEYWORD in kinds


def _named(signature: inspect.Signature, skip: int = 0) -> Iterator[tuple[str, Any]]:
    for parameter in list(signature.parameters.values())[skip:]:
        if parameter.kind not in (*_OPEN, inspect.Parameter.POSITIONAL_ONLY):
            yield parameter.name, parameter.default


def _configured(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Fields of the dataclasses among a function's parameters."""
    try:
        hints = get_type_hints(function)
    except Exception:  # annotations of others may name what is not there
        return
    for name, hint in hints.items():
        if name != "return" and isinstance(hint, type) and is_dataclass(hint):
            yield from ((entry.name, entry.default) for entry in fields(hint) if entry.init)


def check_arguments(owner: str, given: Mapping[str, Any], taken: Mapping[str, Any], *, any_other: bool = False) -> None:
    """Raise InputError for an argument that is not ``taken``, naming what there is and near matches."""
    for name in given:
        if name not in taken and not any_other:
            there_is = [_shown(known, default) for known, default in taken.items()]
            near = near_matches(name, taken)
            raise InputError(librarian(f"{owner} takes no argument {name!r}", there_is=there_is or "none", near=near))


def _shown(name: str, default: Any) -> str:
    """``depth=12`` for a default that is short to say, else the name alone."""
    plain = isinstance(default, (bool, int, float, str, tuple, list)) and len(repr(default)) <= 20
    return f"{name}={default!r}" if plain else name


def check_complete(request: str, taken: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise InputError where an argument without a default has no value."""
    missing = [n for n, default in taken.items() if default is inspect.Parameter.empty and n not in given]
    if missing:
        example = ",".join(f"{name}=..." for name in (*given, *missing))
        raise InputError(
            librarian(f"{request} needs a value for {' and '.join(missing)}", do=f"Write {request}({example}).")
        )


def passed_on(kind: type, build: Callable[[], Any]) -> dict[str, Any]:
    """Argument -> value of what ``build()`` gives to the first ``kind`` that it makes: ``embed_dim=192`` of a ViT-Tiny,
    where the class says 768. Of parameters that are named alone: what lands in ``*args`` is left out."""
    calls: list[dict[str, Any]] = []
    original: Any = kind.__init__  # type: ignore[misc]

    @functools.wraps(original)
    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        positional = [name for name, _ in _named(inspect.signature(original), skip=1)]
        calls.append({**dict(zip(positional, args, strict=False)), **kwargs})
        original(self, *args, **kwargs)

    with mock.patch.object(kind, "__init__", noting):
        build()
    return calls[0] if calls else {}


def fixed_by(error: BaseException) -> str | None:
    """The argument that a builder sets itself and was given too, where that is what it complains of.

    >>> fixed_by(TypeError("f() got multiple values for keyword argument 'width'"))
    'width'
    """
    said = r"multiple values for (?:keyword )?argument '(\w+)'|^The parameter '(\w+)' expected value"
    found = re.search(said, str(error)) if isinstance(error, (TypeError, ValueError)) else None  # torchvision's own too
    return found[1] or found[2] if found else None
