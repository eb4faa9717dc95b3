"""ONNX operators on tensors of the device, each as the torch operators that do its work.

Source of the meanings: the operators' documentation of ONNX, up to opset 23. Attributes and inputs that say the same
in different opsets (axes, pads, sizes) are read from either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch.nn import functional

from costmodel.errors import ModelError
from costmodel.onnx_reader.types import dtype_of

__all__ = ["OPERATORS", "ints", "on_device", "operator", "scalar_or_tensor"]

OPERATORS: dict[str, Callable[..., Any]] = {}


def operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of the operands (None for those left out), the number of ``outputs`` and the attributes."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            OPERATORS[name] = function
        return function

    return register


def _plain(name: str, function: Callable[..., Any]) -> None:
    """Register a torch function of the operands that takes no attributes."""

    def run(*operands: Any, outputs: int, **_: Any) -> Any:
        return function(*(scalar_or_tensor(o) for o in operands if o is not None))

    OPERATORS[name] = run


def scalar_or_tensor(value: Any) -> Any:
    """A scalar of the host's as a Python number, other values of its as a tensor on the device."""
    if not isinstance(value, numpy.ndarray):
        return value
    if value.ndim == 0:
        return value.item()
    return on_device(value)


def on_device(value: Any) -> Any:
    """A tensor on the device of whatever ``value`` is."""
    if isinstance(value, numpy.ndarray):
        array = value.astype(numpy.int64) if value.dtype == object else value
        return torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), device="meta")
    return value


def ints(value: Any, what: str) -> list[Any]:
    """Sizes or axes, which the host must know."""
    if isinstance(value, torch.Tensor):
        raise ModelError(f"{what} of a node are computed on the device, from values that only a run has")
    return [v.item() if hasattr(v, "item") else v for v in numpy.atleast_1d(value)]


# -- element by element -----------------------------------------------------------------------------

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Erf": torch.erf, "Exp": torch.exp,
    "Log": torch.log, "Sqrt": torch.sqrt, "Neg": torch.neg, "Abs": torch.abs, "Reciprocal": torch.reciprocal,
    "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sign": torch.sign, "Sin": torch.sin,
    "Cos": torch.cos, "Not": torch.logical_not, "Softplus": functional.softplus, "Softsign": functional.softsign,
    "HardSwish": functional.hardswish, "Mish": functional.mish, "IsNaN": torch.isnan, "Identity": lambda x: x,
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Div": lambda a, b: a / b,
    "Mod": lambda a, b: a % b, "Pow": lambda a, b: a**b, "Equal": lambda a, b: a == b, "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b, "Greater": lambda a, b: a > b, "GreaterOrEqual": lambda a, b: a >= b,
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor, "PRelu": functional.prelu,
}  # fmt: skip
for _name, _function in _ELEMENTWISE.items():
    _plain(_name, _function)


def _several(name: str, pair: Callable[[Any, Any], Any], end: Callable[[Any, int], Any] = lambda x, n: x) -> None:
    def run(*operands: Any, outputs: int) -> Any:
        tensors = [on_device(o) for o in operands]
        total = tensors[0]
        for other in tensors[1:]:
            total = pair(total, other)
        return end(total, len(tensors))

    OPERATORS[name] = run


_several("Max", torch.maximum)
_several("Min", torch.minimum)
_several("Sum", torch.add)
_several("Mean", torch.add, lambda total, count: total / count)


@operator("Where")
def _where(condition: Any, a: Any, b: Any, *, outputs: int) -> Any:
    return torch.where(on_device(condition), scalar_or_tensor(a), scalar_or_tensor(b))


@operator("Clip")
def _clip(x: Any, low: Any = None, high: Any = None, *, outputs: int, **old: Any) -> Any:
    ends = [old.get(n) if v is None else scalar_or_tensor(v) for n, v in (("min", low), ("max", high))]
    if ends == [0.0, 6.0]:
        return functional.relu6(x)
    return torch.clamp(x, *ends)


@operator("Gelu")
def _gelu(x: Any, *, outputs: int, approximate: str = "none") -> Any:
    return functional.gelu(x, approximate=approximate)


@operator("HardSigmoid")
def _hard_sigmoid(x: Any, *, outputs: int, **_: Any) -> Any:
    return functional.hardsigmoid(x)


@operator("LeakyRelu")
def _leaky_relu(x: Any, *, outputs: int, alpha: float = 0.01) -> Any:
    return functional.leaky_relu(x, alpha)


@operator("Elu")
def _elu(x: Any, *, outputs: int, alpha: float = 1.0) -> Any:
    return functional.elu(x, alpha)


@operator("Selu")
def _selu(x: Any, *, outputs: int, **_: Any) -> Any:
    return functional.selu(x)


@operator("Celu")
def _celu(x: Any, *, outputs: int, alpha: float = 1.0) -> Any:
    return functional.celu(x, alpha)


@operator("Cast")
def _cast(x: Any, *, outputs: int, to: int, **_: Any) -> Any:
    return x.to(dtype_of(to))


@operator("CastLike")
def _cast_like(x: Any, like: Any, *, outputs: int, **_: Any) -> Any:
    return on_device(x).to(on_device(like).dtype)


@operator("Dropout")
def _dropout(x: Any, *_: Any, outputs: int, **attributes: Any) -> Any:
    return x if outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))


# -- products ---------------------------------------------------------------------------------------


@operator("MatMul")
def _matmul(a: Any, b: Any, *, outputs: int) -> Any:
    return torch.matmul(on_device(a), on_device(b))


@operator("Gemm")
def _gemm(
    a: Any, b: Any, c: Any = None, *, outputs: int, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
    transB: int = 0,
) -> Any:  # fmt: skip
    a = a.t() if transA else a
    if transB and alpha == beta == 1.0 and (c is None or getattr(c, "ndim", 0) == 1):
        return functional.linear(a, b, c)
    b = b.t() if transB else b
    return torch.mm(a, b) if c is None else torch.addmm(on_device(c), a, b, beta=beta, alpha=alpha)


@operator("Einsum")
def _einsum(*operands: Any, outputs: int, equation: str) -> Any:
    return torch.einsum(equation, *operands)


def _padded(
    x: Any, pads: Sequence[int] | None, auto_pad: str, kernel: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int], value: float = 0.0,
) -> tuple[Any, list[int]]:  # fmt: skip
    """The input and the padding that a torch operator takes: what is not the same on both sides is put on before."""
    rank = len(kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            less, more = total // 2, total - total // 2
            before.append(less if auto_pad == "SAME_UPPER" else more)
            after.append(more if auto_pad == "SAME_UPPER" else less)
    else:
        pads = list(pads or [0] * 2 * rank)
        before, after = pads[:rank], pads[rank:]
    if before == after:
        return x, before
    both = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return functional.pad(x, both, value=value), [0] * rank


@operator("Conv")
def _conv(
    x: Any, weight: Any, bias: Any = None, *, outputs: int, auto_pad: str = "NOTSET", group: int = 1,
    dilations: Any = None, strides: Any = None, pads: Any = None, kernel_shape: Any = None,
) -> Any:  # fmt: skip
    rank = weight.dim() - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    x, padding = _padded(x, pads, auto_pad, weight.shape[2:], strides, dilations)
    convolution = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    return convolution(x, weight, bias, strides, padding, dilations, group)


@operator("ConvTranspose")
def _conv_transpose(
    x: Any, weight: Any, bias: Any = None, *, outputs: int, auto_pad: str = "NOTSET", group: int = 1,
    dilations: Any = None, strides: Any = None, pads: Any = None, output_padding: Any = None, **_: Any,
) -> Any:  # fmt: skip
    rank = weight.dim() - 2
    pads = list(pads or [0] * 2 * rank)
    if auto_pad not in ("NOTSET", "VALID") or pads[:rank] != pads[rank:]:
        raise ModelError("a ConvTranspose with padding that differs from side to side is not read")
    convolution = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[rank - 1]
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    return convolution(x, weight, bias, strides, pads[:rank], output_padding or [0] * rank, group, dilations)


# -- normalization and softmax ----------------------------------------------------------------------


@operator("BatchNormalization")
def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, *, outputs: int, epsilon: float = 1e-5, **_: Any
) -> Any:
    return functional.batch_norm(x, mean, var, weight, bias, False, 0.1, epsilon)


@operator("LayerNormalization")
def _layer_norm(
    x: Any, weight: Any, bias: Any = None, *, outputs: int, axis: int = -1, epsilon: float = 1e-5, **_: Any
) -> Any:
    return functional.layer_norm(x, x.shape[axis:], weight, bias, epsilon)


@operator("RMSNormalization")
def _rms_norm(x: Any, weight: Any, *, outputs: int, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> Any:
    return functional.rms_norm(x, x.shape[axis:], weight, epsilon)


@operator("InstanceNormalization")
def _instance_norm(x: Any, weight: Any, bias: Any, *, outputs: int, epsilon: float = 1e-5) -> Any:
    return functional.instance_norm(x, None, None, weight, bias, True, 0.1, epsilon)


@operator("GroupNormalization")
def _group_norm(
    x: Any, weight: Any, bias: Any, *, outputs: int, num_groups: int, epsilon: float = 1e-5, **_: Any
) -> Any:
    return functional.group_norm(x, num_groups, weight, bias, epsilon)


@operator("LpNormalization")
def _lp_norm(x: Any, *, outputs: int, axis: int = -1, p: int = 2) -> Any:
    return functional.normalize(x, p=p, dim=axis)


@operator("LRN")
def _local_response(
    x: Any, *, outputs: int, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Any:
    return functional.local_response_norm(x, size, alpha, beta, bias)


@operator("Softmax")
def _softmax(x: Any, *, outputs: int, axis: int = -1) -> Any:
    return torch.softmax(x, axis)


@operator("LogSoftmax")
def _log_softmax(x: Any, *, outputs: int, axis: int = -1) -> Any:
    return torch.log_softmax(x, axis)


# -- pooling and reductions -------------------------------------------------------------------------


@operator("MaxPool")
def _max_pool(
    x: Any, *, outputs: int, kernel_shape: Any, auto_pad: str = "NOTSET", strides: Any = None, pads: Any = None,
    dilations: Any = None, ceil_mode: int = 0, **_: Any,
) -> Any:  # fmt: skip
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    x, padding = _padded(x, pads, auto_pad, kernel_shape, strides, dilations, float("-inf"))
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    return pool(x, list(kernel_shape), strides, padding, dilations, bool(ceil_mode))


@operator("AveragePool")
def _average_pool(
    x: Any, *, outputs: int, kernel_shape: Any, auto_pad: str = "NOTSET", strides: Any = None, pads: Any = None,
    ceil_mode: int = 0, count_include_pad: int = 0, **_: Any,
) -> Any:  # fmt: skip
    rank = len(kernel_shape)
    strides = strides or [1] * rank
    x, padding = _padded(x, pads, auto_pad, kernel_shape, strides, [1] * rank)
    pool: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    return pool(x, list(kernel_shape), strides, padding, bool(ceil_mode), bool(count_include_pad))


@operator("GlobalAveragePool")
def _global_average(x: Any, *, outputs: int) -> Any:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max(x: Any, *, outputs: int) -> Any:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def _reduction(name: str, reduce: Callable[..., Any]) -> None:
    def run(
        x: Any, by: Any = None, *, outputs: int, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Any:
        said = by if by is not None else axes
        dims = tuple(range(x.dim())) if said is None else tuple(ints(said, "the axes"))
        return x if not dims and noop_with_empty_axes else reduce(x, dims, bool(keepdims))

    OPERATORS[name] = run


def _product(x: Any, dims: tuple[int, ...], keep: bool) -> Any:
    for dim in sorted((d % x.dim() for d in dims), reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


_reduction("ReduceMean", lambda x, dims, keep: x.mean(dims, keepdim=keep))
_reduction("ReduceSum", lambda x, dims, keep: x.sum(dims, keepdim=keep))
_reduction("ReduceMax", lambda x, dims, keep: x.amax(dims, keepdim=keep))
_reduction("ReduceMin", lambda x, dims, keep: x.amin(dims, keepdim=keep))
_reduction("ReduceProd", _product)
_reduction("ReduceL1", lambda x, dims, keep: torch.linalg.vector_norm(x, 1, dims, keep))
_reduction("ReduceL2", lambda x, dims, keep: torch.linalg.vector_norm(x, 2, dims, keep))
_reduction("ReduceSumSquare", lambda x, dims, keep: (x * x).sum(dims, keepdim=keep))
_reduction("ReduceLogSumExp", lambda x, dims, keep: torch.logsumexp(x, dims, keepdim=keep))


@operator("ArgMax")
def _argmax(x: Any, *, outputs: int, axis: int = 0, keepdims: int = 1, **_: Any) -> Any:
    return torch.argmax(x, axis, keepdim=bool(keepdims))


@operator("ArgMin")
def _argmin(x: Any, *, outputs: int, axis: int = 0, keepdims: int = 1, **_: Any) -> Any:
    return torch.argmin(x, axis, keepdim=bool(keepdims))


@operator("TopK")
def _topk(x: Any, k: Any, *, outputs: int, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    return tuple(torch.topk(x, ints(k, "the number of largest values")[0], axis, bool(largest), bool(sorted)))


@operator("CumSum")
def _cumsum(x: Any, axis: Any, *, outputs: int, **_: Any) -> Any:
    return torch.cumsum(x, ints(axis, "the axis")[0])
