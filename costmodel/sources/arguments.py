"""Arguments in a request: ``timm:vit_small_patch16_224(embed_dim=448,depth=10)``. Literals only; nothing is evaluated.

They stand behind the name, and what is asked of the result stands behind them:
``timm:repvgg_a0(num_classes=10)+reparameterized``, ``torchvision:resnet50(width_per_group=128).layer4``.
A set, ``embed_dim={384,448}``, says alternatives: one request for each.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from costmodel.errors import InputError, librarian

__all__ = ["Request", "alternatives", "canonical", "located", "parse_request"]

_EXAMPLE = "Write them as in timm:vit_small_patch16_224(embed_dim=448,depth=10)."
_LITERALS = "Values are literals: numbers, 'texts', True, None, and lists, tuples and dictionaries of them."
#: What may follow the arguments: a part of the model, or another form of it.
_REST = re.compile(r"([.+][\w.+]*)?")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Request:
    """A request taken apart: the name, the arguments in the order in which they were written, and what follows them."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rest: str = ""

    @property
    def bare(self) -> str:
        """The request without its arguments."""
        return self.name + self.rest

    @property
    def said(self) -> str:
        """The arguments as one writes them, parentheses included; empty where there are none."""
        listed = ",".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"({listed})" if listed else ""

    def __str__(self) -> str:
        return self.name + self.said + self.rest


def parse_request(request: str) -> Request:
    """``request`` with its arguments read. Raises InputError for arguments that are no ``NAME=LITERAL`` pairs.

    >>> parse_request("torchvision:resnet50(width_per_group=128).layer4")
    Request(name='torchvision:resnet50', arguments={'width_per_group': 128}, rest='.layer4')
    """
    name, given, rest = _split(request)
    arguments = {}
    for keyword in given:
        if isinstance(keyword.value, ast.Set):
            said = f"{keyword.arg}={ast.unparse(keyword.value)}"
            do = "`costmodel sweep` takes such alternatives, one model for each; everything else takes one value."
            raise InputError(librarian(f"{said} in {request} names several models", do=do))
        arguments[str(keyword.arg)] = _literal(keyword, request)
    return Request(name, arguments, rest)


def canonical(request: str) -> str:
    """One text for all requests that differ by spaces and by the order of their arguments.

    >>> canonical("net.py:make( b = 2, a=[1,2])")
    'net.py:make(a=[1, 2],b=2)'
    """
    parsed = parse_request(request)
    return str(Request(parsed.name, dict(sorted(parsed.arguments.items())), parsed.rest))


def located(request: str) -> str:
    """:func:`canonical`, and for code or a file of the user's own the whole path: ``net.py:make`` is another network in
    another directory."""
    name = parse_request(request).name
    path, _, attribute = name.removeprefix("hf:").rpartition(":")
    places = (name.removeprefix("hf:"), path, f"{path.replace('.', '/')}.py", f"{path.replace('.', '/')}/__init__.py")
    for place in places:
        if place and os.path.exists(Path(place).expanduser()):
            return f"{Path(place).expanduser().resolve()}:{attribute} {canonical(request)}"
    return canonical(request)


def alternatives(request: str) -> list[str]:
    """Every request that one with braces stands for, the last brace changing first. Raises as :func:`parse_request`.

    >>> alternatives("timm:resnet{18,34}(stem_width={32,64},base_width=64)")     # doctest: +NORMALIZE_WHITESPACE
    ['timm:resnet18(stem_width=32,base_width=64)', 'timm:resnet18(stem_width=64,base_width=64)',
     'timm:resnet34(stem_width=32,base_width=64)', 'timm:resnet34(stem_width=64,base_width=64)']
    """
    name, given, rest = _split(request)
    values: list[list[Any]] = []
    for keyword in given:
        several = keyword.value.elts if isinstance(keyword.value, ast.Set) else [keyword.value]
        values.append([_literal(ast.keyword(keyword.arg, value), request) for value in several])
    names = [str(keyword.arg) for keyword in given]
    return [
        str(Request(each, dict(zip(names, chosen, strict=True)), rest))
        for each in _names(name)
        for chosen in itertools.product(*values)
    ]


def _names(name: str) -> list[str]:
    pieces = _BRACES.split(name)  # texts and the insides of braces take turns
    choices = [piece.split(",") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return ["".join(chosen).replace(" ", "") if len(pieces) > 1 else name for chosen in itertools.product(*choices)]


def _split(request: str) -> tuple[str, list[ast.keyword], str]:
    """(name, arguments as syntax, what follows them)."""
    request = request.strip()
    begin = request.find("(", request.find(".py:") + 1)  # a folder may have parentheses in its name
    if begin < 1 or any(map(os.path.exists, (request, request.partition(":")[2]))):  # False for an impossible name
        return request, [], ""
    name, (inside, closed, rest) = request[:begin], request[begin + 1 :].rpartition(")")
    if not closed or not _REST.fullmatch(rest):
        raise InputError(librarian(f"the arguments in {request} are not closed by a parenthesis", do=_EXAMPLE))
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(
            librarian(f"the arguments in {request} cannot be read", do=f"{_EXAMPLE}\n{_LITERALS}")
        ) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise InputError(librarian(f"the arguments in {request} cannot be read", do=_EXAMPLE))
    unnamed = [ast.unparse(value) for value in call.args] + [ast.unparse(k) for k in call.keywords if k.arg is None]
    if unnamed:
        raise InputError(librarian(f"{unnamed[0]} in {request} does not say which argument it is", do=_EXAMPLE))
    names = [keyword.arg for keyword in call.keywords]
    if twice := next((each for each in names if names.count(each) > 1), None):  # which ast lets pass
        raise InputError(librarian(f"{request} says {twice} twice", do=_EXAMPLE))
    return name.rstrip(), call.keywords, rest


def _literal(keyword: ast.keyword, request: str) -> Any:
    try:
        return ast.literal_eval(keyword.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        said = f"{keyword.arg}={ast.unparse(keyword.value)}"
        raise InputError(librarian(f"{said} in {request} is no literal", do=_LITERALS)) from error
