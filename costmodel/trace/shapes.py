"""Sizes that an operator's own rule gives: convolutions, pools, concatenation, padding, gradients.

A rule is a hint for :class:`~costmodel.trace.lift.SizeLift`: it proposes the expression of an output
dimension from the input's expressions. The recorded sizes of every run must agree before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from costmodel.symbols import Dim, ceil_div, floor_div
from costmodel.tensor import TensorSpec

__all__ = ["output_dims", "output_strides", "window_dim"]


def window_dim(size: Dim, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> Dim:
    """Output length of a sliding window: floor((size + 2p - d(k-1) - 1) / s) + 1, written as simply as it goes.

    >>> window_dim(224, 7, 2, 3), window_dim(56, 3, 1, 1)
    (112, 56)
    >>> from costmodel.symbols import symbol
    >>> window_dim(symbol("height"), 3, 2, 1), window_dim(symbol("height"), 16, 16, 0)
    (ceiling(height/2), floor(height/16))
    """
    slack = 2 * padding - dilation * (kernel - 1) - 1
    if stride == 1:
        return size + slack + 1
    if ceil_mode:
        return ceil_div(size + slack, stride) + 1 if slack % stride else ceil_div(size, stride) + slack // stride + 1
    if (slack + 1) % stride == 0:
        return ceil_div(size, stride) + (slack + 1) // stride
    if slack % stride == 0:
        return floor_div(size, stride) + slack // stride + 1
    return floor_div(size + slack, stride) + 1


def _pair(value: Any, count: int) -> list[int] | None:
    values = [value] * count if isinstance(value, int) else list(value or [])
    if len(values) == 1:
        values *= count
    return values if len(values) == count and all(isinstance(v, int) for v in values) else None


def _windowed(arguments: Mapping[str, Any], kernel: Any) -> Iterator[tuple[int, Dim]]:
    shape = arguments["input"].shape
    count = len(shape) - 2
    kernels = _pair(kernel, count)
    strides = _pair(arguments.get("stride") or (1 if "weight" in arguments else kernel), count)
    padding = arguments.get("padding", 0)
    dilations = _pair(arguments.get("dilation", 1), count)
    if padding == "valid":
        padding = 0
    paddings = None if isinstance(padding, str) else _pair(padding, count)
    if padding == "same":
        yield from ((2 + i, shape[2 + i]) for i in range(count))
    elif kernels and strides and paddings and dilations:
        ceil_mode = bool(arguments.get("ceil_mode", False))
        for i in range(count):
            yield 2 + i, window_dim(shape[2 + i], kernels[i], strides[i], paddings[i], dilations[i], ceil_mode)


def _transposed(arguments: Mapping[str, Any]) -> Iterator[tuple[int, Dim]]:
    shape, kernel = arguments["input"].shape, arguments["weight"].shape[2:]
    count = len(shape) - 2
    values = [
        _pair(arguments.get(n, d), count)
        for n, d in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
    ]
    if all(values):
        stride, padding, extra, dilation = values  # type: ignore[assignment]
        for i in range(count):
            grown = (shape[2 + i] - 1) * stride[i] - 2 * padding[i]  # type: ignore[index]
            yield 2 + i, grown + dilation[i] * (kernel[i] - 1) + extra[i] + 1  # type: ignore[index]


def _gradient(arguments: Mapping[str, Any]) -> Iterator[tuple[int, Dim]]:
    """A gradient is as large as what it is the gradient of: the operand, or sizes that were kept in its place.

    Where the operand's gradient is not asked for, the first result is another's.
    """
    if not (arguments.get("output_mask") or [True])[0]:
        return
    operand = arguments.get("input")
    sizes = arguments.get("input_sizes") or arguments.get("input_size")
    yield from enumerate(operand.shape if isinstance(operand, TensorSpec) else sizes or ())


def output_dims(op: str, arguments: Mapping[str, Any]) -> Iterator[tuple[int, Dim]]:
    """(dimension, expression) pairs that the operator's rule gives for its first result.

    ``arguments`` by schema name, tensors as specs. Yields nothing for operators without such a rule.
    """
    name = op.removeprefix("aten.")
    if name.endswith("_backward"):
        yield from _gradient(arguments)
    elif name in {"conv1d", "conv2d", "conv3d"} or (name == "convolution" and not arguments["transposed"]):
        yield from _windowed(arguments, arguments["weight"].shape[2:])
    elif name.startswith("conv_transpose") or name == "convolution":
        yield from _transposed(arguments)
    elif name.startswith(("max_pool", "avg_pool")):
        yield from _windowed(arguments, arguments["kernel_size"])
    elif name == "cat":
        tensors = [t for t in arguments["tensors"] if isinstance(t, TensorSpec)]
        axis = arguments.get("dim", 0) % max(len(tensors[0].shape), 1)
        if all(len(t.shape) == len(tensors[0].shape) for t in tensors):
            yield axis, sum(t.shape[axis] for t in tensors)
    elif name in {"constant_pad_nd", "reflection_pad2d", "replication_pad2d"}:
        pads, shape = arguments.get("pad") or arguments.get("padding") or [], arguments["input"].shape
        for i in range(len(pads) // 2):
            axis = len(shape) - 1 - i
            yield axis, shape[axis] + pads[2 * i] + pads[2 * i + 1]


def output_strides(op: str, arguments: Mapping[str, Any]) -> Iterator[Dim]:
    """Strides that the operator's rule gives to results that are not dense.

    Memory-efficient attention pads the rows of its mask's gradient to a multiple of 16 elements
    (``_efficient_attention_backward``, aten/src/ATen/native/transformers/cuda/attention_backward.cu).
    """
    if op == "aten._scaled_dot_product_efficient_attention_backward" and arguments["attn_bias"] is not None:
        heads, queries, _ = arguments["query"].shape[-3:]
        row = 16 * ceil_div(arguments["key"].shape[-2], 16)
        yield from (row, row * queries, row * queries * heads)
