"""torchvision's models, ``torchvision:NAME``, and their parts, ``torchvision:NAME.part``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, ModelError, librarian
from costmodel.sources.building import building, home, part_of, reason, to_meta
from costmodel.sources.loaded import LoadedModel, TensorInput
from costmodel.sources.own_module import from_module
from costmodel.sources.registry import Options, source
from costmodel.sources.signatures import ANOTHER, check_arguments, fixed_by, passed_on, taken_by_class
from costmodel.sources.torchvision_ops import make_importable

if TYPE_CHECKING:
    from torch import nn

__all__: list[str] = []

#: Frames of a clip: what torchvision's own video weights were evaluated with (references/video_classification).
CLIP_FRAMES = 16
#: Semantic segmentation and optical flow: the sizes that torchvision's weights tables state [pixels].
FLOW_SIZE = (520, 960)
#: Detection networks pad images to a multiple of this [pixels] (GeneralizedRCNNTransform's size_divisible).
DETECTION_MULTIPLE = 32

#: Networks that are built for one image size, and what their constructors call it.
_SIZE_ARGUMENTS = {"vit_": "image_size", "maxvit_": "input_size", "mvit_": "spatial_size"}

IMAGE: tuple[int | str, ...] = ("batch", 3, "height", "width")


def _models() -> Any:
    make_importable()
    import torchvision.models

    return torchvision.models


@lru_cache(maxsize=1)
def torchvision_names() -> dict[str, str | None]:
    """Name -> the module that defines it. ``quantized_*`` are left out: without weights they are float models."""
    models = _models()
    names = [name for name in models.list_models() if not name.startswith("quantized_")]
    return {name: models.get_model_builder(name).__module__.removeprefix("torchvision.models.") for name in names}


@source("torchvision", names=torchvision_names, bare=True)
def load(request: str, options: Options) -> LoadedModel:
    """A model of torchvision with random weights, or the part of it named after a dot."""
    name, _, part = request.partition(".")
    families = torchvision_names()
    if name not in families:
        from costmodel.sources.resolve import unknown_model

        raise unknown_model(name, "torchvision")
    whole = _whole(name, families[name] or "", options)
    if not part:
        if whole.family and whole.family.startswith("detection.") and home() != "cpu":
            raise _data_dependent(name, whole.module)
        return whole
    return _part(whole, part, options)


def _whole(name: str, family: str, options: Options) -> LoadedModel:
    import torchvision

    if options.arguments:
        _check(name, options)
    module, default, notes = _create(name, _size_of(name, options), options.arguments)
    if family.startswith("detection."):
        default = _detection_size(module)
    inputs, sizes = _inputs(family, module, _size_of(name, options) or default)
    return LoadedModel(
        name=name,
        source=f"torchvision {torchvision.__version__}",
        module=module.eval(),
        template=(inputs, {}),
        sizes=sizes,
        notes=notes + _notes(module),
        family=family,
        built_for_size=name.startswith(tuple(_SIZE_ARGUMENTS)),
    )


#: What torchvision's builders take of weights: there are none here.
_WEIGHTS = frozenset({"weights", "weights_backbone", "progress", "init_weights"})


def _check(name: str, options: Options) -> None:
    """Raise InputError for arguments that neither the builder of a name nor the class that it builds takes."""
    said = sorted(_WEIGHTS & options.arguments.keys())
    if said:
        raise InputError(f"torchvision:{name} is built without weights here\n  leave out {said[0]}")
    builder = _models().get_model_builder(name)
    of_builder = {n: p.default for n, p in inspect.signature(builder).parameters.items() if p.kind is not p.VAR_KEYWORD}
    kind = type(_create(name, None, {})[0])
    of_class = taken_by_class(kind)
    taken = {n: default for n, default in (of_class | of_builder).items() if n not in _WEIGHTS}
    if not options.arguments.keys() <= taken.keys():  # to be listed: what may be said
        itself = passed_on(kind, lambda: _create(name, None, {})).keys() - of_builder.keys()
        taken = {argument: default for argument, default in taken.items() if argument not in itself}
    check_arguments(f"torchvision:{name}", options.arguments, taken)


def _size_of(name: str, options: Options) -> tuple[int, int] | None:
    """(height, width) that the request asks for, as an argument of a network built for one size, or as an option."""
    argument = _size_argument(name)
    said = options.arguments.get(argument) if argument else None
    if said is None:
        return options.image_size
    size = (said, said) if isinstance(said, int) else tuple(said) if isinstance(said, (tuple, list)) else ()
    if len(size) != 2 or options.image_size not in (None, size):
        raise InputError(f"torchvision:{name} is built with {argument}={said!r}, and another image size is asked for")
    return size


def _size_argument(name: str) -> str | None:
    return next((argument for prefix, argument in _SIZE_ARGUMENTS.items() if name.startswith(prefix)), None)


def _notes(module: nn.Module) -> list[str]:
    if getattr(module, "aux_logits", False):
        return ["parameters of the auxiliary heads are counted, though they run in training only"]
    return []


def _create(
    name: str, size: tuple[int, int] | None, arguments: Mapping[str, Any]
) -> tuple[nn.Module, tuple[int, int], list[str]]:
    """(module, default size, notes); vision transformers are built for ``size`` where it is not their own."""
    models = _models()
    default = _default_size(models.get_model_weights(name).DEFAULT)
    given: dict[str, Any] = {"weights": None, **arguments}
    if "weights_backbone" in _parameters(models.get_model_builder(name)):
        given["weights_backbone"] = None
    if name in {"googlenet", "inception_v3"}:
        given["init_weights"] = False
    try:
        with building():
            if size and (argument := _size_argument(name)):
                return _resized(models, name, size, argument, given), default, [f"built for {size[0]}x{size[1]} images"]
            module = models.get_model(name, **given)
        own = getattr(module, "image_size", None)  # vit_h_14 is published at 518, and built for 224
        return module, (own, own) if isinstance(own, int) else default, []
    except InputError:
        raise
    except NotImplementedError:  # regnet computes its widths with tensors whose values it then reads
        with building(None):
            return to_meta(models.get_model(name, **given)), default, []
    except Exception as error:
        if fixed := fixed_by(error):
            raise InputError(librarian(f"torchvision:{name} sets {fixed} itself", do=ANOTHER)) from error
        if arguments:
            raise InputError(f"torchvision:{name} cannot be built with these arguments: {reason(error)}") from error
        raise ModelError(f"torchvision:{name} cannot be built: {reason(error)}") from error


def _resized(models: Any, name: str, size: tuple[int, int], argument: str, given: Mapping[str, Any]) -> nn.Module:
    if argument == "image_size" and size[0] != size[1]:
        raise InputError(f"torchvision:{name} takes square images, not {size[0]}x{size[1]}")
    try:
        value = size[0] if argument == "image_size" else size
        module: nn.Module = models.get_model(name, **{**given, argument: value})
    except Exception as error:
        raise InputError(f"torchvision:{name} cannot be built for {size[0]}x{size[1]}: {reason(error)}") from error
    return module


def _parameters(builder: Any) -> set[str]:
    return set(inspect.signature(builder).parameters)


def _default_size(weights: Any) -> tuple[int, int]:
    """(height, width) [pixels] that the transforms of the default weights put out."""
    known = getattr(weights.transforms, "keywords", {})
    size = known.get("crop_size") or known.get("resize_size") or FLOW_SIZE
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _inputs(family: str, module: nn.Module, size: tuple[int, int]) -> tuple[tuple[TensorInput, ...], dict[str, int]]:
    sizes = {"height": size[0], "width": size[1]}
    if family.startswith("video."):
        clip = TensorInput("x", ("batch", 3, "frames", "height", "width"))
        return (clip,), {"frames": CLIP_FRAMES, **sizes}
    if family.startswith("optical_flow."):
        return (TensorInput("image1", IMAGE), TensorInput("image2", IMAGE)), sizes
    return (TensorInput("x", IMAGE),), sizes


def _data_dependent(name: str, module: nn.Module) -> ModelError:
    parts = ", ".join(f"torchvision:{name}.{child}" for child, _ in module.named_children() if child != "transform")
    return ModelError(
        librarian(
            f"torchvision:{name} cannot be analyzed whole: how many boxes it keeps depends on the picture",
            there_is=parts,
            do="--execute (execute=True) runs it once on this machine's CPU, and analyzes what that run computes.\n"
            f"Or take a part: torchvision:{name}.backbone takes images, any other part needs --input-shape.",
        )
    )


def _part(whole: LoadedModel, path: str, options: Options) -> LoadedModel:
    part = part_of(whole.module, path, f"torchvision:{whole.name}")
    name = f"{whole.name}.{path}"
    if (whole.family or "").startswith("detection."):
        loaded = _detection_part(whole, part, path, options)
    elif options.input_shape:
        loaded = from_module(part, input_shape=options.input_shape, name=name)
    else:
        loaded = from_module(part, _inputs_of_part(whole, part, name), name=name, name_sizes=False)
    loaded.name, loaded.source, loaded.family = name, whole.source, whole.family
    return loaded


def _detection_part(whole: LoadedModel, part: nn.Module, path: str, options: Options) -> LoadedModel:
    if path == "backbone" or path.startswith("backbone.body"):
        height, width = options.image_size or _detection_size(whole.module)
        sizes = {"height": height, "width": width}
        return LoadedModel(whole.name, whole.source, part, ((TensorInput("x", IMAGE),), {}), sizes)
    if options.input_shape:
        return from_module(part, input_shape=options.input_shape)
    raise InputError(f"torchvision:{whole.name}.{path} needs --input-shape: what reaches it depends on the picture")


def _detection_size(module: nn.Module) -> tuple[int, int]:
    """(height, width) of a landscape picture after the network's own resizing and padding [pixels]."""
    transform: Any = module.transform
    if transform.fixed_size:
        return transform.fixed_size[1], transform.fixed_size[0]
    sides = (transform.min_size[-1], transform.max_size)
    height, width = (-(-side // DETECTION_MULTIPLE) * DETECTION_MULTIPLE for side in sides)
    return height, width


class _Reached(Exception):
    """Ends the forward pass once it has reached the wanted part."""


def _inputs_of_part(whole: LoadedModel, part: nn.Module, name: str) -> Any:
    """``(args, kwargs)`` that reach ``part`` in one forward pass of the whole on the meta device."""
    import torch

    seen: list[Any] = []

    def catch(_: Any, args: Any, kwargs: Any) -> None:
        seen.append((args, kwargs))
        raise _Reached

    handle = part.register_forward_pre_hook(catch, with_kwargs=True)
    args, kwargs = whole.inputs()
    try:
        with torch.no_grad():
            whole.module(*args, **kwargs)
    except _Reached:
        return seen[0]
    except Exception as error:
        raise ModelError(f"the inputs of torchvision:{name} cannot be found: {reason(error)}") from error
    finally:
        handle.remove()
    raise ModelError(f"torchvision:{name} does not run in a forward pass; give --input-shape")
