"""A model that can really run: with weights, and with inputs that have values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmodel.sources.building import real_weights
from costmodel.sources.input_files import read_inputs
from costmodel.sources.loaded import LoadedModel
from costmodel.sources.own_module import from_module, with_inputs
from costmodel.sources.resolve import full_name, resolve

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SEED", "runnable"]

#: What is not given, weights and inputs, is drawn from this seed.
SEED = 0

#: Sources that draw the weights of the architectures that they name; files and programs bring theirs.
_DRAWING = frozenset({"timm", "torchvision", "zoo", "hf"})


def runnable(
    model: str | nn.Module, inputs: Any, sizes: Mapping[str, int], input_shape: tuple[int, ...] | None
) -> LoadedModel:
    """A named model, built on the CPU, or the caller's module, untouched; the values of its ``inputs`` are kept.

    ``inputs`` None: the model's own, without values; a path: what the file holds (:func:`read_inputs`), a picture
    resized to the model's own size, but for detectors, which take pictures of any size. Raises what :func:`resolve`,
    :func:`from_module` and :func:`read_inputs` raise.
    """
    import torch

    with real_weights(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if not isinstance(model, str):
            given = read_inputs(inputs, sizes) if isinstance(inputs, str) else inputs
            return from_module(model, given, input_shape=input_shape)
        image = (sizes["height"], sizes["width"]) if "height" in sizes else None
        loaded = resolve(model, image_size=image, seq_len=sizes.get("seq_len"), input_shape=input_shape)
        loaded = replace(loaded, random_weights=full_name(model).partition(":")[0] in _DRAWING)
        if isinstance(inputs, str):
            takes_any = not sizes and (loaded.family or "").startswith("detection.")
            inputs = read_inputs(inputs, {} if takes_any else {**loaded.sizes, **sizes})
        return loaded if inputs is None else with_inputs(loaded, inputs)
