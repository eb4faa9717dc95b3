"""The micro-benchmarks of a CPU: every kind of operator that vision models and transformers are made of, by size.

Shapes are those that occur in networks, from a few hundred elements to several MB, because a round that moves no data
leaves every operator's code in cache and finds fixed times four times too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from costmodel.measure.microbench import Entry

__all__ = ["cpu_entries", "tiny_entries"]

#: (channels in, channels out, picture edge, kernel edge, stride, groups, batch)
Shape = tuple[int, int, int, int, int, int, int]

_POINTWISE = (
    (8, 16, 4, 1), (16, 96, 112, 1), (24, 144, 56, 1), (144, 24, 56, 1), (64, 64, 56, 1), (64, 256, 56, 1),
    (256, 64, 56, 1), (32, 192, 28, 1), (128, 512, 28, 1), (512, 128, 28, 1), (96, 576, 14, 1), (576, 160, 7, 1),
    (256, 1024, 14, 1), (1024, 256, 14, 1), (512, 2048, 7, 1), (2048, 512, 7, 1), (960, 160, 7, 1),
    (320, 1280, 7, 1), (96, 24, 1, 1), (672, 168, 1, 1), (240, 960, 1, 1), (64, 256, 56, 8), (96, 576, 14, 8),
    (384, 384, 14, 1), (40, 240, 14, 1),
    (90, 90, 56, 1), (180, 90, 28, 1), (60, 60, 56, 1), (116, 116, 28, 1), (58, 58, 28, 1),  # no multiples of 8
)  # fmt: skip
_DENSE = (
    (8, 8, 6, 3, 1, 1), (64, 64, 56, 3, 1, 1), (128, 128, 28, 3, 1, 1), (256, 256, 14, 3, 1, 1), (512, 512, 7, 3, 1, 1),
    (16, 16, 112, 3, 1, 1), (32, 64, 56, 3, 2, 1), (64, 96, 28, 5, 1, 1), (64, 128, 112, 3, 1, 1),
    (128, 256, 56, 3, 2, 1), (256, 512, 28, 1, 2, 1), (32, 32, 28, 3, 1, 1), (96, 192, 14, 3, 1, 1),
    (64, 64, 56, 3, 1, 8), (256, 256, 14, 3, 1, 8), (96, 192, 56, 2, 2, 1), (128, 32, 14, 3, 1, 1),
    (3, 64, 224, 7, 2, 1), (3, 32, 224, 3, 2, 1), (3, 96, 224, 4, 4, 1), (3, 384, 224, 16, 16, 1),
    (3, 64, 224, 3, 1, 1), (3, 16, 128, 3, 2, 1), (65, 65, 28, 3, 1, 1), (36, 36, 56, 3, 1, 1), (100, 100, 14, 3, 1, 1),
)  # fmt: skip
_GROUPED = (
    (32, 32, 6, 3, 1, 4), (256, 256, 28, 3, 1, 32), (512, 512, 14, 3, 1, 32), (1024, 1024, 7, 3, 1, 32),
    (64, 64, 56, 3, 2, 4), (128, 256, 28, 1, 1, 4), (192, 192, 14, 3, 1, 12),
    (16, 16, 6, 3, 1, 8), (128, 128, 56, 3, 1, 32), (48, 48, 28, 3, 1, 12), (96, 96, 14, 3, 1, 24),
)  # fmt: skip
_DEPTHWISE = (
    (16, 4, 3, 1, 1), (32, 112, 3, 1, 1), (96, 112, 3, 2, 1), (144, 56, 3, 1, 1), (192, 28, 3, 1, 1),
    (240, 28, 3, 2, 1), (576, 14, 3, 1, 1), (960, 7, 3, 1, 1), (120, 28, 5, 1, 1), (672, 14, 5, 1, 1),
    (672, 14, 5, 2, 1),
    (960, 7, 5, 1, 1), (96, 56, 7, 1, 1), (192, 28, 7, 1, 1), (384, 14, 7, 1, 1), (768, 7, 7, 1, 1), (144, 56, 3, 1, 8),
    (72, 28, 5, 1, 1),
)  # fmt: skip
#: Every n-th shape is also timed in channels_last.
_CHANNELS_LAST_STRIDE = 2

#: Pictures up to this edge [pixels] are tiny, but for those of a single pixel, whose weights are not.
_TINY_EDGE = 6

#: (rows, in, out)
_LINEAR = (
    (8, 16, 16), (49, 768, 3072), (49, 3072, 768), (196, 192, 576), (196, 192, 192), (196, 768, 192), (196, 384, 1536),
    (197, 768, 768), (197, 768, 2304), (197, 768, 3072), (784, 192, 768), (3136, 96, 384), (3136, 96, 288),
    (3136, 384, 96), (784, 64, 64), (1024, 1024, 1024), (64, 256, 256), (16, 512, 512), (8, 2048, 1000),
    (1576, 384, 384), (1, 16, 16), (1, 512, 1000), (1, 1280, 1000), (1, 2048, 1000), (1, 768, 1000),
    (1, 9216, 4096), (1, 192, 1000),
)  # fmt: skip
#: (batch of matrices, m, k, n)
_MATMUL = ((2, 4, 8, 4), (3, 196, 64, 196), (3, 196, 196, 64), (192, 49, 32, 49), (192, 49, 49, 32), (12, 197, 64, 197),
           (48, 16, 16, 16), (4, 784, 32, 49))  # fmt: skip
#: (batch, heads, tokens, keys, width of a head)
_ATTENTION = ((1, 2, 8, 8, 16), (1, 3, 197, 197, 64), (1, 6, 197, 197, 64), (1, 12, 197, 197, 64), (64, 3, 49, 49, 32),
              (16, 6, 49, 49, 32), (4, 12, 49, 49, 32), (8, 3, 197, 197, 64), (1, 2, 784, 49, 32))  # fmt: skip

#: Pictures (batch, channels, height, width) of 256 to 6.4 million elements; the first is the tiny one.
_PICTURES = ((1, 16, 4, 4), (1, 128, 8, 8), (1, 192, 14, 14), (1, 144, 28, 28), (1, 128, 56, 56), (1, 96, 112, 112),
             (1, 64, 224, 224), (8, 256, 56, 56))  # fmt: skip
#: Tokens (batch, tokens, channels).
_TOKENS = ((1, 8, 32), (1, 49, 192), (1, 197, 192), (1, 197, 768), (1, 784, 512), (1, 3136, 384), (8, 784, 512))
#: Scores of attention (heads, tokens, keys).
_SCORES = ((2, 8, 16), (3, 49, 49), (3, 197, 197), (12, 197, 197), (192, 49, 49), (96, 196, 196))

_CHANNELS_LAST = torch.channels_last
_NUMBERS = torch.randn(2**20, generator=torch.Generator().manual_seed(0))


def _random(*shape: Any) -> torch.Tensor:
    """Normally distributed numbers, a million of them over and over: drawing anew would take longer than timing."""
    sizes = shape[0] if isinstance(shape[0], tuple) else shape
    count = math.prod(sizes)
    repeated = _NUMBERS.repeat(-(-count // _NUMBERS.numel())) if count > _NUMBERS.numel() else _NUMBERS
    return repeated[:count].reshape(sizes).clone()


def cpu_entries() -> list[Entry]:
    """All micro-benchmarks; allocates about 1 GB."""
    functional = [*_products(), *_binary(), *_movements(), *_reductions(), *_views()]
    layers = [*_convolutions(), *_linear(), *_unary(), *_norms(), *_windows()]
    return [*functional, *map(_in_module, layers)]


def tiny_entries(entries: list[Entry]) -> list[Entry]:
    """Those whose time is a fixed time."""
    return [entry for entry in entries if entry.tiny]


# -- contractions --------------------------------------------------------------------------------


def _shapes() -> Iterator[tuple[int, Shape]]:
    for i, (c, o, edge, batch) in enumerate(_POINTWISE):
        yield i, (c, o, edge, 1, 1, 1, batch)
    for i, (c, o, edge, k, stride, batch) in enumerate(_DENSE):
        yield i, (c, o, edge, k, stride, 1, batch)
    for i, (c, o, edge, k, stride, groups) in enumerate(_GROUPED):
        yield i, (c, o, edge, k, stride, groups, 1)
    for i, (c, edge, k, stride, batch) in enumerate(_DEPTHWISE):
        yield i, (c, c, edge, k, stride, c, batch)


def _convolutions() -> Iterator[Entry]:
    for index, shape in _shapes():
        yield _convolution(shape, channels_last=False)
        if index % _CHANNELS_LAST_STRIDE == 0 or 1 < shape[2] <= _TINY_EDGE:
            yield _convolution(shape, channels_last=True)


def _convolution(shape: Shape, *, channels_last: bool) -> Entry:
    c, o, edge, k, stride, groups, batch = shape
    layout = _CHANNELS_LAST if channels_last else torch.contiguous_format
    x = _random(batch, c, edge, edge).to(memory_format=layout)
    weight = _random(o, c // groups, k, k).to(memory_format=layout)
    bias = _random(o) if groups == 1 and o % 3 == 0 else None
    padding = k // 2 if stride < k else 0
    arguments = {"input": x, "weight": weight, "bias": bias, "stride": [stride] * 2, "padding": [padding] * 2,
                 "dilation": [1, 1], "groups": groups}  # fmt: skip
    words = (c, o, edge, k, stride, groups, batch, "nhwc" if channels_last else "nchw")
    return Entry(
        "conv " + "x".join(map(str, words)),
        "aten.conv2d",
        arguments,
        lambda: F.conv2d(x, weight, bias, stride, padding, 1, groups),
        (x,),
        tiny=1 < edge <= _TINY_EDGE,
    )


def _linear() -> Iterator[Entry]:
    for m, k, n in _LINEAR:
        x, w, b = _random(1, m, k), _random(n, k), _random(n)
        arguments = {"input": x, "weight": w, "bias": b}
        call = _bound(F.linear, x, w, b)
        yield Entry(f"linear {m}x{k}x{n}", "aten.linear", arguments, call, (x,), tiny=k == 16)


def _products() -> Iterator[Entry]:
    for batch, m, k, n in _MATMUL:
        x, y = _random(batch, m, k), _random(batch, k, n)
        arguments = {"input": x, "other": y}
        name = f"matmul {batch}x{m}x{k}x{n}"
        yield Entry(name, "aten.matmul", arguments, _bound(torch.matmul, x, y), (x, y), tiny=m == 4)
    for batch, heads, tokens, keys, width in _ATTENTION:
        q = _random(batch, heads, tokens, width)
        keyed, valued = _random(batch, heads, keys, width), _random(batch, heads, keys, width)
        arguments = {"query": q, "key": keyed, "value": valued}
        name = f"attention {batch}x{heads}x{tokens}x{keys}x{width}"
        call = _bound(F.scaled_dot_product_attention, q, keyed, valued)
        yield Entry(name, "aten.scaled_dot_product_attention", arguments, call, (q, keyed, valued), tiny=tokens == 8)


class _Layer(torch.nn.Module):
    """Calls an operator as the layers of a model do: through a module of its own that looks up its parameters."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self.weight, self.bias = (torch.nn.Parameter(torch.zeros(1), requires_grad=False) for _ in range(2))
        self.function, self.stride = function, 1

    def forward(self, x: torch.Tensor) -> Any:
        _ = x, self.weight, self.bias, self.stride
        return self.function()


def _in_module(entry: Entry) -> Entry:
    """The same benchmark, called through a module: so convolutions, norms, activations and pools run in models."""
    layer = _Layer(entry.call)
    return replace(entry, call=_bound(layer, entry.activations[0]))


def _bound(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[[], Any]:
    """A call with its arguments, made without looking anything up."""
    return lambda: function(*arguments, **named)


# -- element by element --------------------------------------------------------------------------

_UNARY: dict[str, tuple[str, Callable[..., Any]]] = {
    "relu": ("relu", torch.relu),
    "relu_": ("relu", torch.relu_),
    "leaky_relu_": ("leaky_relu", lambda x: F.leaky_relu(x, 0.1, inplace=True)),
    "hardtanh_": ("hardtanh", lambda x: F.hardtanh(x, 0.0, 6.0, inplace=True)),
    "hardswish_": ("hardswish", lambda x: F.hardswish(x, inplace=True)),
    "hardswish": ("hardswish", F.hardswish),
    "hardsigmoid": ("hardsigmoid", F.hardsigmoid),
    "gelu": ("gelu", F.gelu),
    "silu": ("silu", F.silu),
    "silu_": ("silu", lambda x: F.silu(x, inplace=True)),
    "sigmoid": ("sigmoid", torch.sigmoid),
    "tanh": ("tanh", torch.tanh),
}
_BINARY: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": ("add", torch.add),
    "add_": ("add", lambda x, y: x.add_(y)),
    "mul": ("mul", torch.mul),
}


def _unary() -> Iterator[Entry]:
    for shape in _PICTURES:
        for name, (op, function) in _UNARY.items():
            x = _random(shape)
            yield _entry(name, op, {"input": x}, _bound(function, x), (x,), shape)


def _binary() -> Iterator[Entry]:
    """The second operand of a sum or product is an older one (a residual): it is not touched."""
    for shape in _PICTURES:
        for name, (op, function) in _BINARY.items():
            x, y = _random(shape), _random(shape)
            yield _entry(name, op, {"input": x, "other": y}, _bound(function, x, y), (x,), shape)
        x, scale = _random(shape), _random(shape[0], shape[1], 1, 1)
        yield _entry("mul channels", "mul", {"input": x, "other": scale}, _bound(torch.mul, x, scale), (x,), shape)
        x, y = _random(shape), _random(shape).to(memory_format=_CHANNELS_LAST)
        if x.numel() < 4_000_000:
            yield _entry("add mixed", "add", {"input": x, "other": y}, _bound(torch.add, x, y), (x,), shape)
    for tokens in _TOKENS:
        x, row = _random(tokens), _random(tokens[-1])
        yield _entry("mul row", "mul", {"input": x, "other": row}, _bound(torch.mul, x, row), (x,), tokens)
        yield _entry("add row", "add", {"input": x, "other": row}, _bound(torch.add, x, row), (x,), tokens)


def _entry(
    name: str, op: str, arguments: dict[str, Any], call: Callable[[], Any], activations: Any, shape: Any
) -> Entry:
    """An entry named after its shape; tiny where it has 256 elements."""
    numel = 1
    for size in shape:
        numel *= size
    words = "x".join(map(str, shape))
    return Entry(f"{name} {words}", f"aten.{op}", arguments, call, tuple(activations), name.endswith("_"), numel <= 256)


# -- normalization, reduction, windows -------------------------------------------------------------


def _norms() -> Iterator[Entry]:
    for shape in _PICTURES:
        for layout in (torch.contiguous_format, _CHANNELS_LAST):
            x = _random(shape).to(memory_format=layout)
            m, v = _random(shape[1]), _random(shape[1]).abs() + 0.5
            word = "" if layout == torch.contiguous_format else " nhwc"
            norm = {"input": x, "weight": m, "bias": m, "running_mean": m, "running_var": v, "training": False,
                    "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": True}  # fmt: skip
            yield _entry(f"batch_norm{word}", "batch_norm", norm, _bound(F.batch_norm, x, m, v, m, v), (x,), shape)
            pool = {"input": x, "output_size": [1, 1]}
            call = _bound(F.adaptive_avg_pool2d, x, 1)
            yield _entry(f"global pool{word}", "adaptive_avg_pool2d", pool, call, (x,), shape)
    for shape in _PICTURES[:-1]:
        x, w = _random(shape), _random(shape[1])
        arguments = {"input": x, "num_groups": 1, "weight": w, "bias": w}
        yield _entry("group_norm", "group_norm", arguments, _bound(F.group_norm, x, 1, w, w), (x,), shape)
    for tokens in _TOKENS:
        x, w = _random(tokens), _random(tokens[-1])
        norm = {"input": x, "normalized_shape": [tokens[-1]], "weight": w, "bias": w, "eps": 1e-5}
        yield _entry("layer_norm", "layer_norm", norm, _bound(F.layer_norm, x, (tokens[-1],), w, w), (x,), tokens)


def _reductions() -> Iterator[Entry]:
    for shape in _PICTURES:
        for layout in (torch.contiguous_format, _CHANNELS_LAST):
            x = _random(shape).to(memory_format=layout)
            word = "" if layout == torch.contiguous_format else " nhwc"
            mean = {"input": x, "dim": [2, 3], "keepdim": True}
            yield _entry(f"mean{word}", "mean", mean, _bound(torch.mean, x, (2, 3), keepdim=True), (x,), shape)
    for scores in _SCORES:
        x = _random(scores)
        arguments = {"input": x, "dim": -1}
        yield _entry("softmax", "softmax", arguments, _bound(torch.softmax, x, -1), (x,), scores)


def _windows() -> Iterator[Entry]:
    for shape in _PICTURES[:-1]:
        for layout in (torch.contiguous_format, _CHANNELS_LAST):
            x = _random(shape).to(memory_format=layout)
            word = "" if layout == torch.contiguous_format else " nhwc"
            window = {"input": x, "kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1]}
            call = _bound(F.max_pool2d, x, 3, 2, 1)
            yield _entry(f"max_pool{word}", "max_pool2d", window, call, (x,), shape)
            call = _bound(F.avg_pool2d, x, 3, 1, 1)
            window = {"input": x, "kernel_size": [3, 3], "stride": [1, 1], "padding": [1, 1]}
            yield _entry(f"avg_pool{word}", "avg_pool2d", window, call, (x,), shape)
        x = _random(shape)
        arguments = {"input": x, "output_size": [2 * n for n in shape[2:]], "scales_h": None, "scales_w": None}
        if x.numel() < 1_500_000:
            call = _bound(F.interpolate, x, scale_factor=2, mode="nearest")
            yield _entry("upsample", "upsample_nearest2d", arguments, call, (x,), shape)


# -- movement --------------------------------------------------------------------------------------


def _movements() -> Iterator[Entry]:
    for shape in _PICTURES:
        batch, channels, height, width = shape
        for layout in (torch.contiguous_format, _CHANNELS_LAST):
            word = "" if layout == torch.contiguous_format else " nhwc"
            half = (batch, channels // 2, height, width)
            parts = [_random(half).to(memory_format=layout) for _ in range(2)]
            arguments = {"tensors": parts, "dim": 1}
            yield _entry(f"cat{word}", "cat", arguments, _bound(torch.cat, parts, 1), parts[:1], shape)
        if batch > 1:
            continue
        x = _random(shape)
        turned = x.permute(0, 2, 3, 1)
        arguments = {"input": turned, "memory_format": torch.contiguous_format}
        yield _entry("clone turned", "clone", arguments, _bound(turned.contiguous), (x,), shape)
        yield _entry("clone", "clone", {"input": x}, _bound(x.clone), (x,), shape)
        count = max(channels // 16, 2)
        heads = _random(1, x.numel() // (16 * count), count, 16).transpose(1, 2)
        arguments = {"input": heads, "memory_format": torch.contiguous_format}
        yield _entry("clone rows", "clone", arguments, _bound(heads.contiguous), (heads,), shape)
        arguments = {"input": x, "pad": [1, 1, 1, 1], "value": 0.0}
        yield _entry("pad", "constant_pad_nd", arguments, _bound(F.pad, x, (1, 1, 1, 1)), (x,), shape)


def _views() -> Iterator[Entry]:
    """What costs host time alone."""
    x = _random(_PICTURES[0])
    yield Entry("view", "aten.view", {}, _bound(x.view, 1, -1), (x,), tiny=True, host="view")
