"""Sources: from the name of a model to a module on the meta device and the inputs that it takes.

``resolve("resnet50")`` builds nothing but shapes: parameters and buffers live on torch's ``meta`` device, so that a
network of 70 billion parameters costs no memory. No source ever opens a network connection or reads weights.
"""

from __future__ import annotations

from costmodel.sources.building import real_weights
from costmodel.sources.loaded import LoadedModel, TensorInput
from costmodel.sources.own_module import from_module
from costmodel.sources.resolve import KnownModel, full_name, known_models, resolve

__all__ = [
    "KnownModel",
    "LoadedModel",
    "TensorInput",
    "from_module",
    "full_name",
    "known_models",
    "real_weights",
    "resolve",
]
