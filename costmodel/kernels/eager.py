"""Eager PyTorch on a CUDA GPU: the kernels that each operator starts.

An operator's cost says what it asks; here it becomes what runs: hidden copies of strided operands, layout
conversions around tensor-core convolutions, the bias that cuDNN leaves to a kernel of its own, the indices that
max pooling writes besides, the scores that the math path of attention puts into memory. Each rule names where
in PyTorch it stands. Rules hold no fitted constants; how fast a kernel runs is the business of ``timing/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from costmodel.cost import Cost
from costmodel.hardware import HardwareProfile
from costmodel.kernels.algorithm import algorithm_of, engine_for
from costmodel.kernels.plan import Execution, Kernel
from costmodel.kernels.precision import contraction_dtype
from costmodel.symbols import product
from costmodel.tensor import TensorSpec

__all__ = ["Operator", "eager_kernels", "is_channels_last", "is_dense"]


@dataclass(frozen=True, slots=True)
class Operator:
    """One call with the dtypes of the run: everything that decides its kernels."""

    op: str
    arguments: dict[str, Any]
    results: Any
    cost: Cost
    execution: Execution
    hardware: HardwareProfile

    @property
    def name(self) -> str:
        return self.op.rpartition(".")[2]

    @property
    def input(self) -> TensorSpec:
        return self.arguments["input"]  # type: ignore[no-any-return]

    @property
    def out(self) -> TensorSpec:
        return self.results[0] if isinstance(self.results, (tuple, list)) else self.results  # type: ignore[no-any-return]

    def kernel(self, algorithm: str, **changes: Any) -> Kernel:
        """A kernel with the operator's own FLOPs and bytes, unless ``changes`` say otherwise."""
        cost = self.cost
        values: dict[str, Any] = {
            "vector_flops": cost.vector_flops,
            "bytes_read": cost.bytes_read,
            "bytes_written": cost.bytes_written,
            "count": cost.launches,
            "elements": self.out.numel,
        }
        return Kernel(op=self.op, algorithm=algorithm, **{**values, **changes})


def _dense_order(spec: TensorSpec) -> list[int]:
    """Dimensions from the slowest to the fastest, size-1 dimensions left out."""
    strides = spec.strides or ()
    return sorted((d for d, size in enumerate(spec.shape) if size != 1), key=lambda d: (-strides[d], d))  # type: ignore[operator]


def is_dense(spec: TensorSpec) -> bool:
    """Whether the elements lie without gaps, in whatever order of dimensions.

    >>> is_dense(TensorSpec((2, 3), strides=(1, 2))), is_dense(TensorSpec((2, 3), strides=(6, 1)))
    (True, False)
    """
    if spec.strides is None:
        return True
    expected: Any = 1
    for d in reversed(_dense_order(spec)):
        if spec.strides[d] != expected:
            return False
        expected = expected * spec.shape[d]
    return True


def is_contiguous(spec: TensorSpec) -> bool:
    """Whether the elements lie in row-major order without gaps."""
    return spec.strides is None or (
        is_dense(spec) and _dense_order(spec) == [d for d, n in enumerate(spec.shape) if n != 1]
    )


def is_channels_last(spec: TensorSpec) -> bool:
    """Whether a 4-d tensor lies as (N, H, W, C): channels fastest.

    >>> is_channels_last(TensorSpec((2, 3, 4, 4), strides=(48, 1, 12, 3))), is_channels_last(TensorSpec((2, 3, 4, 4)))
    (True, False)
    """
    if len(spec.shape) != 4 or spec.strides is None:
        return False
    return spec.strides[1] == 1 and is_dense(spec)


def _copy(op: str, spec: TensorSpec, algorithm: str = "contiguous_copy", access: str = "strided") -> Kernel:
    """A copy into another order: every element read and written once."""
    read: int = spec.nbytes  # type: ignore[assignment]
    elements: int = spec.numel  # type: ignore[assignment]
    written = elements * spec.itemsize
    return Kernel(op=op, algorithm=algorithm, bytes_read=read, bytes_written=written, access=access, elements=elements)


Rule = Callable[[Operator], Iterator[Kernel]]
_RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, function))
        return function

    return register


def eager_kernels(operator: Operator) -> tuple[Kernel, ...]:
    """Kernels of one operator, in order."""
    if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
        return ()
    rule = _RULES.get(operator.name, _default) if operator.hardware.is_gpu else _default
    return tuple(rule(operator))


def _default(operator: Operator) -> Iterator[Kernel]:
    """One kernel that reads its operands and writes its result; strided where their orders differ."""
    algorithm = algorithm_of(operator.op, operator.arguments)
    if operator.cost.matrix_flops:
        yield _contraction(operator, algorithm)
        return
    yield operator.kernel(algorithm, access=_access(operator, algorithm))


def _access(operator: Operator, algorithm: str) -> str:
    if algorithm == "reduction":
        return "reduction"
    if algorithm == "pool":
        return "pooling"
    if operator.name in ("gather", "index", "index_select", "embedding", "take_along_dim"):
        return "gather"
    full = [t for t in _operands(operator.arguments) if t.numel == operator.out.numel]
    orders = {
        tuple(_dense_order(t)) if t.strides else tuple(d for d, n in enumerate(t.shape) if n != 1)
        for t in (*full, operator.out)
    }
    return "strided" if len({o for o in orders if len(o) == max(map(len, orders), default=0)}) > 1 else "elementwise"


def _operands(value: Any) -> Iterator[TensorSpec]:
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _operands(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _operands(item)


# -- contractions --------------------------------------------------------------------------------


def _contraction(operator: Operator, algorithm: str, **changes: Any) -> Kernel:
    operand = next((t.dtype for t in _operands(operator.arguments) if "float" in t.dtype), "float32")
    dtype = contraction_dtype(operator.op, operator.execution, operand, operator.hardware.has_tf32)
    engine, dtype, accumulate = engine_for(algorithm, dtype, operator.hardware)
    values = {
        "matrix_flops": operator.cost.matrix_flops,
        "workspace_bytes": operator.cost.workspace_bytes,
        "engine": engine,
        "dtype": dtype,
        "accumulate": accumulate,
    }
    return operator.kernel(algorithm, **{**values, **changes})


@_rule("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "cudnn_convolution")
def _convolution(operator: Operator) -> Iterator[Kernel]:
    """cuDNN: conversion to NHWC, convolution, conversion back, and the bias as an ``add_`` of its own.

    Tensor-core kernels want NHWC operands; k x k convolutions of NCHW tensors are converted around the
    kernel, 1x1 convolutions run as matrix products on NCHW as they are. Depthwise kernels add the bias
    themselves (aten/src/ATen/native/Convolution.cpp).
    """
    weight: TensorSpec = operator.arguments["weight"]
    groups = operator.arguments.get("groups", 1)
    out, bias = operator.out, operator.arguments.get("bias")
    algorithm = algorithm_of(operator.op, operator.arguments)
    if not _joinable(operator.input):
        yield _copy(operator.op, operator.input)
    pixels = out.numel // out.shape[1]
    depth = product(weight.shape[1:])
    packed = _packed_groups(groups, weight.shape[1])
    geometry = (pixels, out.shape[1] // groups * packed, depth * packed, -(-groups // packed))
    kernel = _contraction(operator, algorithm, gemm=geometry, window=_window(operator))
    depthwise = algorithm == "direct_depthwise"
    if depthwise:
        kernel = replace(kernel, variant=_depthwise_variant(operator, weight))
    if bias is not None and not depthwise:
        kernel = replace(
            kernel, bytes_read=kernel.bytes_read - bias.nbytes, vector_flops=kernel.vector_flops - out.numel
        )
    converted = kernel.engine == "matrix" and algorithm != "gemm" and not is_channels_last(out)
    if converted:
        yield _copy(operator.op, operator.input, "nchw_to_nhwc", "elementwise")
    yield kernel
    if converted:
        yield _copy(operator.op, out, "nhwc_to_nchw", "elementwise")
    if bias is not None and not depthwise:
        yield Kernel(
            op=operator.op,
            algorithm="bias",
            vector_flops=out.numel,  # type: ignore[arg-type]
            bytes_read=out.nbytes + bias.nbytes,
            bytes_written=out.nbytes,  # type: ignore[arg-type]
        )


def _packed_groups(groups: int, channels: int) -> int:
    """How many groups one tile of a tensor-core kernel takes side by side, the products between them wasted.

    Narrow groups are laid block-diagonally until about 32 channels fill the depth of a tile.
    """
    return max(1, min(groups, 32 // max(channels, 1)))


def _depthwise_variant(operator: Operator, weight: TensorSpec) -> str:
    """Whose depthwise kernel runs, after ``use_cudnn_depthwise`` of PyTorch's Convolution.cpp.

    channels_last fp16 goes to cuDNN; NCHW fp16 too where cuDNN is known to be faster: square kernels of 1, 3, 5,
    at least 32 channels, width at least 7, stride 1 or (2, with many channels). All else is PyTorch's own.
    """
    x = operator.input
    if x.dtype not in ("float16", "bfloat16"):
        return "depthwise_native"
    height, width = weight.shape[-2:]
    if is_channels_last(x) or is_channels_last(operator.out):
        return "depthwise_nhwc" if max(height, width) <= 7 else "depthwise_nhwc_large"
    stride = operator.arguments.get("stride", 1)
    strides = {stride} if isinstance(stride, int) else set(stride)
    channels, columns = x.shape[1], x.shape[-1]
    if (
        len(x.shape) == 4
        and height == width
        and height in (1, 3, 5)
        and channels >= 32
        and columns >= 7
        and x.dtype == "float16"
    ):
        if strides == {1}:
            return "depthwise_nchw"
        if strides == {2} and (channels >= 512 or (channels >= 256 and columns >= 28)):
            return "depthwise_nchw"
    return "depthwise_native"


def _window(operator: Operator) -> tuple[int, ...] | None:
    """Sizes of a 2-d convolution, one number each; None for other ranks and padding by name."""
    x, weight = operator.input, operator.arguments["weight"]
    if len(x.shape) != 4 or len(weight.shape) != 4:
        return None
    pairs = [
        operator.arguments.get(name, default) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    ]
    if any(isinstance(p, str) for p in pairs):
        pairs[1] = [(k - 1) // 2 for k in weight.shape[2:]] if pairs[1] == "same" else 0
    flat = [v for p in pairs for v in ([p, p] if isinstance(p, int) else (list(p) * 2)[:2])]
    groups = operator.arguments.get("groups", 1)
    return (*x.shape, weight.shape[0], *weight.shape[2:], *flat, groups)


def _joinable(spec: TensorSpec) -> bool:
    """Whether cuDNN takes the tensor as it lies: row-major or channels last."""
    return is_contiguous(spec) or is_channels_last(spec)


@_rule("linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "linalg_vecdot", "mv", "dot")
def _matrix_product(operator: Operator) -> Iterator[Kernel]:
    """cuBLAS; a bias rides in the epilogue of ``addmm``, which ``linear`` takes for 2-d and contiguous 3-d inputs.

    Other inputs go through ``matmul`` with an ``add_`` after it, and strided ones are copied first
    (aten/src/ATen/native/Linear.cpp).
    """
    first, second = _factors(operator)
    out: TensorSpec = operator.out
    bias: Any = operator.arguments.get("bias")
    n = out.shape[-1] if len(second.shape) > 1 else 1
    k = first.shape[-1]
    batch = product(second.shape[:-2]) if len(second.shape) > 2 else 1
    if operator.name == "linear":
        n, batch = second.shape[0], 1
    elif len(first.shape) > 2:
        batch = max(batch, product(first.shape[:-2])) if len(second.shape) > 2 else 1
    rows = max(out.numel // max(n * batch, 1), 1)
    for factor in (first, second):
        if not _gemm_ready(factor):
            yield _copy(operator.op, factor)
    fused = bias is None or operator.name != "linear" or len(first.shape) == 2 or is_contiguous(first)
    kernel = _contraction(operator, "gemm" if batch == 1 else "batched_gemm", gemm=(rows, n, k, batch))
    if not fused:
        kernel = replace(
            kernel, bytes_read=kernel.bytes_read - bias.nbytes, vector_flops=kernel.vector_flops - out.numel
        )
    yield kernel
    if not fused:
        nbytes: int = out.nbytes  # type: ignore[assignment]
        yield Kernel(op=operator.op, algorithm="bias", vector_flops=out.numel, bytes_read=nbytes, bytes_written=nbytes)  # type: ignore[arg-type]


def _factors(operator: Operator) -> tuple[TensorSpec, TensorSpec]:
    arguments = operator.arguments
    for left, right in (
        ("input", "weight"),
        ("mat1", "mat2"),
        ("batch1", "batch2"),
        ("input", "mat2"),
        ("input", "other"),
    ):
        if left in arguments and right in arguments:
            return arguments[left], arguments[right]
    tensors = list(_operands(arguments))
    return tensors[0], tensors[-1]


def _gemm_ready(spec: TensorSpec) -> bool:
    """Whether cuBLAS takes the matrices as they lie: a contiguous row or column, and one step for the batch."""
    if spec.strides is None or len(spec.shape) < 2:
        return True
    if 1 not in spec.strides[-2:] and 1 not in spec.shape[-2:]:
        return False
    batch = [(n, s) for n, s in zip(spec.shape[:-2], spec.strides[:-2], strict=True) if n != 1]
    return all(s == n2 * s2 for (_, s), (n2, s2) in pairwise(batch))


@_rule("scaled_dot_product_attention")
def _attention(operator: Operator) -> Iterator[Kernel]:
    """Flash or memory-efficient attention for 4-d operands: scores stay on chip. Others take the math path."""
    query, key = operator.arguments["query"], operator.arguments["key"]
    batch = product(query.shape[:-2])
    length, keys, width = query.shape[-2], key.shape[-2], query.shape[-1]
    if len(query.shape) == 4:
        # Flash attention takes half precision without a mask; all else of four dimensions the efficient kernel.
        masked = operator.arguments.get("attn_mask") is not None or query.itemsize > 2
        yield _contraction(
            operator, "efficient_attention" if masked else "flash_attention", gemm=(length, keys, width, batch)
        )
        return
    yield from _math_attention(operator, batch, length, keys, width)


def _math_attention(operator: Operator, batch: int, length: int, keys: int, width: int) -> Iterator[Kernel]:
    """Two batched products with a softmax between them; the scores lie in memory.

    Up to torch 2.4 all of it has the dtype of the operands. Later releases cast half-precision operands to fp32,
    multiply in fp32 (TF32 where that is allowed), and take ``_safe_softmax``, which looks for fully masked rows:
    ``eq``, ``all`` and ``where`` besides the softmax (aten/src/ATen/native/transformers/attention.cpp).
    """
    query, key, value = (operator.arguments[n] for n in ("query", "key", "value"))
    deep = value.shape[-1]
    widened = operator.execution.at_least_torch(2, 5) and query.itemsize < 4
    size = 4 if widened else query.itemsize
    scores = batch * length * keys
    for operand in (query, key, value):
        if not widened and not _gemm_ready(operand):
            yield _copy(operator.op, operand)
    if widened:
        for operand in (query, key, value):
            yield _pass(operator, "cast", operand.nbytes, 4 * operand.numel, operand.numel)
    yield _scores_product(operator, (length, keys, width, batch), size, widened)
    flops: int = operator.cost.vector_flops  # type: ignore[assignment]
    softmax = _pass(operator, "softmax", scores * size, scores * size, scores)
    yield replace(softmax, access="softmax", row_length=keys, vector_flops=flops)
    if widened:
        yield _pass(operator, "elementwise", scores * size, scores, scores)
        yield _pass(operator, "reduction", scores, scores // keys, scores // keys)
        yield _pass(operator, "elementwise", scores * size, scores * size, scores)
    yield _scores_product(operator, (length, deep, keys, batch), size, widened)
    if widened:
        yield _pass(operator, "cast", 4 * operator.out.numel, operator.out.nbytes, operator.out.numel)


def _pass(operator: Operator, algorithm: str, read: Any, written: Any, elements: Any) -> Kernel:
    access = "reduction" if algorithm == "reduction" else "elementwise"
    return Kernel(
        op=operator.op, algorithm=algorithm, bytes_read=read, bytes_written=written, elements=elements, access=access
    )


def _scores_product(operator: Operator, gemm: tuple[int, int, int, int], size: int, widened: bool) -> Kernel:
    """One of the two batched products of the math path, operands of ``size`` bytes."""
    m, n, k, batch = gemm
    read, written = size * batch * (m * k + k * n), size * batch * m * n
    kernel = _contraction(
        operator, "batched_gemm", gemm=gemm, vector_flops=0, matrix_flops=2 * batch * m * n * k,
        bytes_read=read, bytes_written=written, elements=batch * m * n,
    )  # fmt: skip
    if not widened:
        return kernel
    dtype = contraction_dtype(operator.op, operator.execution, "float32", operator.hardware.has_tf32)
    engine, dtype, accumulate = engine_for("batched_gemm", dtype, operator.hardware)
    return replace(kernel, engine=engine, dtype=dtype, accumulate=accumulate)


# -- normalization, pooling, movement --------------------------------------------------------------


@_rule("layer_norm", "native_layer_norm", "group_norm", "native_group_norm", "rms_norm", "instance_norm")
def _normalization(operator: Operator) -> Iterator[Kernel]:
    """One kernel over rows; a strided input is copied first (``input.expect_contiguous()``)."""
    x = operator.input
    shape = operator.arguments.get("normalized_shape")
    group = operator.arguments.get("num_groups") or operator.arguments.get("group")
    row = product(shape) if shape else x.numel // max(x.shape[0] * (group or 1), 1)
    if not is_contiguous(x):
        yield _copy(operator.op, x)
    yield operator.kernel("normalization", access="layer_norm", row_length=row, count=1)


@_rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
def _softmax(operator: Operator) -> Iterator[Kernel]:
    dim = operator.arguments.get("dim", -1)
    yield operator.kernel("softmax", access="softmax", row_length=operator.input.shape[dim])


@_rule("max_pool2d", "max_pool1d", "max_pool3d")
def _max_pool(operator: Operator) -> Iterator[Kernel]:
    """CUDA's max pooling always writes the int64 index of each maximum as well."""
    written = operator.cost.bytes_written + 8 * operator.out.numel
    yield operator.kernel("pool", access="pooling", bytes_written=written)


@_rule("cat", "stack")
def _cat(operator: Operator) -> Iterator[Kernel]:
    yield operator.kernel("copy", access="cat")


@_rule("im2col", "col2im")
def _unfold(operator: Operator) -> Iterator[Kernel]:
    """PyTorch starts one kernel for each sample of the batch (aten/src/ATen/native/cuda/Im2Col.cu)."""
    yield operator.kernel("copy", count=max(operator.input.shape[0], 1))


@_rule("upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d")
def _upsample(operator: Operator) -> Iterator[Kernel]:
    """NCHW: a thread for each output pixel walks all N x C planes in turn, so few pixels leave the machine idle."""
    algorithm = "resample" if is_channels_last(operator.out) else "resample_serial"
    yield operator.kernel(algorithm, row_length=product(operator.out.shape[:2]))
