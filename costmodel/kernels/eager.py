"""Eager PyTorch on a CUDA GPU: the kernels that each operator starts.

An operator's cost says what it asks; here it becomes what runs: hidden copies of strided operands, layout
conversions around tensor-core convolutions, the bias that cuDNN leaves to a kernel of its own, the indices that
max pooling writes besides, the scores that the math path of attention puts into memory. Each rule names where
in PyTorch it stands. Rules hold no fitted constants; how fast a kernel runs is the business of ``timing/``.
"""

from __future__ import annotations

from collections.abc import Iterator

from costmodel.kernels.algorithm import algorithm_of
from costmodel.kernels.contractions import contraction
from costmodel.kernels.operator import (
    RULES,
    Operator,
    copy_kernel,
    dense_order,
    is_channels_last,
    is_contiguous,
    operands_in,
    rule,
)
from costmodel.kernels.plan import Kernel
from costmodel.symbols import product

__all__ = ["eager_kernels"]


def eager_kernels(operator: Operator) -> tuple[Kernel, ...]:
    """Kernels of one operator, in order."""
    if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
        return ()
    rule = RULES.get(operator.name, _default) if operator.hardware.is_gpu else _default
    return tuple(rule(operator))


def _default(operator: Operator) -> Iterator[Kernel]:
    """One kernel that reads its operands and writes its result; strided where their orders differ."""
    algorithm = algorithm_of(operator.op, operator.arguments)
    if operator.cost.matrix_flops:
        yield contraction(operator, algorithm)
        return
    yield operator.kernel(algorithm, access=_access(operator, algorithm))


def _access(operator: Operator, algorithm: str) -> str:
    if algorithm == "reduction":
        return "reduction"
    if algorithm == "pool":
        return "pooling"
    if operator.name in ("gather", "index", "index_select", "embedding", "take_along_dim"):
        return "gather"
    operands = list(operands_in(operator.arguments))
    if operator.out.strides is None and all(t.strides is None for t in operands):
        return "elementwise"
    full = [t for t in operands if t.numel == operator.out.numel]
    orders = {
        tuple(dense_order(t)) if t.strides else tuple(d for d, n in enumerate(t.shape) if n != 1)
        for t in (*full, operator.out)
    }
    return "strided" if len({o for o in orders if len(o) == max(map(len, orders), default=0)}) > 1 else "elementwise"


@rule("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm", "instance_norm")
def _normalization(operator: Operator) -> Iterator[Kernel]:
    """One kernel over rows; a strided input is copied first (``input.expect_contiguous()``)."""
    x = operator.input
    shape = operator.arguments.get("normalized_shape")
    group = operator.arguments.get("num_groups") or operator.arguments.get("group")
    row = product(shape) if shape else x.numel // max(x.shape[0] * (group or 1), 1)
    if not is_contiguous(x):
        yield copy_kernel(operator.op, x)
    yield operator.kernel("normalization", access="layer_norm", row_length=row, count=1)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
def _softmax(operator: Operator) -> Iterator[Kernel]:
    dim = operator.arguments.get("dim", -1)
    yield operator.kernel("softmax", access="softmax", row_length=operator.input.shape[dim])


@rule("max_pool2d", "max_pool1d", "max_pool3d")
def _max_pool(operator: Operator) -> Iterator[Kernel]:
    """CUDA's max pooling always writes the int64 index of each maximum as well."""
    written = operator.cost.bytes_written + 8 * operator.out.numel
    yield operator.kernel("pool", access="pooling", bytes_written=written)


@rule("cat", "stack")
def _cat(operator: Operator) -> Iterator[Kernel]:
    yield operator.kernel("copy", access="cat")


@rule("im2col", "col2im")
def _unfold(operator: Operator) -> Iterator[Kernel]:
    """PyTorch starts one kernel for each sample of the batch (aten/src/ATen/native/cuda/Im2Col.cu)."""
    yield operator.kernel("copy", count=max(operator.input.shape[0], 1))


@rule("upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d")
def _upsample(operator: Operator) -> Iterator[Kernel]:
    """NCHW: a thread for each output pixel walks all N x C planes in turn, so few pixels leave the machine idle."""
    algorithm = "resample" if is_channels_last(operator.out) else "resample_serial"
    yield operator.kernel(algorithm, row_length=product(operator.out.shape[:2]))
