"""Calls that the meta device cannot run, or that say too little: quantized layers, products of sparse matrices.

Each is recorded as a call with the tensors and numbers that its cost follows from.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from costmodel.trace.schema import Schema

if TYPE_CHECKING:
    from costmodel.trace.recorder import Recorder

__all__ = ["packed_weights", "run_special", "special_bytes"]

#: Products whose matrix may be sparse: the positions of the matrix, the dense operand, and what is added.
_SPARSE_PRODUCTS = {
    "aten._sparse_addmm": (1, 2, 0),
    "aten._sparse_mm": (0, 1, None),
    "aten.addmm": (1, 2, 0),
    "aten.mm": (0, 1, None),
    "aten.mv": (0, 1, None),
    "aten.matmul": (0, 1, None),
}
_PREPACKED = frozenset({"quantized.linear_dynamic", "quantized.linear_relu_dynamic", "quantized.linear_dynamic_fp16"})


def run_special(recorder: Recorder, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a special call returns, recorded; NotImplemented where it is none."""
    if schema.op in _SPARSE_PRODUCTS:
        return _sparse_product(recorder, schema, args)
    if schema.op in _PREPACKED:
        return _prepacked_linear(recorder, schema.op, *args[:2])
    if schema.op.startswith("profiler."):
        return func(*args, **kwargs)  # a range that a profiler would show: nothing runs
    return NotImplemented


# -- sparse matrices ----------------------------------------------------------------------------


def _sparse_product(recorder: Recorder, schema: Schema, args: tuple[Any, ...]) -> Any:
    matrix_at, dense_at, added_at = _SPARSE_PRODUCTS[schema.op]
    matrix, dense = args[matrix_at], args[dense_at]
    if matrix.layout is torch.strided or dense.layout is not torch.strided:
        return NotImplemented
    added = None if added_at is None or schema.op == "aten._sparse_addmm" else args[added_at]
    out = torch.empty((matrix.shape[0], *dense.shape[1:]), dtype=dense.dtype, device="meta")
    arguments = {
        "matrix": matrix,
        "dense": dense,
        "nnz": int(matrix._nnz()),
        "index_bytes": _index_bytes(matrix),
        "added": added,
    }
    recorder.record_call("sparse.sparse_mm", arguments, (out,))
    return out


def special_bytes(tensor: torch.Tensor) -> int:
    """Memory [B] of a tensor that is not strided: of a sparse one what it stores, else its elements."""
    if tensor.layout is torch.strided:
        return tensor.numel() * tensor.element_size()
    if tensor.layout in (torch.sparse_coo, torch.sparse_csr):
        values = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()  # rows, where it is hybrid
        return values.numel() * tensor.element_size() + _index_bytes(tensor)
    return tensor.numel() * tensor.element_size()


def _index_bytes(matrix: torch.Tensor) -> int:
    """Bytes that say where the values lie [B]."""
    if matrix.layout is torch.sparse_coo:
        return int(matrix._indices().numel()) * 8
    if matrix.layout is torch.sparse_csr:
        return sum(int(t.numel()) * t.element_size() for t in (matrix.crow_indices(), matrix.col_indices()))
    return int(matrix._nnz()) * 8


# -- prepacked weights --------------------------------------------------------------------------


def packed_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and weight (a quantized tensor) of every layer that keeps it packed, where ``parameters()`` has none."""
    if "torch.ao.nn.quantized.modules.linear" not in sys.modules:  # slow to import, and needed to make one
        return
    from torch.ao.nn.quantized.modules.linear import LinearPackedParams

    for path, child in module.named_modules():
        if isinstance(child, LinearPackedParams):
            weight, bias = child._weight_bias()
            owner = path.rpartition(".")[0]
            yield f"{owner}.weight".lstrip("."), weight
            if bias is not None:
                yield f"{owner}.bias".lstrip("."), bias


def _prepacked_linear(recorder: Recorder, op: str, x: torch.Tensor, packed: Any) -> Any:
    recorder.device.asked = True  # whether the note is right depends on it
    if recorder.device.name == "cuda":
        recorder.note("dynamically quantized layers of torch.ao run on CPUs alone: timed as if this machine had them")
    weight, bias = recorder.once(packed, lambda: _unpacked(packed))
    out = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device="meta")
    recorder.record_call(op, {"input": x, "weight": weight, "bias": bias}, (out,))
    return out


def _unpacked(packed: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(weight, bias) on meta of a layer's packed parameters; an int8 weight as its integers."""
    weight, bias = packed.unpack()
    stored = weight.int_repr().dtype if weight.is_quantized else weight.dtype
    on_meta = torch.empty(weight.shape, dtype=stored, device="meta")
    return on_meta, None if bias is None else torch.empty_like(bias, device="meta")
