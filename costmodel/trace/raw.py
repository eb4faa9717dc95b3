"""What one run leaves behind: operators, tensors and storages as seen, sizes still plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from costmodel.execution import NodePhase
from costmodel.nodes import Assumption

__all__ = [
    "RawNode",
    "RawTensor",
    "RawTrace",
    "TensorIndex",
    "dtype_name",
    "indices_in",
    "replace_tensors",
    "tensors_in",
]

_DTYPE_NAMES: dict[torch.dtype, str] = {}


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``float32``."""
    return _DTYPE_NAMES.get(dtype) or _DTYPE_NAMES.setdefault(dtype, str(dtype).removeprefix("torch."))


@dataclass(slots=True)
class TensorIndex:
    """Stands for a tensor among recorded arguments: an index into ``RawTrace.tensors``."""

    index: int


@dataclass(slots=True)
class RawTensor:
    """A tensor as seen: concrete sizes, the storage that it lies in, who made it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    storage: int
    producer: int | None
    role: str
    name: str


@dataclass(slots=True)
class RawNode:
    """An operator call as seen."""

    op: str
    module: str
    module_type: str
    arguments: dict[str, Any]
    outputs: list[TensorIndex]
    in_place: bool
    after: tuple[int, ...]
    synchronizes: bool = False
    autocast: str = ""
    phase: NodePhase = NodePhase.FORWARD
    forward: int | None = None


@dataclass(slots=True)
class RawTrace:
    """One concrete run: operators in program order. ``asks_batch``: the model looked at how large its batch is;
    ``gradients``: the tensor that ends as the gradient of each trained parameter, by the parameter's name;
    ``sparse_rows``: the tensor that says which rows it holds, where it is sparse."""

    nodes: list[RawNode] = field(default_factory=list)
    tensors: list[RawTensor] = field(default_factory=list)
    storages: list[tuple[int, str, str]] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    device: str = ""
    notes: list[str] = field(default_factory=list)
    assumed: tuple[Assumption, ...] = ()
    asks_batch: bool = False
    gradients: dict[str, int] = field(default_factory=dict)
    sparse_rows: dict[str, int] = field(default_factory=dict)
    let_go: dict[int, int] = field(default_factory=dict)
    """Storage -> the last operator during which Python still held a tensor in it, where that was seen to end."""


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor among arguments or results, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def replace_tensors(value: Any, convert: Callable[[torch.Tensor], Any]) -> Any:
    """``value`` with every tensor in it converted."""
    if isinstance(value, torch.Tensor):
        return convert(value)
    if isinstance(value, (list, tuple)):
        return type(value)(replace_tensors(v, convert) for v in value)
    if isinstance(value, dict):
        return {k: replace_tensors(v, convert) for k, v in value.items()}
    return value


def indices_in(value: Any) -> Iterator[TensorIndex]:
    """Every recorded tensor among recorded arguments."""
    if isinstance(value, TensorIndex):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from indices_in(item)
