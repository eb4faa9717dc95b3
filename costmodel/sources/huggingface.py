"""transformers' models from a configuration alone: ``hf:MODEL_TYPE`` and ``hf:path/to/config.json``."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from costmodel.errors import InputError, ModelError, UnknownModelError, librarian, near_matches
from costmodel.execution import Phase, WeightScheme
from costmodel.execution.weights import of_configuration
from costmodel.sources.building import building, offline, reason, to_meta
from costmodel.sources.generation import PROMPT, after_prompt, generating_class
from costmodel.sources.loaded import LoadedModel
from costmodel.sources.registry import Options, source
from costmodel.sources.signatures import check_arguments
from costmodel.sources.torchaudio_library import make_torchaudio_importable
from costmodel.sources.torchvision_ops import make_importable
from costmodel.sources.transformers_attention import REPEATED, register_repeated
from costmodel.sources.transformers_experts import BATCHED, GROUPED, NOTES, register_grouped_experts
from costmodel.sources.transformers_inputs import inputs_of, longest, text_part, what_is_left_out
from costmodel.sources.transformers_kernels import references, say_references
from costmodel.sources.transformers_masks import assume_plain_input, plain_answers

__all__: list[str] = []


def _transformers() -> Any:
    if find_spec("transformers") is None:
        raise ModelError(librarian("hf: models need transformers", do="pip install 'torch-costmodel[hf]'"))
    make_importable()  # its image models import torchvision
    make_torchaudio_importable()  # and it imports torchaudio itself
    with offline():
        import transformers
    assume_plain_input()
    say_references()
    return transformers


@lru_cache(maxsize=1)
def model_types() -> dict[str, str | None]:
    """Every model type with a base model; empty where transformers is not installed."""
    if find_spec("transformers") is None:
        return {}
    _transformers()
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return {name: name for name in MODEL_MAPPING_NAMES}


@source("hf", names=model_types, generates=True)
def load(request: str, options: Options) -> LoadedModel:
    """A model of transformers with random weights: a type's default configuration, or a configuration file.

    A class may be named behind it (``hf:llama:LlamaModel``). Else a file's ``architectures`` choose it; a bare type
    gives the class that writes text where its models do, or the base model without a head. Nothing is
    downloaded. Arguments of the request override values of the configuration.
    Raises UnknownModelError for an unknown type or a missing file, ModelError for a broken
    configuration, or one that needs code of its own.
    """
    transformers = _transformers()
    request, named = _named_class(request)
    values, origin = _configuration(request)
    weights = _stored_weights(values)
    config = _config(transformers, values, request)
    if options.arguments:
        _check(config, options.arguments, f"hf:{request}")
        values = _overridden(values, options.arguments)
        config = _config(transformers, values, request)
    notes = _resize(config, options)
    chosen = _chosen_class(transformers, config, request, named, options.phase)
    text = text_part(config)
    if getattr(chosen, "config_class", None) is type(text) is not type(config):
        config = text  # of a type for pictures too: the class that writes is that of its text, as AutoModel has it
    asked = {
        "attn_implementation": values.get("attn_implementation") or "sdpa",
        "experts_implementation": _experts(values.get("experts_implementation"), options.phase),
    }
    defaults = origin is None and not options.arguments
    model, attention = _build(config, request, chosen, asked, options.phase, defaults)
    inputs, sizes = inputs_of(model, config, options)
    positions = longest(text_part(config))
    name = request if origin is None else origin.resolve().parent.name if origin.name == "config.json" else origin.stem
    return LoadedModel(
        name=f"{name}:{named}" if named else name,
        source=f"transformers {transformers.__version__} {'default config' if origin is None else f'config {origin}'}",
        module=to_meta(model.eval()),  # a few constructors insist on the CPU
        template=((), inputs),
        sizes=sizes,
        notes=notes
        + _notes(model, attention, options.phase)
        + what_is_left_out(model, config, inputs)
        + references(model)
        + _dtype_note(values),
        family=config.model_type,
        limits={} if positions is None else {"seq_len": positions, "context": max(positions - 1, 1)},
        built_for_size=_sized_part(config) is not None,
        weights=weights,
        plain=plain_answers(model),
        prepare=after_prompt if PROMPT in inputs else None,
        hint=_FAILS.format(_given(request)) if defaults else "",
    )


def _notes(model: Any, attention: str, phase: Phase) -> list[str]:
    notes = [f"{type(model).__name__}, attn_implementation={attention}, use_cache={phase.generates}"]
    if any(hasattr(part, "num_experts") or hasattr(part, "gate_up_proj") for part in model.modules()):
        way = getattr(text_part(model.config), "_experts_implementation", None)
        notes += [NOTES[way]] if way in NOTES else []
    return notes


def _stored_weights(values: dict[str, Any]) -> WeightScheme | None:
    """How a configuration says that its weights are stored; what says so is taken out of it, since the module is built
    with weights as wide as they are multiplied. Raises InputError for a method that is not known."""
    parts = [values, *(part for part in values.values() if isinstance(part, dict) and "quantization_config" in part)]
    said = [part.pop("quantization_config") for part in parts if "quantization_config" in part]
    return of_configuration(said[0]) if said and said[0] else None


def _dtype_note(values: dict[str, Any]) -> list[str]:
    named = next((key for key in ("dtype", "torch_dtype") if values.get(key)), None)
    return [f"the configuration says {named} {str(values[named]).removeprefix('torch.')}"] if named else []


def _configuration(request: str) -> tuple[dict[str, Any], Path | None]:
    """The values of the configuration, and the file they came from (None for a type's defaults)."""
    path = Path(request).expanduser()
    if not (path.suffix == ".json" or os.path.exists(path) or "/" in request):
        return {"model_type": request}, None
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise UnknownModelError(
            librarian(f"there is no file {path}", do="hf: reads a local config.json; it never asks a hub for one.")
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise ModelError(f"{path} is no transformers configuration: it has no 'model_type'")
    return values, path


def _config(transformers: Any, values: dict[str, Any], request: str) -> Any:
    model_type = values["model_type"]
    if model_type not in model_types():
        raise UnknownModelError(
            librarian(
                f"transformers {transformers.__version__} has no model type '{model_type}'",
                there_is=f"{len(model_types())} types; `costmodel models` lists them",
                near=[f"hf:{hit}" for hit in near_matches(str(model_type), model_types())],
            )
        )
    rest = {key: value for key, value in values.items() if key != "model_type"}
    try:
        with building(device=None):
            return transformers.AutoConfig.for_model(model_type, **rest)
    except Exception as error:
        raise ModelError(f"hf:{request} is no valid {model_type} configuration: {reason(error)}") from error


#: Entries of a configuration that change no model that is built here: what runs return, and formats, asked elsewhere.
_NOT_OF_THE_MODEL = frozenset(
    {"model_type", "transformers_version", "return_dict", "output_hidden_states", "output_attentions", "dtype",
     "torch_dtype", "use_cache", "id2label", "label2id", "problem_type", "initializer_range", "initializer_factor"}
)  # fmt: skip


def _check(config: Any, given: Mapping[str, Any], owner: str) -> None:
    """Raise InputError for values that a configuration does not have, those of its parts included: configurations
    of transformers keep whatever they are given."""
    ways = {"attn_implementation": "sdpa", "experts_implementation": GROUPED}
    known = {
        **ways,
        **dict.fromkeys([*getattr(config, "attribute_map", {}), *_read_if_there(config)]),
        **config.to_dict(),
    }
    taken = {name: value for name, value in known.items() if name not in _NOT_OF_THE_MODEL and name[0] != "_"}
    check_arguments(owner, given, taken)
    for name, value in given.items():
        if name in config.sub_configs and isinstance(value, dict) and hasattr(getattr(config, name, None), "to_dict"):
            _check(getattr(config, name), value, f"{name} of {owner}")


def _read_if_there(config: Any) -> list[str]:
    """Values that a type's models ask its configuration for, and that its class does not declare (``head_dim``)."""
    try:
        code = inspect.getsource(import_module(type(config).__module__.replace(".configuration_", ".modeling_")))
    except (ImportError, OSError):
        return []
    return sorted(set(re.findall(r'getattr\((?:self\.)?config, "(\w+)"', code)))


def _overridden(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a configuration with some of them, or of one of its parts, given anew."""
    changed = dict(values)
    for name, value in given.items():
        both = isinstance(value, dict) and isinstance(changed.get(name), dict)
        changed[name] = _overridden(changed[name], value) if both else value
    return changed


def _sized_part(config: Any) -> Any:
    """The part of a configuration that holds an image size, or None."""
    part = config if hasattr(config, "image_size") else getattr(config, "vision_config", None)
    return part if hasattr(part, "image_size") else None


def _resize(config: Any, options: Options) -> list[str]:
    """Let the configuration's image size be the one asked for: patch grids are built for it."""
    part = _sized_part(config)
    if part is None or options.image_size is None:
        return []
    height, width = options.image_size
    part.image_size = height if height == width else (height, width)
    return [f"built with image_size={height}x{width}"]


def _build(
    config: Any, request: str, chosen: Any, ways: Mapping[str, str], phase: Phase, defaults: bool
) -> tuple[Any, str]:
    """(model, attention implementation): the one that the configuration names, else scaled_dot_product_attention
    where the model supports it."""
    build = chosen._from_config if hasattr(chosen, "_from_config") else chosen.from_config
    for part in [config, *(getattr(config, name) for name in config.sub_configs if hasattr(config, name))]:
        if hasattr(part, "use_cache"):
            part.use_cache = phase.generates
    asked = {name: way for name, way in ways.items() if way}
    if asked.get("attn_implementation") == REPEATED:
        register_repeated()
    for way in (asked, {**asked, "attn_implementation": "eager"}):
        try:
            with building():
                return build(config, **way), way["attn_implementation"]
        except Exception as error:
            if way is not asked or "scaled_dot_product_attention" not in str(error):
                raise ModelError(_not_built(request, defaults, error)) from error
    raise AssertionError("the last way returns or raises")


def _not_built(request: str, defaults: bool, error: Exception) -> str:
    """Why a model cannot be built, and what helps where these are the ``defaults`` of its type."""
    if not defaults or isinstance(error, ImportError):
        return f"hf:{request} cannot be built: {reason(error)}"
    return librarian(
        f"the default configuration of {request} cannot be built: {reason(error)}",
        do=_given(request),
    )


#: What helps where the forward pass of a type's default configuration fails.
_FAILS = """Defaults of a type can be those of no model. {}
  An input that it misses can be given with its module: costmodel.analyze(module, {{...}}, hw=...)."""


def _given(request: str) -> str:
    return f"Give the config.json of a model of this type, or values: hf:{request}(NAME=VALUE)."


def _experts(asked: str | None, phase: Phase) -> str:
    """How experts are run, "" for transformers' own choice: grouped products where a model knows them. A training
    step gathers the weights of each token's experts, since the grouped product on meta has no gradient.

    Raises InputError for a way whose shapes depend on the routing, or that there is not.
    """
    from transformers import PreTrainedModel

    if not hasattr(PreTrainedModel, "_can_set_experts_implementation") or not register_grouped_experts():
        return ""
    if asked is not None and asked not in NOTES:
        why = "loops over the experts that tokens were sent to, which depends on values" if asked == "eager" else ""
        raise InputError(librarian(f"experts_implementation={asked!r} {why or 'is not known'}", there_is=tuple(NOTES)))
    usual = "" if phase is not Phase.TRAINING else BATCHED  # transformers itself takes grouped products where it can
    return "" if asked == GROUPED else asked or usual


def _named_class(request: str) -> tuple[str, str]:
    """``llama:LlamaModel`` -> ("llama", "LlamaModel"); the class is empty where none is named."""
    bare, colon, name = request.rpartition(":")
    return (bare, name) if colon and name.isidentifier() else (request, "")


def _chosen_class(transformers: Any, config: Any, request: str, named: str, phase: Phase) -> Any:
    """The class that was named, else the one that ``architectures`` names, else the one that writes text, else the base
    model; in the phases of writing a class without a head gives way to the one that has it.

    Raises UnknownModelError for a class that is not of the configuration's type, InputError where no text is written.
    """
    if named:
        found: Any = getattr(transformers, named, None)
        if not isinstance(getattr(found, "config_class", None), type) or not isinstance(config, found.config_class):
            own = _classes_of(transformers, config)
            raise UnknownModelError(
                librarian(f"{config.model_type} has no class {named!r}", there_is=own, near=near_matches(named, own))
            )
        return found
    writes = generating_class(transformers, config, phase)
    said = getattr(transformers, (getattr(config, "architectures", None) or [""])[0], None)
    if not phase.generates:
        return said or writes or transformers.AutoModel
    if said is not None and said.can_generate():
        return said
    if writes is None:
        raise InputError(
            librarian(
                f"hf:{request} writes no text, and has no phase {phase.value}",
                there_is=["inference", "training"],
                do="A class that does may be named: hf:TYPE:CLASS.",
            )
        )
    return writes


def _classes_of(transformers: Any, config: Any) -> list[str]:
    """Model classes that take a configuration's class."""
    module = sys.modules.get(type(config).__module__.replace(".configuration_", ".modeling_"))
    names = getattr(module, "__all__", None) or [n for n in dir(transformers) if n.endswith(("Model", "LM"))]
    kinds = ((name, getattr(transformers, name, None)) for name in names)
    return sorted(name for name, kind in kinds if getattr(kind, "config_class", None) is type(config))
