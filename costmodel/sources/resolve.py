"""From a request ("resnet50", "hf:bert", "net.py:make") to a LoadedModel; and the list of known models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from costmodel.errors import InputError, UnknownModelError, librarian, near_matches
from costmodel.execution import Phase
from costmodel.sources.aliases import ALIASES
from costmodel.sources.arguments import Request, parse_request
from costmodel.sources.loaded import LoadedModel
from costmodel.sources.registry import Options, Source, all_sources

__all__ = ["KnownModel", "full_name", "known_models", "resolve"]

FORMS = (
    "NAME, timm:NAME, torchvision:NAME, zoo:NAME, hf:MODEL_TYPE, hf:config.json, file.py:factory, model.pt2 or "
    "model.onnx; NAME(width=64) builds it with arguments"
)


@dataclass(frozen=True, slots=True, order=True)
class KnownModel:
    """A model that has a name: ``source:name`` requests it."""

    name: str
    source: str
    family: str | None = None


def resolve(
    request: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    input_shape: tuple[int, ...] | None = None,
    seq_len: int | None = None,
    context: int | None = None,
    phase: Phase = Phase.INFERENCE,
) -> LoadedModel:
    """The model that ``request`` names, in eval mode, built on the meta device (inside ``real_weights``: on the CPU).

    ``image_size`` [pixels] is one number or (height, width); ``input_shape`` is the first input without its batch;
    ``seq_len`` is in tokens. Defaults are the model's own. ``phase`` and ``context`` (tokens in the cache) belong to
    models that write text.

    Arguments in parentheses behind the name are what it is built with: :mod:`costmodel.sources.arguments`.

    Raises UnknownModelError where no source knows the name (with near matches), ModelError where building fails,
    InputError where the sizes do not fit the model, or it takes no such arguments.
    """
    parsed = parse_request(request)
    options = replace(Options.checked(image_size, input_shape, seq_len, context, phase), arguments=parsed.arguments)
    place, name, note = _place(parsed.bare)
    if parsed.arguments and not place.builds:
        raise InputError(f"{name} is saved as it is, and takes no arguments such as {parsed.said}")
    if (phase.generates or context) and not place.generates:
        there = [f"{prefix}:" for prefix, other in all_sources().items() if other.generates]
        asked = f"phase={phase.value}" if phase.generates else "a context"
        raise InputError(librarian(f"{asked} belongs to models that write text, not to {request}", there_is=there))
    loaded = _sized(place.load(name, options), options)
    loaded.name = _named(loaded.name, parsed)
    loaded.notes[:0] = note
    return loaded


def _named(name: str, request: Request) -> str:
    """``name`` with the arguments that the model was built with, where a request has them."""
    if not request.said:
        return name
    part = request.rest if request.rest and name.endswith(request.rest) else ""
    return name.removesuffix(part) + request.said + part


def full_name(request: str) -> str:
    """``request`` with its source said, so that it means the same wherever it is read: ``timm:resnet50``.

    Files are left as they are. Raises UnknownModelError where no source knows the name.
    """
    parsed = parse_request(request)
    place, name, _ = _place(parsed.bare)
    name = _named(name, parsed)
    return name if place.claims(parsed.bare) else f"{place.prefix}:{name}"


def _place(request: str) -> tuple[Source, str, list[str]]:
    """The source that a request goes to, the name there, and a note where the request did not say so itself."""
    if not request:
        raise UnknownModelError(librarian("an empty request names no model", do=f"A model is {FORMS}."))
    sources = all_sources()
    prefix, colon, name = request.partition(":")
    if colon and prefix in sources:
        return sources[prefix], name, []
    for place in sources.values():
        if place.claims(request):
            return place, request, []
    for place in sources.values():
        if place.bare and request.partition("+")[0].split(".")[0] in place.names():
            return place, request, []
    if request in ALIASES:
        prefix, _, name = ALIASES[request].partition(":")
        return sources[prefix], name, [f"'{request}' is {ALIASES[request]}"]
    raise unknown_model(request)


def unknown_model(name: str, *prefixes: str) -> UnknownModelError:
    """The error for a name that none of the ``prefixes`` (default: those that bare names are looked for in) has."""
    sources = all_sources()
    searched = prefixes or tuple(p for p, place in sources.items() if place.bare)
    known = {n: p for p in searched for n in sources[p].names()}
    near = near_matches(name, [*known, *([] if prefixes else ALIASES)])
    elsewhere = [f"{p}:{name}" for p, place in sources.items() if p not in searched and name in place.names()]
    return UnknownModelError(
        librarian(
            f"no model is called '{name}' in {' or '.join(searched)}",
            there_is=f"{len(known)} names; `costmodel models PATTERN` lists them",
            near=[*elsewhere, *(f"{prefixes[0]}:{n}" if prefixes else n for n in near)],
            do=f"A model is {FORMS}.",
        )
    )


def _sized(loaded: LoadedModel, options: Options) -> LoadedModel:
    """``loaded`` with the sizes that were asked for; refuses sizes that the model does not have."""
    if options.input_shape:
        loaded = loaded.with_input_shape(options.input_shape)
    if options.image_size:
        if not {"height", "width"} <= loaded.sizes.keys():
            raise InputError(librarian(f"{loaded.name} has no image size", there_is=_described(loaded)))
        loaded.sizes["height"], loaded.sizes["width"] = options.image_size
    if options.seq_len and options.phase is not Phase.DECODE:
        if "seq_len" not in loaded.sizes:
            raise InputError(librarian(f"{loaded.name} has no seq_len", there_is=_described(loaded)))
        loaded.sizes["seq_len"] = options.seq_len
    return loaded


def _described(loaded: LoadedModel) -> str:
    return "; ".join(f"{t.name} ({', '.join(map(str, t.dims))})" for t in loaded.tensor_inputs)


def known_models(pattern: str | None = None) -> list[KnownModel]:
    """Every model that has a name, sorted; ``pattern`` is a part of the name or a shell pattern (``*vit*``)."""
    wanted = "*" if not pattern else pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    found = [
        KnownModel(name, prefix, family)
        for prefix, place in all_sources().items()
        for name, family in place.names().items()
        if fnmatchcase(name.lower(), wanted.lower())
    ]
    return sorted(found, key=lambda model: (model.name, model.source))
