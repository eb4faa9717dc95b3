"""ONNX operators that move elements on the device: views, pieces, gathers, resampling."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch.nn import functional

from costmodel.errors import ModelError
from costmodel.onnx_reader.operators import ints, on_device, operator, scalar_or_tensor

__all__: list[str] = []


@operator("Reshape")
def _reshape(x: Any, shape: Any, *, outputs: int, allowzero: int = 0) -> Any:
    wanted = ints(shape, "the sizes")
    sizes = [x.shape[i] if isinstance(s, int) and s == 0 and not allowzero else s for i, s in enumerate(wanted)]
    return x.reshape(sizes)


@operator("Flatten")
def _flatten(x: Any, *, outputs: int, axis: int = 1) -> Any:
    axis = axis % (x.dim() + 1)
    return x.flatten(1) if axis == 1 else x.reshape(x.shape[:axis].numel(), -1)


@operator("Transpose")
def _transpose(x: Any, *, outputs: int, perm: Any = None) -> Any:
    return x.permute(perm if perm is not None else tuple(reversed(range(x.dim()))))


@operator("Squeeze")
def _squeeze(x: Any, by: Any = None, *, outputs: int, axes: Any = None) -> Any:
    said = by if by is not None else axes
    return x.squeeze() if said is None else x.squeeze(tuple(ints(said, "the axes")))


@operator("Unsqueeze")
def _unsqueeze(x: Any, by: Any = None, *, outputs: int, axes: Any = None) -> Any:
    said = ints(by if by is not None else axes, "the axes")
    rank = x.dim() + len(said)
    for axis in sorted(a % rank for a in said):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def _concat(*parts: Any, outputs: int, axis: int) -> Any:
    return torch.cat([on_device(p) for p in parts], axis)


@operator("Split")
def _split(x: Any, sizes: Any = None, *, outputs: int, axis: int = 0, split: Any = None, num_outputs: int = 0) -> Any:
    said = sizes if sizes is not None else split
    each = -(-x.shape[axis] // (num_outputs or outputs))
    return tuple(torch.split(x, each if said is None else ints(said, "the sizes"), axis))


@operator("Slice")
def _slice(
    x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None, *, outputs: int, **old: Any
) -> Any:
    firsts = ints(starts if starts is not None else old["starts"], "the starts")
    lasts = ints(ends if ends is not None else old["ends"], "the ends")
    said = axes if axes is not None else old.get("axes")
    along = list(range(len(firsts))) if said is None else ints(said, "the axes")
    strides = [1] * len(firsts) if steps is None else ints(steps, "the steps")
    for axis, first, last, step in zip(along, firsts, lasts, strides, strict=True):
        if step < 0:
            raise ModelError("a Slice that goes backwards is not read")
        cut = [slice(None)] * x.dim()
        cut[axis] = slice(first, None if isinstance(last, int) and last >= 2**31 - 1 else last, step)
        x = x[tuple(cut)]
    return x


@operator("Gather")
def _gather(x: Any, indices: Any, *, outputs: int, axis: int = 0) -> Any:
    if isinstance(indices, numpy.ndarray) and indices.ndim == 0:
        return x.select(axis, int(indices))
    if not isinstance(x, torch.Tensor):
        x = on_device(x)
    indices = on_device(indices)
    if isinstance(x, torch.nn.Parameter) and x.dim() == 2 and axis == 0:
        return functional.embedding(indices, x)
    axis = axis % x.dim()
    found = x.index_select(axis, indices.reshape(-1))
    return found if indices.dim() == 1 else found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@operator("GatherElements")
def _gather_elements(x: Any, indices: Any, *, outputs: int, axis: int = 0) -> Any:
    return torch.gather(x, axis, on_device(indices))


@operator("GatherND")
def _gather_nd(x: Any, indices: Any, *, outputs: int, batch_dims: int = 0) -> Any:
    if batch_dims:
        raise ModelError("a GatherND with batch_dims is not read")
    return x[on_device(indices).unbind(-1)]


@operator("ScatterElements")
def _scatter_elements(
    x: Any, indices: Any, updates: Any, *, outputs: int, axis: int = 0, reduction: str = "none"
) -> Any:
    if reduction == "none":
        return x.scatter(axis, on_device(indices), on_device(updates))
    kinds = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return x.scatter_reduce(axis, on_device(indices), on_device(updates), kinds[reduction])


@operator("ScatterND")
def _scatter_nd(x: Any, indices: Any, updates: Any, *, outputs: int, reduction: str = "none") -> Any:
    return x.index_put(on_device(indices).unbind(-1), on_device(updates), accumulate=reduction == "add")


@operator("Expand")
def _expand(x: Any, shape: Any, *, outputs: int) -> Any:
    x, sizes = on_device(x), ints(shape, "the sizes")
    sizes = [1] * (x.dim() - len(sizes)) + sizes
    own = [1] * (len(sizes) - x.dim()) + list(x.shape)
    # A plain 1 is stretched; whether an open size is 1 is not asked.
    return x.expand([its if type(mine) is int and mine == 1 else mine for mine, its in zip(own, sizes, strict=True)])


@operator("Tile")
def _tile(x: Any, repeats: Any, *, outputs: int) -> Any:
    return x.repeat(ints(repeats, "the repeats"))


@operator("Pad")
def _pad(
    x: Any, pads: Any = None, value: Any = None, axes: Any = None, *, outputs: int, mode: str = "constant", **old: Any
) -> Any:
    sides = ints(pads if pads is not None else old["pads"], "the pads")
    along = list(range(x.dim())) if axes is None else ints(axes, "the axes")
    each = {axis % x.dim(): (sides[i], sides[i + len(along)]) for i, axis in enumerate(along)}
    flat = [side for axis in reversed(range(x.dim())) for side in each.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        del flat[-2:]
    if not any(flat):
        return x
    kind = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode]
    fill = 0 if value is None else scalar_or_tensor(value)
    return (
        functional.pad(x, flat, kind, fill if isinstance(fill, (int, float)) else 0)
        if kind == "constant"
        else (functional.pad(x, flat, kind))
    )


@operator("DepthToSpace")
def _depth_to_space(x: Any, *, outputs: int, blocksize: int, **_: Any) -> Any:
    return functional.pixel_shuffle(x, blocksize)


@operator("SpaceToDepth")
def _space_to_depth(x: Any, *, outputs: int, blocksize: int) -> Any:
    return functional.pixel_unshuffle(x, blocksize)


@operator("Resize", "Upsample")
def _resize(x: Any, *said: Any, outputs: int, mode: str = "nearest", scales: Any = None, **_: Any) -> Any:
    """Operands are (scales) of Upsample, (roi, scales, sizes) of Resize."""
    by, to = (said[0], None) if len(said) == 1 else (said + (None,) * 3)[1:3]
    by = by if by is not None else scales
    kind = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[mode]
    kind = {3: "linear", 5: "trilinear"}.get(x.dim(), kind) if kind == "bilinear" else kind
    aligned = None if kind == "nearest" else False
    if to is not None:
        return functional.interpolate(x, ints(to, "the sizes")[2:], mode=kind, align_corners=aligned)
    factors = [float(s) for s in ints(by, "the scales")[2:]]
    return functional.interpolate(x, scale_factor=factors, mode=kind, align_corners=aligned)


@operator("OneHot")
def _one_hot(indices: Any, depth: Any, values: Any, *, outputs: int, axis: int = -1) -> Any:
    found = functional.one_hot(indices, ints(depth, "the depth")[0]).to(on_device(values).dtype)
    return found if axis == -1 else found.movedim(-1, axis)


@operator("Trilu")
def _trilu(x: Any, k: Any = None, *, outputs: int, upper: int = 1) -> Any:
    diagonal = 0 if k is None else ints(k, "the diagonal")[0]
    return torch.triu(on_device(x), diagonal) if upper else torch.tril(on_device(x), diagonal)


def _recurrent(name: str, gates: int) -> Any:
    def run(
        x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None, *_: Any,
        outputs: int, hidden_size: int, direction: str = "forward", layout: int = 0, **__: Any,
    ) -> Any:  # fmt: skip
        directions = w.shape[0]
        state = torch.zeros((directions, x.shape[1 - layout], hidden_size), dtype=x.dtype, device="meta")
        first, cell = state if h is None else h, state if c is None else c
        weights = []
        for d in range(directions):
            weights += [w[d], r[d]] if b is None else [w[d], r[d], *b[d].split(gates * hidden_size)]
        start = (first, cell) if name == "lstm" else first
        both = direction == "bidirectional"
        result = getattr(torch, name)(x, start, weights, b is not None, 1, 0.0, False, both, bool(layout))
        y = result[0].unflatten(-1, (directions, hidden_size)).permute(0, 2, 1, 3)
        return (y, *result[1:])

    return run


operator("LSTM")(_recurrent("lstm", 4))
operator("GRU")(_recurrent("gru", 3))
operator("RNN")(_recurrent("rnn_tanh", 1))
