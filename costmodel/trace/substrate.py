"""What a run is made on: the meta device, where nothing is computed, or this machine's CPU.

A substrate runs an operator, and decides what its operands and results are: what lies on the device in the run that is
analyzed, and what lies in the host's memory. The recorder does not look at devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from costmodel.errors import TraceError
from costmodel.trace.raw import replace_tensors, tensors_in
from costmodel.trace.schema import Schema
from costmodel.trace.stand_ins import run_on_meta
from costmodel.trace.values import KNOWN_ELEMENTS, KnownValues

__all__ = ["ASKING", "Call", "MetaSubstrate", "NeedsValue", "Substrate"]

#: Operators whose result, or its shape, depends on values.
BY_VALUE = frozenset(
    f"aten.{name}"
    for name in """_local_scalar_dense equal nonzero nonzero_static masked_select _unique _unique2 unique_dim
    unique_consecutive bincount""".split()
)
#: Operators that put out a Python number.
ASKING = frozenset({"aten._local_scalar_dense", "aten.equal"})
#: Operators that put out nothing: the host reads what they look at, and goes on unless it raises.
_CHECKS = frozenset({"aten._linalg_check_errors"})
#: Operands that lie in the host's memory, because the host decides by them how much is launched.
_HOST_OPERANDS = {
    "aten._pack_padded_sequence": "lengths",
    "aten._pad_packed_sequence": "batch_sizes",
    "aten.lstm": "batch_sizes",
    "aten.gru": "batch_sizes",
    "aten.rnn_tanh": "batch_sizes",
    "aten.rnn_relu": "batch_sizes",
}
_META, _CPU = torch.device("meta"), torch.device("cpu")


class NeedsValue(TraceError):
    """The forward pass asks for a value that nobody knows before it runs. ``question`` names the line that asks, where
    an answer would do (:mod:`costmodel.trace.checks`)."""

    def __init__(self, text: str, question: str = "") -> None:
        super().__init__(text)
        self.question = question


class Call(NamedTuple):
    """One operator call as it was run: its result, its operands as they are to be recorded, and what the host does.

    ``synchronizes``: the host waits for the device. ``recorded``: false for what only reads the host's memory.
    """

    result: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    synchronizes: bool = False
    recorded: bool = True


class Substrate(Protocol):
    """Runs operators."""

    def run(self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Run ``func``. Raises NeedsValue where the result depends on a value that is not known."""
        ...

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """What a tensor holds, or None where that is not known."""
        ...

    def identity(self, tensor: torch.Tensor) -> int:
        """A number that is this tensor's alone while what :meth:`keep` gave for it is held."""
        ...

    def keep(self, tensor: torch.Tensor) -> Any:
        """What has to be held so that no other tensor gets the same identity."""
        ...

    def original(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor of the host's memory that ``tensor`` is a copy of without being a result, if it is one."""
        ...


class MetaSubstrate:
    """The meta device. What lies on the device in the run that is analyzed is a meta tensor, with its values beside it
    where they are known; a tensor on the CPU is one that lies in the host's memory, and is computed there."""

    def __init__(self) -> None:
        self.values = KnownValues()
        self._twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # id of a host tensor -> (it, its meta twin)
        self._hosts: dict[int, torch.Tensor] = {}  # id of a twin -> the host tensor

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return self.values.of(tensor)

    identity = staticmethod(id)

    def keep(self, tensor: torch.Tensor) -> Any:
        return tensor  # without memory, it costs nothing to keep

    def original(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return self._hosts.get(id(tensor))

    def adopt(self, value: torch.Tensor) -> torch.Tensor:
        """A meta tensor like ``value`` that lies on the device and holds it."""
        tensor = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_META)
        self.values.give(tensor, value)
        return tensor

    def run(self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        tensors = list(tensors_in(args))
        if kwargs:
            tensors += tensors_in(kwargs)
        if not tensors:
            return self._make(func, schema, args, kwargs)
        there = [tensor.is_meta for tensor in tensors]
        if not all(there):
            if not any(there) and not _is_vast(args) and not _is_vast(kwargs) and self.values.knows(tensors):
                return self._on_host(func, schema, args, kwargs)
            args, kwargs = replace_tensors(args, self._twin), replace_tensors(kwargs, self._twin)
            tensors = [self._twin(tensor) for tensor in tensors]
        return self._on_device(func, schema, args, kwargs, tensors)

    def _make(self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Tensors made of none. Those made without a device are small ones of the host's memory, else on meta."""
        if not schema.factory:
            return Call(func(*args, **kwargs), args, kwargs)
        device = kwargs.get("device")
        on_device = device is not None and torch.device(device).type == "meta"
        on_meta = kwargs if on_device else {**kwargs, "device": _META}
        try:
            result = func(*args, **on_meta)
        except (RuntimeError, NotImplementedError, TypeError):
            return Call(func(*args, **kwargs), args, kwargs)
        if result.numel() > KNOWN_ELEMENTS:
            return Call(result, args, on_meta)
        if not on_device:
            return Call(func(*args, **kwargs), args, kwargs)
        self.values.follow(func, schema, args, kwargs, result)
        return Call(result, args, kwargs)

    def _on_host(self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """All operands lie in the host's memory: computed there, or copied to the device from there."""
        result = func(*args, **kwargs)
        if schema.op in ASKING:
            return Call(result, args, kwargs, recorded=False)
        if any(tensor.is_meta for tensor in tensors_in(result)):
            self.values.follow(func, schema, args, kwargs, result)
        return Call(result, args, kwargs)

    def _on_device(
        self,
        func: Any,
        schema: Schema,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[torch.Tensor],
    ) -> Call:
        op = schema.op
        if op in BY_VALUE:
            return self._by_value(func, schema, args, kwargs, tensors)
        if op == "aten._to_copy" and kwargs.get("device") == _CPU:
            return self._to_host(func, schema, args, kwargs, tensors)
        run_args = self._with_host_operand(schema, args) if op in _HOST_OPERANDS else args
        try:
            result = run_on_meta(func, schema, run_args, kwargs)
        except (RuntimeError, NotImplementedError) as error:
            return self._despite(error, func, schema, args, kwargs, tensors)
        if self.values.decides(schema, tensors):
            self.values.follow(func, schema, args, kwargs, result)
        elif schema.written:
            self.values.spoil_written(schema, args, kwargs)
        return Call(result, args, kwargs, synchronizes=op in _CHECKS)

    def _by_value(
        self,
        func: Any,
        schema: Schema,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[torch.Tensor],
    ) -> Call:
        """An operator whose result, or its shape, depends on values: the host waits until the device has them."""
        if not self.values.knows(tensors):
            raise NeedsValue(f"the result of {schema.op} depends on the values of a tensor")
        result = replace_tensors(self.values.compute(func, args, kwargs), self.adopt)
        return Call(result, args, kwargs, synchronizes=True)

    def _despite(
        self,
        error: Exception,
        func: Any,
        schema: Schema,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[torch.Tensor],
    ) -> Call:
        """meta cannot say what the result is: with the values it can be said, and by a mask's alone what it selects."""
        if self.values.knows(tensors):
            return self._by_value(func, schema, args, kwargs, tensors)
        if schema.op == "aten.index" and self.values.knows(masks := [i for i in args[1] if _is_mask(i)]) and masks:
            return Call(func(args[0], self._positions(args[1])), args, kwargs, synchronizes=True)
        if "nonzero" in str(error) or "data-dependent" in str(error).lower():
            raise NeedsValue(f"the shape that {schema.op} puts out depends on the values of a tensor") from error
        raise error

    def _positions(self, indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Indices with every mask replaced by the positions at which it holds."""
        found: list[torch.Tensor | None] = []
        for index in indices:
            value = self.values.of(index) if _is_mask(index) else None  # type: ignore[arg-type]
            found += [index] if value is None else [p.to(_META) for p in value.nonzero(as_tuple=True)]
        return found

    def _to_host(
        self,
        func: Any,
        schema: Schema,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[torch.Tensor],
    ) -> Call:
        """A copy from the device into the host's memory; on meta still where nobody knows what it holds."""
        waits = not kwargs.get("non_blocking", False)
        if self.values.knows(tensors):
            return Call(self.values.compute(func, args, kwargs), args, kwargs, synchronizes=waits)
        return Call(func(*args, **{**kwargs, "device": _META}), args, kwargs, synchronizes=waits)

    def _with_host_operand(self, schema: Schema, args: tuple[Any, ...]) -> tuple[Any, ...]:
        name = _HOST_OPERANDS[schema.op]
        if name not in schema.names:
            return args
        position = schema.names.index(name)
        value = self.values.of(args[position])
        if value is None:
            raise NeedsValue(f"how much {schema.op} does depends on the values of {name}")
        return (*args[:position], value, *args[position + 1 :])

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the host's memory as it is on the device."""
        if tensor.is_meta:
            return tensor
        known = self._twins.get(id(tensor))
        if known is None:
            twin = self.adopt(tensor)
            known = self._twins[id(tensor)] = (tensor, twin)
            self._hosts[id(twin)] = tensor
        return known[1]


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _is_vast(value: Any) -> bool:
    """Whether a size among arguments is that of a large batch."""
    if isinstance(value, int):
        return value > KNOWN_ELEMENTS
    if isinstance(value, (list, tuple)):
        return any(map(_is_vast, value))
    return isinstance(value, dict) and any(map(_is_vast, value.values()))
