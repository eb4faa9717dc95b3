"""What a traced program is made of: tensors and the storages they lie in, operators and the calls they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from costmodel.execution import NodePhase
from costmodel.tensor import Role, TensorSpec

__all__ = [
    "Assumption",
    "Call",
    "DimCode",
    "OpNode",
    "SpecRef",
    "Storage",
    "Tensor",
    "has_dim",
    "map_call",
    "map_spec",
    "operator_word",
]


@dataclass(frozen=True, slots=True)
class SpecRef:
    """An argument or result that is a tensor: an index into ``OpGraph.specs``."""

    spec: int


@dataclass(frozen=True, slots=True)
class DimCode:
    """An argument that is a size: a code, an expression or a number."""

    dim: Any


@dataclass(frozen=True, slots=True)
class Call:
    """One distinct way in which an operator is called.

    ``arguments`` by schema name (``input`` for ``self``); tensors as :class:`SpecRef`, sizes that
    depend on a symbol as :class:`DimCode`, lists as tuples, everything else plain.
    """

    op: str
    arguments: tuple[tuple[str, Any], ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One value: its spec, the allocation that it lies in, and the node that made it (None: an input or weight)."""

    spec: int
    storage: int
    producer: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Storage:
    """One allocation: its size in bytes, its dtype's name and what it holds."""

    nbytes: Any
    dtype: str
    role: Role


@dataclass(frozen=True, slots=True)
class Assumption:
    """An answer that was assumed, or given by the caller, for a question about values that nobody knows before a run.

    ``name`` is the line that asks, ``net.py:12``; ``where`` the line's text with it; ``count`` how often it asks.
    """

    name: str
    answer: bool | int | float
    where: str
    count: int = 1

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        return (
            f"{self.name} is assumed {str(self.answer).lower()}{times}: {self.where.partition(': ')[2] or self.where}"
        )


@dataclass(frozen=True, slots=True)
class OpNode:
    """One operator call in the program.

    ``name`` is unique and reads as a person would say it (``layer1.0.conv1``); ``module`` is the path of
    the module whose forward made the call and ``module_type`` its class, qualified; ``inputs`` and
    ``outputs`` are indices of tensors; ``after`` are nodes that must have run though no tensor passes
    (they wrote in place into an aliased storage); ``phase`` is the part of the step that the call belongs to;
    ``synchronizes``: the host reads the result, and waits for the device until it is there;
    ``forward`` is the node whose gradient a backward node computes, by autograd's own numbering: one of the forward
    pass, or one that a checkpoint computed again. It is None for the seed of the gradient, and for what is computed
    again itself;
    ``autocast`` is what an autocast region of the model's own says here: "off", or the lower dtype.
    """

    name: str
    op: str
    module: str
    module_type: str
    call: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    in_place: bool = False
    after: tuple[int, ...] = ()
    phase: NodePhase = NodePhase.FORWARD
    synchronizes: bool = False
    autocast: str = ""
    forward: int | None = None


def operator_word(op: str) -> str:
    """An operator as people call it: ``conv2d`` for ``aten.conv2d``, ``merged_linear`` for one of our own; what other
    libraries register keeps its library's name."""
    return op.removeprefix("aten.").removeprefix("costmodel.")


def map_spec(spec: TensorSpec, convert: Callable[[Any], Any]) -> TensorSpec:
    strides = None if spec.strides is None else tuple(map(convert, spec.strides))
    return TensorSpec(tuple(map(convert, spec.shape)), spec.dtype, spec.role, spec.name, strides)


def map_call(call: Call, convert: Callable[[Any], Any]) -> Call:
    return Call(call.op, _map_argument(call.arguments, convert), _map_argument(call.outputs, convert))


def has_dim(value: Any) -> bool:
    return type(value) is DimCode or (type(value) is tuple and any(map(has_dim, value)))


def _map_argument(value: Any, convert: Callable[[Any], Any]) -> Any:
    if type(value) is DimCode:
        return DimCode(convert(value.dim))
    if type(value) is tuple:
        return tuple(_map_argument(v, convert) for v in value)
    return value
