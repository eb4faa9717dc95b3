"""timm's models: ``timm:NAME``, and ``timm:NAME+reparameterized`` with the branches folded that a model can fold."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, ModelError, librarian, near_matches
from costmodel.sources.building import building, offline, reason
from costmodel.sources.loaded import LoadedModel, TensorInput
from costmodel.sources.registry import Options, source
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
    """A model of timm with random weights, classifier included."""
    timm = _timm()
    name, plus, change = name.partition("+")
    if not timm.is_model(name):
        from costmodel.sources.resolve import unknown_model

        raise unknown_model(name, "timm")
    if plus and change != FOLDED:
        raise ModelError(librarian(f"timm's {name} cannot be had '{change}'", there_is=[f"timm:{name}+{FOLDED}"]))
    channels, height, width = _input_size(timm, name)
    size = options.image_size or (height, width)
    module, notes = _create(timm, name, size, rebuild=size != (height, width))
    if plus:
        module = _folded(timm, name, module)
    elif _can_fold(module):
        notes.append(f"branches not folded; timm:{name}+{FOLDED} folds them, as for deployment")
    return LoadedModel(
        name=name + plus + change,
        source=f"timm {timm.__version__}",
        module=module.eval(),
        template=((TensorInput("x", ("batch", channels, "height", "width")),), {}),
        sizes={"height": size[0], "width": size[1]},
        notes=notes,
        family=timm_names().get(name.partition(".")[0]),
        built_for_size="img_size" in inspect.signature(type(module).__init__).parameters,
    )


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


def _create(timm: Any, name: str, size: tuple[int, int], *, rebuild: bool) -> tuple[nn.Module, list[str]]:
    """The module; where another image size is asked for, built for it if its constructor knows of image sizes."""
    try:
        with building():
            if not rebuild:
                return timm.create_model(name, pretrained=False), []
            try:
                return timm.create_model(name, img_size=size), [f"built with img_size={size[0]}x{size[1]}"]
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
                return timm.create_model(name), []
    except Exception as error:
        if rebuild:
            raise InputError(f"timm:{name} cannot be built for {size[0]}x{size[1]} images: {reason(error)}") from error
        raise ModelError(f"timm:{name} cannot be built: {reason(error)}") from error
