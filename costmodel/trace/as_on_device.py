"""Operators that a device runs otherwise than the meta device does, in a run with autograd.

PyTorch chooses some operators by the device before it differentiates them. On meta it chooses the general one, made
of many; :class:`AsOnDevice` calls the one that CUDA or the CPU gets, which has a backward operator of its own.
Sources: aten/src/ATen/native/transformers/attention.cpp, Dropout.cpp and layer_norm.cpp, torch 2.13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from costmodel.errors import TraceError
from costmodel.trace.device_kind import DeviceKind
from costmodel.trace.recurrent import KINDS, recurrent
from costmodel.trace.replaced import Replaced

__all__ = ["AsOnDevice"]

_ops: Any = torch.ops.aten
_Rule = Callable[["AsOnDevice", Any, tuple[Any, ...], dict[str, Any]], Any]


_CURRENT: ContextVar[AsOnDevice | None] = ContextVar("the device whose operators this thread runs", default=None)


class AsOnDevice(TorchFunctionMode):
    """While :meth:`running`, attention, dropout, RMS norm and recurrent layers are those of the device of ``kind``.

    Calls from the model reach the mode; those that torch's own Python functions make (dropout, multi-head attention)
    do not, as a mode is off while it is asked: there, the operators themselves are replaced.
    """

    def __init__(self, kind: DeviceKind) -> None:
        super().__init__()
        self._kind = kind

    @property
    def name(self) -> str:
        """The kind of device, "cuda" or "cpu". A rule that asks for it makes the trace depend on it."""
        self._kind.asked = True
        return self._kind.name

    @contextmanager
    def running(self) -> Iterator[None]:
        """The device's operators, for the while."""
        token = _CURRENT.set(self)
        _REPLACED.install()
        try:
            with self:
                yield
        finally:
            _REPLACED.remove()
            _CURRENT.reset(token)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is _SDPA:
            return _attention(self, func, args, kwargs or {})
        if func is torch.ops.higher_order.flex_attention:
            raise TraceError("the backward pass of flex_attention is not modelled: its forward pass alone is")
        return func(*args, **(kwargs or {}))


def _attention(mode: AsOnDevice, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A fused kernel for operands of rank 4, as ``_fused_sdp_choice`` takes it; math for others."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key, value = (given[name] for name in names[:3])
    mask, dropout, causal = given.get("attn_mask"), given.get("dropout_p", 0.0), given.get("is_causal", False)
    scale = given.get("scale")
    if not query.is_meta or query.dim() != 4 or key.dim() != 4:
        return func(*args, **kwargs)
    if mode.name == "cpu":
        if dropout:
            return func(*args, **kwargs)
        flash = _ops._scaled_dot_product_flash_attention_for_cpu
        return flash(query, key, value, 0.0, causal, attn_mask=_additive(mask, query), scale=scale)[0]
    grouped = key.shape[1] != query.shape[1]
    if mask is None and query.shape[-1] == value.shape[-1]:
        padded = query.shape[-1] % 8
        if padded:  # FlashAttention takes heads of a multiple of 8; the scale is that of the true width
            scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
            width = 8 - padded
            query, key, value = (functional.pad(t, (0, width)) for t in (query, key, value))
        result = _ops._scaled_dot_product_flash_attention(query, key, value, dropout, causal, False, scale=scale)[0]
        return result[..., : result.shape[-1] - 8 + padded] if padded else result
    if grouped:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    bias = _additive(mask, query)
    if bias is not None:
        bias = bias.expand(*query.shape[:-1], key.shape[2])
    efficient = _ops._scaled_dot_product_efficient_attention
    return efficient(query, key, value, bias, True, dropout, causal, scale=scale)[0]


def _additive(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """A mask as what is added to the scores: 0 where it lets through, minus infinity elsewhere."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.tensor(-math.inf, dtype=query.dtype, device=query.device))


def _dropout(mode: AsOnDevice, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """CUDA draws the mask, scales and multiplies in one kernel."""
    given = {**dict(zip(("input", "p", "train"), args, strict=False)), **kwargs}
    tensor, share, trains = given["input"], given["p"], given["train"]
    if not tensor.is_meta or not trains or not 0 < share < 1 or not tensor.numel() or mode.name != "cuda":
        return func(*args, **kwargs)
    return _ops.native_dropout(tensor, share, True)[0]


def _rms_norm(mode: AsOnDevice, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """CUDA has a kernel for rows of real numbers; elsewhere, and for images in channels_last, it is made of many."""
    given = {**dict(zip(("input", "normalized_shape", "weight", "eps"), args, strict=False)), **kwargs}
    tensor, weight = given["input"], given.get("weight")
    in_rows = tensor.dim() < 4 or torch._prims_common.suggest_memory_format(tensor) is torch.contiguous_format
    if not tensor.is_meta or tensor.is_complex() or not in_rows or mode.name != "cuda":
        return func(*args, **kwargs)
    return _FusedRMSNorm.apply(tensor, list(given["normalized_shape"]), weight, given.get("eps"))  # type: ignore[no-untyped-call]


class _FusedRMSNorm(torch.autograd.Function):
    """``_fused_rms_norm`` with the backward that CUDA has for it: on meta, autograd takes it apart."""

    @staticmethod
    def forward(ctx: Any, tensor: Any, shape: list[int], weight: Any, eps: float | None) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            result, scale = _ops._fused_rms_norm(tensor, shape, weight, eps)
        ctx.save_for_backward(tensor, weight, scale)
        ctx.shape = shape
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        tensor, weight, scale = ctx.saved_tensors
        asked = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
        by_input, by_weight = _ops._fused_rms_norm_backward(gradients[0], tensor, ctx.shape, scale, weight, asked)
        return by_input, None, by_weight, None


def _mish(mode: AsOnDevice, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Every device has a kernel for the gradient, which autograd takes apart on meta."""
    tensor = args[0] if args else kwargs["input"]
    return _Mish.apply(tensor) if tensor.is_meta else func(*args, **kwargs)  # type: ignore[no-untyped-call]


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Any) -> Any:
        ctx.save_for_backward(tensor)
        return _ops.mish(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return _ops.mish_backward(gradients[0], *ctx.saved_tensors)


def _of_the_device(rule: _Rule) -> Callable[[Any], Any]:
    """What makes a replacement that goes by ``rule`` in a thread that runs a device's operators."""

    def make(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            mode = _CURRENT.get()
            return original(*args, **kwargs) if mode is None else rule(mode, original, args, kwargs)

        return call

    return make


def _recurrence(name: str) -> _Rule:
    """cuDNN runs all layers and directions in one call each way."""

    def rule(mode: AsOnDevice, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return recurrent(name, func, args, kwargs) if mode.name == "cuda" else func(*args, **kwargs)

    return rule


_SDPA = functional.scaled_dot_product_attention
_REPLACED = Replaced(
    [
        (functional, "scaled_dot_product_attention", _of_the_device(_attention)),
        (torch._VF, "dropout", _of_the_device(_dropout)),  # type: ignore[attr-defined]
        (torch, "rms_norm", _of_the_device(_rms_norm)),
        (torch._C._nn, "mish", _of_the_device(_mish)),
        *((torch._VF, name, _of_the_device(_recurrence(name))) for name in KINDS),  # type: ignore[attr-defined]
    ]
)
