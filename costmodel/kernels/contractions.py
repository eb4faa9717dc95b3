"""Contractions in eager PyTorch on a CUDA GPU: convolutions, products, attention, and what runs around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from costmodel.formulas.experts import expected_experts
from costmodel.kernels.algorithm import algorithm_of, engine_for
from costmodel.kernels.operator import (
    LINEAR,
    Operator,
    copy_kernel,
    has_unit_stride,
    is_channels_last,
    is_contiguous,
    rule,
)
from costmodel.kernels.plan import Kernel
from costmodel.kernels.precision import contraction_dtype
from costmodel.kernels.shapes import Convolution, Depthwise, Product, Window
from costmodel.symbols import product
from costmodel.tensor import TensorSpec, tensors_in

__all__ = [
    "PRODUCTS",
    "batched_algorithm",
    "contraction",
    "depthwise_kernel",
    "factors",
    "gemm_ready",
    "packed_groups",
    "padded_copies",
    "pads_channels",
    "units",
]


def contraction(operator: Operator, algorithm: str, **changes: Any) -> Kernel:
    """The kernel of a contraction, on the engine that the machine has for its dtype."""
    cost = operator.cost
    values = {"matrix_flops": cost.matrix_flops, "workspace_bytes": cost.workspace_bytes, **units(operator, algorithm)}
    return operator.kernel(algorithm, **{**values, **changes})


def units(operator: Operator, algorithm: str) -> dict[str, str]:
    """Engine, dtype and accumulate of a contraction, by the dtype of its operands in the run."""
    operand = next((t.dtype for t in tensors_in(operator.arguments) if "float" in t.dtype), "float32")
    wanted = contraction_dtype(operator.op, operator.execution, operand, operator.hardware.has_tf32)
    engine, dtype, accumulate = engine_for(algorithm, wanted, operator.hardware)
    return {"engine": engine, "dtype": dtype, "accumulate": accumulate}


@rule("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "cudnn_convolution")
def _convolution(operator: Operator) -> Iterator[Kernel]:
    """cuDNN: conversion to NHWC, convolution, conversion back, and the bias as an ``add_`` of its own.

    cuDNN's tensor-core kernels want NHWC operands; k x k convolutions of NCHW tensors are converted around the
    kernel (MIOpen's take them as they lie), 1x1 convolutions run as matrix products on NCHW as they are. Depthwise
    kernels add the bias themselves (aten/src/ATen/native/Convolution.cpp).
    """
    weight: TensorSpec = operator.arguments["weight"]
    groups = operator.arguments.get("groups", 1)
    out = operator.out
    algorithm = algorithm_of(operator.op, operator.arguments)
    if not _joinable(operator.input):
        yield copy_kernel(operator.op, operator.input)
    pixels = out.numel // out.shape[1]
    depth = product(weight.shape[1:])
    packed = packed_groups(groups, weight.shape[1])
    depthwise = algorithm == "direct_depthwise"
    shape = Convolution(
        Product(pixels, out.shape[1] // groups * packed, depth * packed, -(-groups // packed), weight.itemsize),  # type: ignore[arg-type]
        Window.of_call(operator.arguments),
        depthwise_kernel(operator, weight) if depthwise else None,
    )
    kernel = contraction(operator, algorithm, shape=shape)
    if algorithm == "gemm" and kernel.engine == "vector" and shape.window is not None:
        # On FMA lanes cuDNN runs 1x1 filters as it does all others, without a split of k.
        kernel = replace(kernel, algorithm="implicit_gemm")
    yield from _with_surroundings(operator, kernel, separate_bias=not depthwise)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(operator: Operator) -> Iterator[Kernel]:
    """The backward pass of a convolution to its data, which is what libraries run: an implicit GEMM for each phase.

    With stride s every s-th pixel of the result meets the same taps of the filter, so each pixel sums up over
    1/s of the taps in each direction: result[pixels, C_out/groups] over k = C_in/groups * taps / strides.
    """
    weight: TensorSpec = operator.arguments["weight"]
    groups, stride = operator.arguments.get("groups", 1), operator.arguments.get("stride", 1)
    out, taps = operator.out, weight.shape[2:]
    strides = product(stride) if isinstance(stride, (list, tuple)) else stride ** len(taps)
    if not _joinable(operator.input):
        yield copy_kernel(operator.op, operator.input)
    algorithm = algorithm_of(operator.op, operator.arguments)
    depthwise = algorithm == "direct_depthwise"
    channels, columns = weight.shape[0] // groups, out.shape[1] // groups
    packed = packed_groups(groups, channels)
    depth = max(1, -(-channels * product(taps) // strides))
    shape = Convolution(
        Product(out.numel // out.shape[1], columns * packed, depth * packed, -(-groups // packed), weight.itemsize),
        depthwise=Depthwise.NATIVE if depthwise else None,
    )
    yield from _with_surroundings(operator, contraction(operator, algorithm, shape=shape), separate_bias=not depthwise)


def _with_surroundings(operator: Operator, kernel: Kernel, *, separate_bias: bool = True) -> Iterator[Kernel]:
    """A convolution's kernel with the conversions and the addition of a bias that its library leaves to others."""
    out, bias = operator.out, operator.arguments.get("bias") if separate_bias else None
    if bias is not None:
        kernel = replace(
            kernel, bytes_read=kernel.bytes_read - bias.nbytes, vector_flops=kernel.vector_flops - out.numel
        )
    wants_nhwc = kernel.engine == "matrix" and kernel.algorithm != "gemm"
    converted = wants_nhwc and operator.hardware.gpu.convolutions.converts_layout and not is_channels_last(out)
    pads = wants_nhwc and not converted and pads_channels(operator)
    if converted:
        yield copy_kernel(operator.op, operator.input, "nchw_to_nhwc", "elementwise")
    elif pads:
        yield from padded_copies(operator.op, operator.input)
    yield kernel
    if converted:
        yield copy_kernel(operator.op, out, "nhwc_to_nchw", "elementwise")
    elif pads:
        yield from padded_copies(operator.op, out)
    if bias is not None:
        yield Kernel(
            op=operator.op,
            algorithm="bias",
            vector_flops=out.numel,  # type: ignore[arg-type]
            bytes_read=out.nbytes + bias.nbytes,
            bytes_written=out.nbytes,  # type: ignore[arg-type]
        )


#: Channels that cuDNN 8's tensor-core kernels for half precision take at a time.
_ALIGNED_CHANNELS = 8


def pads_channels(operator: Operator) -> bool:
    """Whether cuDNN copies channels-last tensors of odd channel counts into aligned ones and back, as the releases of
    PyTorch 1 do (``nhwcAddPaddingKernel``); later ones have kernels for any count."""
    if operator.execution.software.at_least_torch(2, 0) or not operator.hardware.gpu.convolutions.converts_layout:
        return False
    return operator.input.itemsize == 2 and operator.arguments.get("groups", 1) == 1


def padded_copies(op: str, *specs: TensorSpec) -> Iterator[Kernel]:
    """A copy of each tensor whose channels are not aligned, with channels added, or taken away again."""
    for spec in specs:
        if spec.shape[1] % _ALIGNED_CHANNELS:
            wide = -(-spec.shape[1] // _ALIGNED_CHANNELS) * _ALIGNED_CHANNELS
            written = spec.numel // spec.shape[1] * wide * spec.itemsize
            yield Kernel(op, "pad_channels", bytes_read=spec.nbytes, bytes_written=written, elements=spec.numel)  # type: ignore[arg-type]


def packed_groups(groups: int, channels: int) -> int:
    """How many groups one tile of a tensor-core kernel takes side by side, the products between them wasted.

    Narrow groups are laid block-diagonally until about 32 channels fill the depth of a tile.
    """
    return max(1, min(groups, 32 // max(channels, 1)))


#: The most elements of a tensor that 32-bit indices reach.
INT32_MAX = 2**31 - 1


def depthwise_kernel(operator: Operator, weight: TensorSpec) -> Depthwise:
    """Whose depthwise kernel runs, after ``use_cudnn_depthwise`` of PyTorch's Convolution.cpp.

    channels_last fp16 goes to cuDNN, whose fast kernels are square and count elements in 32 bits; NCHW fp16 too
    where cuDNN is known to be faster: square kernels of 1, 3, 5, at least 32 channels, width at least 7, stride 1 or
    (2, with many channels). All else is PyTorch's own.
    """
    x = operator.input
    if x.dtype not in ("float16", "bfloat16"):
        return Depthwise.NATIVE
    height, width = weight.shape[-2:]
    if is_channels_last(x) or is_channels_last(operator.out):
        if max(x.numel, operator.out.numel) > INT32_MAX:  # type: ignore[call-overload,operator]
            return Depthwise.NHWC_WIDE
        return Depthwise.NHWC if height == width <= 7 else Depthwise.NHWC_LARGE
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
            return Depthwise.NCHW
        if strides == {2} and (channels >= 512 or (channels >= 256 and columns >= 28)):
            return Depthwise.NCHW
    return Depthwise.NATIVE


def _joinable(spec: TensorSpec) -> bool:
    """Whether cuDNN takes the tensor as it lies: row-major or channels last."""
    return is_contiguous(spec) or is_channels_last(spec)


#: Operators that are one product of two factors.
PRODUCTS = (*LINEAR, "addmm", "mm", "bmm", "baddbmm", "matmul", "linalg_vecdot", "mv", "dot", "_int_mm")


@rule(*PRODUCTS)
def _matrix_product(operator: Operator) -> Iterator[Kernel]:
    """cuBLAS; a bias rides in the epilogue of ``addmm``, which ``linear`` takes for 2-d and contiguous 3-d inputs.

    Other inputs go through ``matmul`` with an ``add_`` after it, and strided ones are copied first
    (aten/src/ATen/native/Linear.cpp).
    """
    first, second = factors(operator)
    out: TensorSpec = operator.out
    bias: Any = operator.arguments.get("bias")
    n = out.shape[-1] if len(second.shape) > 1 else 1
    k = first.shape[-1]
    batch = product(second.shape[:-2]) if len(second.shape) > 2 else 1
    if operator.name in LINEAR:
        n, batch = second.shape[0], 1
    elif len(first.shape) > 2:
        batch = max(batch, product(first.shape[:-2])) if len(second.shape) > 2 else 1
    rows = max(out.numel // max(n * batch, 1), 1)
    for factor in (first, second):
        if not gemm_ready(factor):
            yield copy_kernel(operator.op, factor)
    fused = bias is None or operator.name != "linear" or len(first.shape) == 2 or is_contiguous(first)
    algorithm = "gemm" if batch == 1 else batched_algorithm(operator, second.itemsize)
    kernel = contraction(operator, algorithm, shape=Product(rows, n, k, batch, second.itemsize))  # type: ignore[arg-type]
    if not fused:
        kernel = replace(
            kernel, bytes_read=kernel.bytes_read - bias.nbytes, vector_flops=kernel.vector_flops - out.numel
        )
    yield kernel
    if not fused:
        nbytes: int = out.nbytes  # type: ignore[assignment]
        yield Kernel(op=operator.op, algorithm="bias", vector_flops=out.numel, bytes_read=nbytes, bytes_written=nbytes)  # type: ignore[arg-type]


@rule("grouped_mm")
def _grouped_product(operator: Operator) -> Iterator[Kernel]:
    """A product for each expert that is met, all in one kernel, its rows spread evenly over them.

    How many are met is what the formula expects: the bytes of weights that it counts, over those of one expert.
    """
    x, out = operator.input, operator.out
    weight, chosen = operator.arguments["weight"], operator.arguments["chosen"]
    met = expected_experts(weight.shape[-3], chosen, x.shape[0] // chosen)
    rows = -(-x.shape[0] // met)
    shape = Product(rows, out.shape[-1], x.shape[-1], met, weight.itemsize)
    yield contraction(operator, "batched_gemm", shape=shape)


def batched_algorithm(operator: Operator, item_bytes: int) -> str:
    """Whose kernels multiply batches of matrices: in half precision those of cuBLAS 11, with which PyTorch 1 was
    built, take twice as long as later ones."""
    early = item_bytes == 2 and not operator.execution.software.at_least_torch(2, 0)
    return "early_batched_gemm" if early and operator.hardware.gpu.convolutions.converts_layout else "batched_gemm"


def factors(operator: Operator) -> tuple[TensorSpec, TensorSpec]:
    """What a product multiplies, by the names of its schema."""
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
    tensors = list(tensors_in(arguments))
    return tensors[0], tensors[-1]


def gemm_ready(spec: TensorSpec) -> bool:
    """Whether cuBLAS takes the matrices as they lie: a contiguous row or column, and one step for the batch."""
    if spec.strides is None:
        return True
    batch = [(n, s) for n, s in zip(spec.shape[:-2], spec.strides[:-2], strict=True) if n != 1]
    return has_unit_stride(spec) and all(s == n2 * s2 for (_, s), (n2, s2) in pairwise(batch))
