"""Small blocks that are not one convolution: attention over channels, shuffles, shortcuts, unpooling."""

from __future__ import annotations

from dataclasses import replace

from costmodel.claims.design import Design, Layer, operator, sequence
from costmodel.claims.layers import fully_connected, global_average_pool
from costmodel.receptive_field import Field
from costmodel.symbols import Dim, as_expr
from costmodel.tensor import TensorSpec

__all__ = ["channel_shuffle", "max_unpool", "shortcut", "squeeze_excitation"]


def _pointwise(name: str) -> Layer:
    return lambda x: operator(name, x, out=x)


def squeeze_excitation(reduction: Dim, *, bias: bool = False) -> Layer:
    """Pool, C to C/r, ReLU, C/r to C, sigmoid, and every map scaled (arXiv:1709.01507): 2*C*C/r weights."""

    def build(x: TensorSpec) -> Design:
        channels = x.shape[1]
        inner = as_expr(channels) / reduction
        gate = sequence(
            global_average_pool(),
            fully_connected(int(inner) if inner.is_Integer else inner, bias=bias),
            _pointwise("aten.relu"),
            fully_connected(channels, bias=bias),
            _pointwise("aten.sigmoid"),
        )(x)
        factors = TensorSpec((*x.shape[:2], *[1] * (len(x.shape) - 2)), x.dtype)
        scaled = operator("aten.mul", x, other=factors, out=x)
        return replace(gate, output=x, cost=gate.cost + scaled.cost, field=Field(x.shape[2], 1))

    return build


def shortcut() -> Layer:
    """Add another tensor of the same shape: one FLOP an element, two tensors read, one written."""
    return lambda x: operator("aten.add", x, other=x, out=x)


def channel_shuffle(groups: Dim) -> Layer:
    """View channels as (groups, C/groups), swap the two, make the result contiguous: a copy, and no FLOP."""

    def build(x: TensorSpec) -> Design:
        parts = (groups, as_expr(x.shape[1]) / groups)
        swapped = TensorSpec((x.shape[0], *reversed(parts), *x.shape[2:]), x.dtype)
        made = operator("aten.clone", swapped, out=swapped)
        return Design(input=x, output=x, cost=made.cost)

    return build


def max_unpool(stride: Dim) -> Layer:
    """Put every element where its maximum was (64-bit indices), zeros elsewhere."""

    def build(x: TensorSpec) -> Design:
        out = TensorSpec((*x.shape[:2], *(stride * n for n in x.shape[2:])), x.dtype)
        indices = TensorSpec(x.shape, "int64")
        return operator("aten.max_unpool2d", x, indices=indices, out=out, seen=Field(1, 1 / as_expr(stride)))

    return build
