"""timm's models: ``timm:NAME``, and ``timm:NAME+reparameterized`` with the branches folded that a model can fold."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, ModelError, librarian, near_matches
from costmodel.sources.building import building, offline, reason
from costmodel.sources.loaded import LoadedModel, TensorInput
from costmodel.sources.registry import Options, source
from costmodel.sources.signatures import ANOTHER, check_arguments, fixed_by, passed_on, taken_by_class
from costmodel.sources.torchvision_ops import make_importable

if TYPE_CHECKING:
    from torch import nn

__all__: list[str] = []


def _timm() -> Any:
    make_importable()  # timm imports torchvision
    with offline():
        import timm
    return timm


@lru_cache(maxsize=1)
def timm_names() -> dict[str, str | None]:
    """Name -> the module of timm that defines it (``resnet``, ``vision_transformer``)."""
    _timm()
    from timm.models import list_models, model_entrypoint

    return {name: model_entrypoint(name).__module__.rpartition(".")[2] for name in list_models()}


#: Behind a name: branches and normalizations that the model can fold into its convolutions are folded.
FOLDED = "reparameterized"
_FOLDS = ("fuse", "reparameterize", "switch_to_deploy")  # methods that timm.utils.reparameterize_model looks for


@source("timm", names=timm_names, bare=True)
def load(name: str, options: Options) -> LoadedModel:
    """A model of timm with random weights, classifier included; arguments go to the class behind the name."""
    timm = _timm()
    name, plus, change = name.partition("+")
    if not timm.is_model(name):
        from costmodel.sources.resolve import unknown_model

        raise unknown_model(name, "timm")
    if plus and change != FOLDED:
        raise ModelError(librarian(f"timm's {name} cannot be had '{change}'", there_is=[f"timm:{name}+{FOLDED}"]))
    arguments = options.arguments
    if arguments:
        _check(timm, name, arguments)
    channels, height, width = _input_size(timm, name)
    size = _size_of(name, arguments, options) or (height, width)
    rebuild = size != (height, width) and "img_size" not in arguments
    module, notes = _create(timm, name, size, arguments, rebuild=rebuild)
    if plus:
        module = _folded(timm, name, module)
    elif _can_fold(module):
        notes.append(f"branches not folded; timm:{name}+{FOLDED} folds them, as for deployment")
    return LoadedModel(
        name=name + plus + change,
        source=f"timm {timm.__version__}",
        module=module.eval(),
        template=((TensorInput("x", ("batch", arguments.get("in_chans", channels), "height", "width")),), {}),
        sizes={"height": size[0], "width": size[1]},
        notes=notes,
        family=timm_names().get(name.partition(".")[0]),
        built_for_size="img_size" in inspect.signature(type(module).__init__).parameters,
    )


#: What timm's builders take besides, and does not reach the class: feature maps of a backbone in the place of its head.
_BUILDERS = {"features_only": False, "out_indices": inspect.Parameter.empty}
#: What they take as well, and which says nothing of a model that is built without weights.
_NOT_OF_THE_MODEL = frozenset({"device", "dtype", "cfg", "weight_init", "fix_init"})


def _check(timm: Any, name: str, arguments: Mapping[str, Any]) -> None:
    """Raise InputError for arguments that the class behind a name does not take. Its entry point takes any, and some
    classes drop what they do not know, so that the class is asked: the model is built once without them."""
    if "pretrained" in arguments:
        raise InputError(
            f"timm:{name} is built without weights here, and nothing is downloaded\n  leave out pretrained"
        )
    left_out = [argument for argument, value in arguments.items() if value is None]
    if left_out:
        raise InputError(f"None is what timm takes for nothing said\n  leave out {left_out[0]}")
    if "out_indices" in arguments and arguments.get("features_only") is not True:
        raise InputError(f"out_indices says which feature maps timm:{name} returns\n  write features_only=True with it")
    with building():
        kind = type(timm.create_model(name, pretrained=False))
        taken = taken_by_class(kind, without=_NOT_OF_THE_MODEL)
        if not arguments.keys() <= taken.keys():
            own = passed_on(kind, lambda: timm.create_model(name, pretrained=False))
            taken |= {argument: value for argument, value in own.items() if argument in taken} | _BUILDERS
    check_arguments(f"timm:{name}", arguments, taken)


def _size_of(name: str, arguments: Mapping[str, Any], options: Options) -> tuple[int, int] | None:
    """(height, width) that the request asks for, as an argument or an option; None where it leaves the model's own."""
    said = arguments.get("img_size")
    if said is None:
        return options.image_size
    size = (said, said) if isinstance(said, int) else tuple(said) if isinstance(said, (tuple, list)) else ()
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise InputError(f"img_size of timm:{name} is a number of pixels, or height and width, not {said!r}")
    if options.image_size not in (None, size):
        raise InputError(f"timm:{name} is built with img_size={said}, and another image size is asked for\n  say one")
    return size


def _can_fold(module: nn.Module) -> bool:
    return any(hasattr(part, method) for part in module.modules() for method in _FOLDS)


def _folded(timm: Any, name: str, module: nn.Module) -> nn.Module:
    """The module as it is deployed: RepVGG's branches in one convolution, LeViT's normalizations in its products."""
    if not _can_fold(module):
        raise ModelError(f"timm's {name} has no branches or normalizations that it can fold\n  ask for timm:{name}")
    with building():
        folded: nn.Module = timm.utils.reparameterize_model(module, inplace=True)
    return folded


def _input_size(timm: Any, name: str) -> tuple[int, int, int]:
    """(channels, height, width) of the model's default configuration; an unknown tag is an error."""
    architecture, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ModelError(
            librarian(
                f"timm's {architecture} has no configuration '{tag}'", there_is=tags, near=near_matches(tag, tags)
            )
        )
    config = timm.get_pretrained_cfg(name)
    channels, height, width = config.input_size if config else (3, 224, 224)
    return channels, height, width


def _create(
    timm: Any, name: str, size: tuple[int, int], arguments: Mapping[str, Any], *, rebuild: bool
) -> tuple[nn.Module, list[str]]:
    """The module; where another image size is asked for, built for it if its constructor knows of image sizes."""
    try:
        with building():
            if not rebuild:
                return timm.create_model(name, pretrained=False, **arguments), []
            try:
                return timm.create_model(name, img_size=size, **arguments), [f"built with img_size={size[0]}x{size[1]}"]
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
                return timm.create_model(name, **arguments), []
    except Exception as error:
        if fixed := fixed_by(error):
            raise InputError(librarian(f"timm:{name} sets {fixed} itself", do=ANOTHER)) from error
        if rebuild:
            raise InputError(f"timm:{name} cannot be built for {size[0]}x{size[1]} images: {reason(error)}") from error
        if arguments:
            raise InputError(f"timm:{name} cannot be built with these arguments: {reason(error)}") from error
        raise ModelError(f"timm:{name} cannot be built: {reason(error)}") from error
