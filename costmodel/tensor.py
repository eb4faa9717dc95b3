"""TensorSpec: what is known of a tensor without its values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from costmodel.symbols import Dim, product

__all__ = ["CACHED", "ITEMSIZE_BYTES", "Role", "TensorSpec", "f32", "tensors_in"]

#: How the names of the tensors in a cache of keys, values or states begin, among the inputs of a step that writes text.
CACHED = "cache."

#: Bytes per element, by the name torch gives a dtype.
ITEMSIZE_BYTES: dict[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
}


class Role(str, Enum):
    """Where a tensor comes from.

    ``STATE`` is what a training step keeps from one to the next beside the weights: an optimizer's moments, the
    scale of the loss, gradients that are set to zero instead of thrown away. ``HOST`` lies in the host's memory.
    """

    INPUT = "input"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    ACTIVATION = "activation"
    STATE = "state"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape (in elements, possibly symbolic), dtype and origin of a tensor.

    ``strides`` are in elements; None means contiguous.

    >>> TensorSpec((2, 3), "float16").nbytes
    12
    """

    shape: tuple[Dim, ...]
    dtype: str = "float32"
    role: Role = Role.ACTIVATION
    name: str = ""
    strides: tuple[Dim, ...] | None = None
    _numel: Dim | None = field(default=None, init=False, repr=False, compare=False)  # asked for hundreds of times

    @property
    def numel(self) -> Dim:
        """Elements."""
        if self._numel is None:
            object.__setattr__(self, "_numel", product(self.shape))
        return self._numel  # type: ignore[return-value]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return ITEMSIZE_BYTES[self.dtype]

    @property
    def nbytes(self) -> Dim:
        """Bytes of the elements, each once: a dimension of stride 0 repeats what is already there.

        >>> TensorSpec((8, 3), strides=(0, 1)).nbytes       # 3 floats, expanded to 8 rows
        12
        """
        if self.strides is None or 0 not in self.strides:
            return self.numel * ITEMSIZE_BYTES[self.dtype]
        shape = (size for size, stride in zip(self.shape, self.strides, strict=True) if stride != 0)
        return product(tuple(shape)) * ITEMSIZE_BYTES[self.dtype]


def f32(*shape: Dim) -> TensorSpec:
    """A float32 spec, for examples and tests.

    >>> f32(4, 5).nbytes
    80
    """
    return TensorSpec(shape)


def tensors_in(value: Any) -> Iterator[TensorSpec]:
    """All specs in a value, in order: the value itself, or those in dicts, lists and tuples.

    >>> [t.shape for t in tensors_in({"input": f32(2), "others": [f32(3), 4], "weight": None})]
    [(2,), (3,)]
    """
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
