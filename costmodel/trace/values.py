"""Values known beside tensors that have none: small buffers, integer inputs, constants, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from costmodel.trace.raw import replace_tensors, tensors_in
from costmodel.trace.schema import Schema

__all__ = ["KNOWN_ELEMENTS", "KnownValues"]

#: Tensors up to this many elements keep their values: position grids, masks, anchors, lengths.
KNOWN_ELEMENTS = 1 << 16

#: Operators that use no value of their operand, only its shape or dtype.
_SHAPE_ONLY = frozenset(
    f"aten.{name}" for name in "new_zeros new_ones new_full zeros_like ones_like full_like new_empty empty_like".split()
)
_CPU = torch.device("cpu")


class KnownValues:
    """For tensors on meta, a tensor on the CPU that holds what they would hold.

    A view's value is a view of its base's value, so that what is written in place is seen through every view; once
    something unknown is written into a storage, nothing that lies in it is known any more.
    """

    def __init__(self) -> None:
        self._of: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # id -> (the tensor, kept so, and its value)
        self._spoilt: set[int] = set()  # storages of values that something unknown was written into

    def __bool__(self) -> bool:
        return bool(self._of)

    def give(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """``tensor``, on meta, holds ``value``."""
        self._of[id(tensor)] = (tensor, value)

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The value of a tensor, itself when it lies on the CPU; None where it is not known."""
        if tensor.is_meta:
            known = self._of.get(id(tensor))
            if known is None:
                return None
            tensor = known[1]
        return None if self._spoilt and tensor.untyped_storage()._cdata in self._spoilt else tensor

    def knows(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether every one of ``tensors`` is known."""
        return all(self.of(tensor) is not None for tensor in tensors)

    def decides(self, schema: Schema, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether the values of an operator's results follow from what is known."""
        return self.knows(tensors) or schema.op in _SHAPE_ONLY

    def spoil(self, tensor: torch.Tensor) -> None:
        """Something unknown is written into ``tensor``."""
        value = self.of(tensor)
        if value is not None:
            self._spoilt.add(value.untyped_storage()._cdata)

    def spoil_written(self, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Something unknown is written into the arguments that an operator writes."""
        for name in schema.written:
            position = schema.names.index(name)
            for tensor in tensors_in(args[position] if position < len(args) else kwargs.get(name)):
                self.spoil(tensor)

    def follow(self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Learn the values of ``result``, which ``func`` gave on meta and whose operands are all known."""
        if schema.op in _SHAPE_ONLY:
            args = (_shape_alone(args[0]), *args[1:])
        results = list(tensors_in(result))
        computed = None
        if not schema.random and sum(t.numel() for t in results) <= KNOWN_ELEMENTS:
            computed = self._computed(func, args, kwargs)
        if computed is None:
            self.spoil_written(schema, args, kwargs)
            return
        for tensor, value in zip(results, tensors_in(computed), strict=False):
            if "empty" in schema.op:
                value.zero_()  # a run must not depend on what lay there before
            if tensor.is_meta and tensor.shape == value.shape:
                self.give(tensor, value)

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``func`` on the values of its operands, which must all be known."""
        args, kwargs = replace_tensors(args, self._value), replace_tensors(kwargs, self._value)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _CPU}
        return func(*args, **kwargs)

    def _computed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self.compute(func, args, kwargs)
        except (RuntimeError, NotImplementedError, TypeError, IndexError):
            return None  # a kernel that the CPU lacks: the value stays unknown

    def _value(self, tensor: torch.Tensor) -> torch.Tensor:
        value = self.of(tensor)
        if value is None:
            raise ValueError("a value is asked for that is not known")
        return value


def _shape_alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU of the same shape and dtype that takes no memory."""
    return torch.empty((), dtype=tensor.dtype).expand(tensor.shape)
