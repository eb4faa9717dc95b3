"""Results on meta of operators whose own meta kernels are slow, or return another layout than a device does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

from costmodel.trace.schema import Schema

__all__ = ["run_on_meta"]

_RECURRENT = ("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")


def run_on_meta(func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func`` returns on a device, without values: shapes, dtypes, strides and aliases."""
    op = schema.op
    if op == "aten.scaled_dot_product_attention":
        return _attention_output(func, args, kwargs)
    if op in _RECURRENT:
        return _recurrent_output(op, args, packed=schema.names[1] == "batch_sizes")
    if op == "aten._grouped_mm" and args[0].dtype != torch.bfloat16:
        return _grouped_product(*args[:2], *args[2:3], **kwargs)
    if op in _WITHOUT_META:
        return _WITHOUT_META[op](*args)
    known = _QUICK.get(op)
    if known is not None and not kwargs and args[0].is_contiguous():
        quick = known(*args)
        if quick is not None:
            return quick
    result = func(*args, **kwargs)
    return _convolution_output(result, args[0], args[1]) if op.startswith("aten.conv") else result


def _recurrent_output(op: str, args: tuple[Any, ...], packed: bool) -> Any:
    """Results of a recurrent layer without walking through time: (sequence, h_n[, c_n])."""
    image, hidden, bidirectional = (args[0], args[2], args[8]) if packed else (args[0], args[1], args[7])
    states = hidden if op == "aten.lstm" else (hidden,)
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return (image.new_empty(*image.shape[:-1], width), *(torch.empty_like(state) for state in states))


def _convolution_output(result: Any, image: torch.Tensor, weight: torch.Tensor) -> Any:
    """The memory format that real convolutions return: channels_last as soon as input or weight is.

    A meta kernel knows no device and always returns row-major tensors (torch/_meta_registrations.py).
    """
    if not isinstance(result, torch.Tensor) or result.dim() != 4:
        return result
    if torch.channels_last not in (suggest_memory_format(image), suggest_memory_format(weight)):
        return result
    return torch.empty_like(result, memory_format=torch.channels_last)


def _attention_output(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Shape and strides that the fused attention kernels return: (B, H, L, E) over (B, L, H, E) storage.

    The math fallback, which meta would take, returns another layout, and the reshape that follows would
    be recorded as a copy that no fused kernel needs.
    """
    query, value = args[0], args[2]
    if query.dim() != 4:
        return func(*args, **kwargs)
    batch, heads, length, _ = query.shape
    return query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)


def _grouped_product(
    first: torch.Tensor, second: torch.Tensor, offs: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    """A product a group. torch's meta kernel takes bfloat16 alone, devices every floating type (aten/native/cuda/
    GroupedBlas.cpp); shapes as in torch/_meta_registrations.py, ``_create_grouped_mm_output_tensor``."""
    groups = () if first.dim() != second.dim() else (first.shape[0] if offs is None else offs.shape[0],)
    shape = (*groups, first.shape[-2], second.shape[-1])
    return first.new_empty(shape, dtype=options.get("out_dtype") or first.dtype)


# -- operators that have no meta kernel, or one that fails ------------------------------------------------------------


def _geqrf_output(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R and the reflections in the place of A, tau)."""
    return _by_columns(matrix), matrix.new_empty(*matrix.shape[:-2], min(matrix.shape[-2:]))


def _lstsq_output(matrix: torch.Tensor, b: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    """(solution, residuals, rank, singular values); CUDA's driver ``gels`` leaves the last two empty, and fills the
    residuals of tall matrices."""
    *batch, rows, columns = matrix.shape
    sides = () if b.dim() == matrix.dim() - 1 and b.dim() > 0 and b.shape == matrix.shape[:-1] else b.shape[-1:]
    residuals = matrix.new_empty(*batch, *sides) if rows > columns else matrix.new_empty(0)
    return (
        matrix.new_empty(*batch, columns, *sides),
        residuals,
        matrix.new_empty(0, dtype=torch.int64),
        matrix.new_empty(0),
    )


def _by_columns(matrix: torch.Tensor) -> torch.Tensor:
    """An empty matrix in Fortran's order, as LAPACK leaves it."""
    return matrix.new_empty(*matrix.shape[:-2], matrix.shape[-1], matrix.shape[-2]).mT


def _lstm_cell_output(gates: torch.Tensor, _: torch.Tensor, cell: torch.Tensor, *biases: Any) -> tuple[Any, ...]:
    """(h', c', the gates for the backward); torch's own meta kernel asks biases that are not there."""
    return torch.empty_like(cell), torch.empty_like(cell), torch.empty_like(gates)


def _gru_cell_output(gates: torch.Tensor, _: torch.Tensor, hx: torch.Tensor, *biases: Any) -> tuple[Any, ...]:
    """(h', what the backward reads: five values a unit, ``GRU_WORKSPACE_MULTIPLIER``)."""
    return torch.empty_like(hx), hx.new_empty(hx.shape[0], 5 * hx.shape[1])


def _gru_cell_gradients(grad: torch.Tensor, workspace: torch.Tensor, has_bias: bool) -> tuple[Any, ...]:
    """Gradients of both sides' gates, of h and of both biases."""
    gates = grad.new_empty(grad.shape[0], 3 * grad.shape[1])
    biases = [grad.new_empty(3 * grad.shape[1]) if has_bias else None for _ in range(2)]
    return gates, torch.empty_like(gates), torch.empty_like(grad), *biases


_WITHOUT_META: dict[str, Callable[..., Any]] = {
    "aten.geqrf": _geqrf_output,
    "aten.linalg_lstsq": _lstsq_output,
    "aten._thnn_fused_lstm_cell": _lstm_cell_output,
    "aten._thnn_fused_gru_cell": _gru_cell_output,
    "aten._thnn_fused_gru_cell_backward": _gru_cell_gradients,
}


# -- row-major operands: meta kernels written in Python take half of a trace for shapes that are known ----------------


def _linear_output(image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor | None:
    """(..., in) times (out, in): a new row-major tensor; None where the operands do not fit, so that torch says it."""
    fits = weight.dim() == 2 and image.dim() > 0 and image.shape[-1] == weight.shape[1] and image.dtype == weight.dtype
    if not fits or (bias is not None and (bias.dtype != image.dtype or bias.shape != weight.shape[:1])):
        return None
    return image.new_empty(*image.shape[:-1], weight.shape[0])


def _batch_norm_output(
    image: torch.Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *_: Any
) -> torch.Tensor | None:
    channels = image.shape[1] if image.dim() > 1 else None
    given = [t for t in (weight, bias, mean, variance) if t is not None]
    if training or mean is None or any(tuple(t.shape) != (channels,) for t in given):
        return None
    return torch.empty_like(image)


def _layer_norm_output(image: torch.Tensor, shape: Any, weight: Any = None, bias: Any = None, *_: Any) -> Any:
    tail = tuple(image.shape[image.dim() - len(shape) :])
    fits = tail == tuple(shape) and all(tuple(t.shape) == tail for t in (weight, bias) if t is not None)
    return torch.empty_like(image) if fits else None


def _gelu_output(image: torch.Tensor, *_: Any) -> torch.Tensor | None:
    return torch.empty_like(image) if image.dtype.is_floating_point else None


_QUICK: dict[str, Callable[..., torch.Tensor | None]] = {
    "aten.linear": _linear_output,
    "aten.batch_norm": _batch_norm_output,
    "aten.layer_norm": _layer_norm_output,
    "aten.gelu": _gelu_output,
}
