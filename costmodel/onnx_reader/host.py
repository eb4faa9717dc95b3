"""ONNX operators on what the host computes: shapes, axes and scalars, as numpy arrays of whatever objects sizes are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from costmodel.onnx_reader.types import HOST_ELEMENTS, dtype_of

__all__ = ["HOST"]

_Array = Any


def _shape(tensor: Any, *, outputs: int, start: int = 0, end: int | None = None) -> _Array:
    found = numpy.empty(len(tensor.shape[start:end]), dtype=object)
    found[:] = list(tensor.shape[start:end])
    return found


def _size(tensor: Any, *, outputs: int) -> _Array:
    return numpy.asarray(numpy.prod(_shape(tensor, outputs=1)), dtype=object)


def _axes(given: Any, axes: Any) -> tuple[int, ...]:
    said = given if given is not None else axes
    return () if said is None else tuple(int(a) for a in numpy.atleast_1d(said))


def _unsqueeze(x: _Array, by: Any = None, *, outputs: int, axes: Any = None) -> _Array:
    return numpy.expand_dims(x, _axes(by, axes))


def _squeeze(x: _Array, by: Any = None, *, outputs: int, axes: Any = None) -> _Array:
    return numpy.squeeze(x, _axes(by, axes) or None)


def _slice(
    x: _Array, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None, *, outputs: int, **old: Any
) -> _Array:
    starts, ends = (numpy.atleast_1d(s if s is not None else old[n]) for s, n in ((starts, "starts"), (ends, "ends")))
    axes = range(len(starts)) if axes is None else numpy.atleast_1d(axes)
    steps = [1] * len(starts) if steps is None else numpy.atleast_1d(steps)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cut[int(axis)] = slice(int(start), int(end), int(step))
    return x[tuple(cut)]


def _cast(x: _Array, *, outputs: int, to: int, **_: Any) -> _Array:
    dtype = dtype_of(to)
    if x.dtype == object and not dtype.is_floating_point:
        return x  # sizes stay the objects that they are
    return x.astype(str(dtype).removeprefix("torch."))


def _constant_of_shape(shape: _Array, *, outputs: int, value: Any = None) -> _Array:
    import onnx

    fill = numpy.float32(0) if value is None else onnx.numpy_helper.to_array(value).reshape(())
    import torch

    sizes = [int(s) for s in numpy.atleast_1d(shape)]
    if numpy.prod(sizes, dtype=object) <= HOST_ELEMENTS:
        return numpy.full(sizes, fill)
    return torch.full(sizes, fill.item(), dtype=getattr(torch, numpy.asarray(fill).dtype.name), device="meta")


def _divide(a: _Array, b: _Array, *, outputs: int) -> _Array:
    whole = all(numpy.asarray(v).dtype.kind in "iuO" for v in (a, b))
    return numpy.asarray(a) // numpy.asarray(b) if whole else numpy.asarray(a) / numpy.asarray(b)


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., _Array]:
    def run(a: _Array, b: _Array, *, outputs: int, **_: Any) -> _Array:
        return function(numpy.asarray(a), numpy.asarray(b))

    return run


def _unary(function: Callable[[Any], Any]) -> Callable[..., _Array]:
    def run(x: _Array, *, outputs: int, **_: Any) -> _Array:
        return numpy.asarray(function(numpy.asarray(x)))

    return run


def _reduce_prod(x: _Array, by: Any = None, *, outputs: int, axes: Any = None, keepdims: int = 1, **_: Any) -> _Array:
    return numpy.prod(x, axis=_axes(by, axes) or None, keepdims=bool(keepdims))


def _range(start: Any, limit: Any, delta: Any, *, outputs: int) -> Any:
    import torch

    ends = [v.item() if hasattr(v, "item") else v for v in (start, limit, delta)]
    found = torch.arange(*ends, device="meta")
    return numpy.arange(*ends) if found.numel() <= HOST_ELEMENTS else found


def _expand(x: _Array, shape: _Array, *, outputs: int) -> _Array:
    return numpy.broadcast_to(x, numpy.broadcast_shapes(x.shape, tuple(int(s) for s in shape)))


def _split(x: _Array, sizes: Any = None, *, outputs: int, axis: int = 0, split: Any = None, **_: Any) -> _Array:
    sizes = sizes if sizes is not None else split
    cuts = numpy.cumsum([int(s) for s in sizes])[:-1] if sizes is not None else outputs
    return tuple(numpy.split(x, cuts, axis))


#: Operators on the host's values. Those that :data:`~costmodel.onnx_reader.operators.OPERATORS` has not are the
#: host's whatever they are given.
HOST: dict[str, Callable[..., Any]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _unary(lambda x: x),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Split": _split,
    "ReduceProd": _reduce_prod,
    "Gather": lambda x, i, *, outputs, axis=0: numpy.take(x, numpy.asarray(i, dtype=numpy.int64), axis=axis),
    "Concat": lambda *parts, outputs, axis: numpy.concatenate([numpy.atleast_1d(p) for p in parts], axis=axis),
    "Reshape": lambda x, shape, *, outputs, allowzero=0: numpy.reshape(x, [int(s) for s in shape]),
    "Transpose": lambda x, *, outputs, perm=None: numpy.transpose(x, perm),
    "Where": lambda c, a, b, *, outputs: numpy.where(numpy.asarray(c, dtype=bool), a, b),
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _divide,
    "Mod": _binary(lambda a, b: a % b),
    "Pow": _binary(lambda a, b: a**b),
    "Max": _binary(numpy.maximum),
    "Min": _binary(numpy.minimum),
    "Equal": _binary(lambda a, b: a == b),
    "Less": _binary(lambda a, b: a < b),
    "LessOrEqual": _binary(lambda a, b: a <= b),
    "Greater": _binary(lambda a, b: a > b),
    "GreaterOrEqual": _binary(lambda a, b: a >= b),
    "And": _binary(numpy.logical_and),
    "Or": _binary(numpy.logical_or),
    "Not": _unary(numpy.logical_not),
    "Neg": _unary(lambda x: -x),
    "Abs": _unary(abs),
    "Floor": _unary(lambda x: numpy.floor(x.astype(float))),
    "Ceil": _unary(lambda x: numpy.ceil(x.astype(float))),
    "Sqrt": _unary(lambda x: numpy.sqrt(x.astype(float))),
    "Reciprocal": _unary(lambda x: 1 / x),
}
