"""This machine's CPU as a substrate: every operator is computed, and recorded as the device would be asked for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from costmodel.errors import TraceError
from costmodel.trace.free_memory import free_memory_bytes
from costmodel.trace.raw import tensors_in
from costmodel.trace.schema import Schema
from costmodel.trace.substrate import BY_VALUE, Call
from costmodel.units import format_bytes

__all__ = ["RealSubstrate"]

#: Memory that a run leaves to everything else on the machine, in B.
RESERVE_BYTES = 256 << 20
#: Bytes put out between two looks at the memory that is left.
_LOOK_EVERY_BYTES = 64 << 20


class RealSubstrate:
    """The CPU. What is made of inputs, weights or buffers lies on the device in the run that is analyzed; what is made
    of constants alone counts as the host's own, which it may read without waiting.

    ``free_bytes`` says how much memory is left; when it comes near its end the run stops, before the machine does.
    """

    def __init__(self, free_bytes: Callable[[], int | None] = free_memory_bytes) -> None:
        self._on_device: set[int] = set()
        self._free_bytes, self._put_out = free_bytes, 0

    def identity(self, tensor: torch.Tensor) -> int:
        """The address of the tensor's own record: it outlives the wrapper that Python sees, which comes and goes."""
        return tensor._cdata

    def keep(self, tensor: torch.Tensor) -> Any:
        """Holds the tensor's and its storage's addresses, so that no later one gets them, but none of its memory."""
        storage = StorageWeakRef(tensor.untyped_storage()) if tensor.layout is torch.strided else None
        return torch._C._WeakTensorRef(tensor), storage  # type: ignore[attr-defined]

    def original(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return None

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Every tensor holds its value."""
        return tensor

    def place(self, tensor: torch.Tensor) -> None:
        """``tensor`` lies on the device: an input, a weight or a buffer."""
        self._on_device.add(tensor._cdata)

    def run(self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        tensors = list(tensors_in((args, kwargs)))
        on_device = any(tensor._cdata in self._on_device for tensor in tensors)
        result = _as_on_a_device(schema, func(*args, **kwargs))
        for tensor in tensors_in(result):
            if on_device:
                self._on_device.add(tensor._cdata)
            self._put_out += tensor.numel() * tensor.element_size()
        if self._put_out > _LOOK_EVERY_BYTES:
            self._look_at_memory(schema)
        reads = schema.op in BY_VALUE or (schema.op == "aten.index" and any(map(_is_mask, args[1])))
        recorded = on_device or schema.op not in BY_VALUE or bool(list(tensors_in(result)))
        return Call(result, args, kwargs, synchronizes=reads and on_device, recorded=recorded)

    def _look_at_memory(self, schema: Schema) -> None:
        self._put_out = 0
        free = self._free_bytes()
        if free is not None and free < RESERVE_BYTES:
            raise TraceError(
                f"the run stopped in {schema.op}: only {format_bytes(free)} of this machine's memory are left\n"
                "  take a smaller batch or smaller inputs, or a machine with more memory"
            )


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _as_on_a_device(schema: Schema, result: Any) -> Any:
    """A result as it lies on a device: fused attention puts out (B, H, L, E) over (B, L, H, E) storage."""
    if schema.op != "aten.scaled_dot_product_attention" or result.dim() != 4:
        return result
    return result.transpose(1, 2).contiguous().transpose(1, 2)
