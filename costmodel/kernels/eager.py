"""Eager PyTorch on a CUDA GPU: the kernels that each operator starts.

An operator's cost says what it asks; here it becomes what runs: hidden copies of strided operands, layout
conversions around tensor-core convolutions, the bias that cuDNN leaves to a kernel of its own, the indices that
max pooling writes besides, the scores that the math path of attention puts into memory. Each rule names where
in PyTorch it stands. Rules hold no fitted constants; how fast a kernel runs is the business of ``timing/``.
"""

from __future__ import annotations

from collections.abc import Iterator

from costmodel.kernels import attention_training, backward, factorizations  # noqa: F401 - their rules
from costmodel.kernels.algorithm import algorithm_of
from costmodel.kernels.contractions import contraction
from costmodel.kernels.operator import (
    RULES,
    Operator,
    channel_blocks,
    copy_kernel,
    dense_order,
    in_double,
    is_channels_last,
    is_contiguous,
    rule,
    window_elements,
)
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Planes, Pooling, Rows
from costmodel.symbols import product
from costmodel.tensor import tensors_in

__all__ = ["eager_kernels", "plain_kernels"]


def eager_kernels(operator: Operator) -> tuple[Kernel, ...]:
    """Kernels of one operator, in order; none for a view."""
    if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
        return ()
    return in_double(operator, RULES.get(operator.name, _default)(operator))


def plain_kernels(operator: Operator) -> tuple[Kernel, ...]:
    """One kernel an operator, on machines whose libraries are not known; none for a view."""
    if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
        return ()
    return in_double(operator, _default(operator))


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
    operands = list(tensors_in(operator.arguments))
    if operator.out.strides is None and all(t.strides is None for t in operands):
        return "elementwise"
    full = [t for t in operands if t.numel == operator.out.numel]
    orders = {
        tuple(dense_order(t)) if t.strides else tuple(d for d, n in enumerate(t.shape) if n != 1)
        for t in (*full, operator.out)
    }
    return "strided" if len({o for o in orders if len(o) == max(map(len, orders), default=0)}) > 1 else "elementwise"


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def _row_normalization(operator: Operator) -> Iterator[Kernel]:
    """One kernel over rows; a strided input is copied first (``input.expect_contiguous()``)."""
    x = operator.input
    if not is_contiguous(x):
        yield copy_kernel(operator.op, x)
    row = product(operator.arguments["normalized_shape"])
    yield operator.kernel("normalization", access="layer_norm", shape=Rows(row), count=1)


@rule("group_norm", "native_group_norm")
def _group_norm(operator: Operator) -> Iterator[Kernel]:
    """Moments of each group, a scale and shift for each channel, then both applied: the input is read twice.

    ``RowwiseMomentsCUDAKernel``, ``ComputeFusedParamsCUDAKernel`` and an element-wise kernel in
    aten/src/ATen/native/cuda/group_norm_kernel.cu. Input and result are NCHW: a channels-last input is copied before,
    and the result again by the convolution that reads it.
    """
    x = operator.input
    if not is_contiguous(x):
        yield copy_kernel(operator.op, x)
    groups = operator.arguments.get("num_groups") or operator.arguments["group"]
    images, channels = x.shape[0], x.shape[1]
    moments, scales = 8 * images * groups, 8 * images * channels  # two fp32 values each
    nbytes: int = x.nbytes  # type: ignore[assignment]
    yield Kernel(operator.op, "normalization", access="reduction", bytes_read=nbytes, bytes_written=moments,
                 vector_flops=3 * x.numel, elements=images * groups)  # fmt: skip
    yield Kernel(operator.op, "normalization", bytes_read=moments, bytes_written=scales, elements=images * channels)
    yield operator.kernel("normalization", bytes_read=nbytes + scales, vector_flops=2 * x.numel, count=1)
    if is_channels_last(x):
        yield copy_kernel(operator.op, operator.out)


@rule("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
      "_batch_norm_no_update", "cudnn_batch_norm", "miopen_batch_norm")  # fmt: skip
def _batch_norm(operator: Operator) -> Iterator[Kernel]:
    """One kernel with the channel's statistics, ``batch_norm_transform_input`` in native/cuda/Normalization.cuh; in
    training one before it makes them, ``batch_norm_collect_statistics``, which reads the input once more."""
    if operator.arguments.get("training"):
        x, shape = operator.input, channel_blocks(operator)
        moments = 8 * x.shape[1]  # a mean and a variance in fp32
        yield Kernel(operator.op, "normalization", access="statistics", bytes_read=x.nbytes, bytes_written=moments,
                     vector_flops=4 * x.numel, elements=x.shape[1], shape=shape)  # type: ignore[arg-type]  # fmt: skip
        nbytes: int = x.nbytes  # type: ignore[assignment]
        yield operator.kernel("normalization", vector_flops=2 * x.numel, bytes_read=nbytes + moments,
                              bytes_written=nbytes, count=1, shape=shape)  # fmt: skip
    else:
        yield operator.kernel("normalization", count=1)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
def _softmax(operator: Operator) -> Iterator[Kernel]:
    dim = operator.arguments.get("dim", -1)
    yield operator.kernel("softmax", access="softmax", shape=Rows(operator.input.shape[dim]))


@rule("max_pool2d", "max_pool1d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(operator: Operator) -> Iterator[Kernel]:
    """CUDA's max pooling always writes the int64 index of each maximum as well."""
    written = operator.out.numel * (operator.out.itemsize + 8)
    yield operator.kernel("pool", access="pooling", bytes_written=written)


@rule("avg_pool2d", "avg_pool3d", "avg_pool1d")
def _avg_pool(operator: Operator) -> Iterator[Kernel]:
    """A thread an output, which walks its window tap by tap: native/cuda/AveragePool2d.cu."""
    shape = Pooling(window_elements(operator), is_channels_last(operator.out))
    yield operator.kernel("pool", access="pooling", shape=shape)


@rule("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell")
def _fused_cell(operator: Operator) -> Iterator[Kernel]:
    """The gates' sums, nonlinearities and the new state in one kernel a unit (native/cuda/RNN.cu)."""
    yield operator.kernel("elementwise")


@rule("_thnn_fused_lstm_cell_backward_impl", "_thnn_fused_gru_cell_backward")
def _fused_cell_gradient(operator: Operator) -> Iterator[Kernel]:
    """Its gradient likewise; of biases a sum over the batch for each (``at::sum``)."""
    sums = operator.cost.launches - 1
    yield operator.kernel("elementwise", count=1)
    gates = operator.out
    for _ in range(sums):  # type: ignore[arg-type]
        yield Kernel(operator.op, "reduction", access="columns", bytes_read=gates.nbytes, elements=gates.shape[-1],
                     bytes_written=gates.shape[-1] * gates.itemsize)  # type: ignore[arg-type]  # fmt: skip


@rule("cat", "stack")
def _cat(operator: Operator) -> Iterator[Kernel]:
    yield operator.kernel("copy", access="cat")


@rule("sparse_mm")
def _sparse_product(operator: Operator) -> Iterator[Kernel]:
    """cuSPARSE: a row of the dense matrix is fetched for each element that the sparse one stores."""
    dense, cost = operator.arguments["dense"], operator.cost
    rows = operator.arguments["nnz"] * (dense.nbytes // max(dense.shape[0], 1))
    yield operator.kernel(
        "gather", matrix_flops=cost.matrix_flops, bytes_read=cost.bytes_read - dense.nbytes + rows, dtype="fp32"
    )


@rule("im2col", "col2im")
def _unfold(operator: Operator) -> Iterator[Kernel]:
    """PyTorch starts one kernel for each sample of the batch (aten/src/ATen/native/cuda/Im2Col.cu)."""
    yield operator.kernel("copy", count=max(operator.input.shape[0], 1))


@rule("upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d")
def _upsample(operator: Operator) -> Iterator[Kernel]:
    """NCHW: a thread for each output pixel walks all N x C planes in turn, so few pixels leave the machine idle."""
    algorithm = "resample" if is_channels_last(operator.out) else "resample_serial"
    yield operator.kernel(algorithm, shape=Planes(product(operator.out.shape[:2])))
