"""Eager PyTorch on a CPU: the kernels that each operator starts.

Convolutions run in oneDNN, whose fast kernels want blocked or channels-last operands. An eager NCHW convolution
therefore reorders its input, its weight and its output in every call; oneDNN caches code, not weights. Matrix
products run in MKL or oneDNN on the matrices as they lie. Which kernel runs is stated here, with its bytes; how
fast it is, in ``timing/cpu.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from costmodel.kernels.algorithm import algorithm_of
from costmodel.kernels.contractions import units
from costmodel.kernels.factorizations import PASSES, factorization_kernel
from costmodel.kernels.operator import (
    LINEAR,
    Operator,
    has_unit_stride,
    in_double,
    is_channels_last,
    is_contiguous,
    is_dense,
    visited_keys,
    window_elements,
)
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import LOOP, Attention, Convolution, Pooling, Product, Shape
from costmodel.symbols import product
from costmodel.tensor import TensorSpec, tensors_in

__all__ = ["CONVOLUTIONS", "convolution_kernels", "cpu_kernels", "in_order", "moved"]

#: Input channels up to which oneDNN's first-layer kernels read a plain NCHW image.
PLAIN_INPUT_CHANNELS = 4
#: Channels in one of oneDNN's blocks.
BLOCKED_CHANNELS = 8
#: Channels a group below which oneDNN has no blocked kernel and falls back to im2col and GEMM.
BLOCKED_GROUP_CHANNELS = 8

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution", "_convolution", "mkldnn_convolution"}
CONVOLUTIONS |= {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_CONVOLUTION_GRADIENTS = {"convolution_backward", "mkldnn_convolution_backward"}
_PRODUCTS = LINEAR | {"addmm", "mm", "bmm", "baddbmm", "matmul", "linalg_vecdot", "mv", "dot", "_int_mm"}
_ATTENTION = {
    "scaled_dot_product_attention",
    "flex_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
}


def cpu_kernels(operator: Operator) -> tuple[Kernel, ...]:
    """Kernels of one eager operator on a CPU, in order; none for a view."""
    if not (operator.cost.launches or operator.cost.flops or operator.cost.bytes):
        return ()
    if operator.name in CONVOLUTIONS:
        return tuple(convolution_kernels(operator))
    if operator.name in _CONVOLUTION_GRADIENTS:
        return tuple(_convolution_gradients(operator))
    if operator.name in _PRODUCTS:
        return tuple(_matrix_product(operator))
    if operator.name in _ATTENTION:
        return (_attention(operator),)
    if operator.name in PASSES:
        return in_double(operator, (factorization_kernel(operator),))
    return in_double(operator, _plain(operator))


# -- contractions --------------------------------------------------------------------------------


def convolution_kernels(operator: Operator, *, channels_last: bool = False) -> Iterator[Kernel]:
    """Reorders of what oneDNN does not take as it lies, around the convolution.

    The activations of a channels-last call stay as they are, and so does an image of up to four channels;
    weights are reordered in every call. ``channels_last`` says that the call is one, whatever the trace's strides are.
    """
    x, weight, out = operator.input, operator.arguments["weight"], operator.out
    plain = not (channels_last or is_channels_last(x) or is_channels_last(out))
    blocked = plain and not _has_ragged_groups(operator, weight)
    if blocked and x.shape[1] > PLAIN_INPUT_CHANNELS:
        yield _reordered(operator, x)
    yield moved(operator, weight, "reorder_weights")
    kernel = _convolution_kernel(operator, weight)
    yield kernel if plain else replace(kernel, access="channels_last")
    if blocked:
        yield _reordered(operator, out)


def _has_ragged_groups(operator: Operator, weight: TensorSpec) -> bool:
    """Groups wider than a block that do not fill their blocks: oneDNN multiplies them as they lie (``gemm:jit``)."""
    groups = operator.arguments.get("groups", 1)
    widths = weight.shape[1], weight.shape[0] // groups
    return groups > 1 and min(widths) > BLOCKED_CHANNELS and any(width % BLOCKED_CHANNELS for width in widths)


def _reordered(operator: Operator, spec: TensorSpec) -> Kernel:
    """Activations into oneDNN's blocks of eight channels, or back.

    Where channels leave a block part empty, oneDNN (3.x, verbose mode) takes ``jit:uni`` instead of ``jit:blk``.
    """
    kernel = moved(operator, spec, "reorder_activations")
    return replace(kernel, access="padded") if spec.shape[1] % BLOCKED_CHANNELS else kernel


def _convolution_kernel(operator: Operator, weight: TensorSpec) -> Kernel:
    """The convolution itself; as a matrix product it has pixels x output channels x window."""
    out, groups = operator.out, operator.arguments.get("groups", 1)
    pixels: int = out.numel // out.shape[1]  # type: ignore[assignment]
    shape = Convolution(Product(pixels, weight.shape[0] // groups, product(weight.shape[1:]), groups, weight.itemsize))  # type: ignore[arg-type]
    algorithm = algorithm_of(operator.op, operator.arguments)
    if algorithm == "grouped_implicit_gemm" and weight.shape[1] < BLOCKED_GROUP_CHANNELS:
        algorithm = "im2col_gemm"
    return _contraction(operator, algorithm, shape)


def _contraction(operator: Operator, algorithm: str, shape: Shape = LOOP) -> Kernel:
    """A kernel of multiply-accumulates on the units that the machine has for the dtype of the run."""
    flops = operator.cost.matrix_flops
    return operator.kernel(algorithm, matrix_flops=flops, shape=shape, **units(operator, "gemm"))


def _convolution_gradients(operator: Operator) -> Iterator[Kernel]:
    """oneDNN's backward by data and by weights, each with reorders of its own of what it does not take as it lies, and
    a sum over pixels for the bias (aten/src/ATen/native/mkldnn/Conv.cpp)."""
    arguments = operator.arguments
    x, weight, gradient = operator.input, arguments["weight"], arguments["grad_output"]
    wants = tuple(arguments.get("output_mask") or (True, True, True))
    last = is_channels_last(x) or is_channels_last(gradient)
    blocked = not last and not _has_ragged_groups(operator, weight)
    algorithm = algorithm_of("aten.convolution", arguments)
    groups: int = arguments.get("groups", 1)
    taps, access = product(weight.shape[2:]), "channels_last" if last else "elementwise"
    positions = x if arguments.get("transposed") else gradient  # a filter is applied at each of these
    work = operator.kernel(
        algorithm, matrix_flops=2 * positions.numel * product(weight.shape[1:]), vector_flops=0, count=1, access=access,
        **units(operator, "gemm"),
    )  # fmt: skip
    if wants[0]:
        if blocked:
            yield _reordered(operator, gradient)
        yield moved(operator, weight, "reorder_weights")
        shape = Product(
            x.numel // x.shape[1], weight.shape[1], weight.shape[0] // groups * taps, groups, weight.itemsize
        )  # type: ignore[arg-type]
        yield replace(work, shape=Convolution(shape), elements=x.numel, bytes_read=gradient.nbytes + weight.nbytes,
                      bytes_written=x.nbytes)  # type: ignore[arg-type]  # fmt: skip
        if blocked:
            yield _reordered(operator, x)
    if wants[1]:
        if blocked:
            yield _reordered(operator, x)
            yield _reordered(operator, gradient)
        shape = Product(weight.shape[1] * taps, weight.shape[0] // groups, gradient.numel // gradient.shape[1], groups,
                        weight.itemsize)  # type: ignore[arg-type]  # fmt: skip
        read = gradient.nbytes + x.nbytes
        yield replace(work, shape=Convolution(shape), elements=weight.numel, bytes_read=read,
                      bytes_written=weight.nbytes, inside=bool(wants[0]))  # type: ignore[arg-type]  # fmt: skip
        yield moved(operator, weight, "reorder_weights")
    if wants[2]:
        yield Kernel(operator.op, "reduction", access="reduction", bytes_read=gradient.nbytes, elements=gradient.numel,
                     bytes_written=gradient.shape[1] * gradient.itemsize)  # type: ignore[arg-type]  # fmt: skip


def moved(operator: Operator, spec: TensorSpec, algorithm: str) -> Kernel:
    """Every element of ``spec`` read once and written once in another order, inside the operator's call."""
    nbytes: int = spec.nbytes  # type: ignore[assignment]
    elements: int = spec.numel  # type: ignore[assignment]
    return Kernel(
        op=operator.op,
        algorithm=algorithm,
        bytes_read=nbytes,
        bytes_written=elements * spec.itemsize,
        elements=elements,
        inside=True,
    )


def _matrix_product(operator: Operator) -> Iterator[Kernel]:
    """MKL's GEMM; operands that it cannot take as they lie are copied first."""
    tensors = [t for t in tensors_in(operator.arguments) if len(t.shape) > 1] or list(tensors_in(operator.arguments))
    second, out = tensors[-1], operator.out
    for tensor in tensors:
        if not _gemm_ready(tensor):
            yield replace(moved(operator, tensor, "strided_copy"), inside=False)
    batch = 1 if operator.name in LINEAR else max(product(out.shape[:-2]), 1) if len(second.shape) > 2 else 1
    n = second.shape[0] if operator.name in LINEAR else out.shape[-1] if len(second.shape) > 1 else 1
    m = max(out.numel // max(n * batch, 1), 1)
    k = operator.cost.matrix_flops // max(2 * m * n * batch, 1)
    algorithm = "gemm" if batch == 1 else "batched_gemm"
    yield _contraction(operator, algorithm, Product(m, n, k, batch, second.itemsize))  # type: ignore[arg-type]


def _gemm_ready(spec: TensorSpec) -> bool:
    """Whether MKL takes the matrices as they lie; of a dense tensor it takes any order."""
    return has_unit_stride(spec) or is_dense(spec)


def _attention(operator: Operator) -> Kernel:
    """Flash attention for CPUs: blocks of the scores stay in L2."""
    query, key = operator.arguments["query"], operator.arguments["key"]
    keys = visited_keys(operator) if operator.name == "flex_attention" else key.shape[-2]
    shape = Attention(
        query.shape[-2],
        keys,
        query.shape[-1],
        product(query.shape[:-2]),
        sequences=query.shape[0],  # type: ignore[arg-type]
    )
    return _contraction(operator, "flash_attention", shape)


# -- everything else -----------------------------------------------------------------------------


def _plain(operator: Operator) -> Iterator[Kernel]:
    """One kernel that reads its operands and writes its result; norms copy a strided input first."""
    algorithm = algorithm_of(operator.op, operator.arguments)
    if algorithm == "normalization" and "batch_norm" not in operator.name and not is_contiguous(operator.input):
        yield replace(moved(operator, operator.input, "strided_copy"), inside=False)
    if operator.cost.matrix_flops:
        yield _contraction(operator, algorithm)
        return
    access = walk(operator, algorithm)
    if algorithm == "copy" and not in_order(operator):
        algorithm = "strided_copy"
    elif algorithm == "elementwise" and not in_order(operator):
        algorithm = "strided_elementwise"
    taps = window_elements(operator)
    if "pool" in operator.name and operator.name.endswith("_backward"):
        # A pass over the gradients: a maximum has one place to go to, an average each pixel of its window.
        places = 1 if "max" in operator.name else max(taps, 1)
        elements = operator.arguments["grad_output"].numel * places
        yield operator.kernel("copy", shape=LOOP, access=access, elements=elements)
        return
    shape = Pooling(taps, is_channels_last(operator.out)) if taps else LOOP
    yield operator.kernel(algorithm, shape=shape, access=access)


def walk(operator: Operator, algorithm: str) -> str:
    """How a kernel walks its operands, which decides its rate beside its name.

    ``elementwise``: all lie as the result does; ``broadcast_rows``: an operand that varies along the fastest dimension
    is repeated along others; ``broadcast_scalars``: one that does not; ``rows``: pieces of a row of the result lie
    together in the operand; ``strided``: they do not; ``channels_last``: a picture whose channels lie fastest, for
    kernels that have another loop for it.
    """
    out = operator.out
    if algorithm in ("elementwise", "copy") and operator.name not in ("cat", "stack"):
        if not in_order(operator):
            return "strided" if algorithm == "elementwise" or not _same_fastest(operator.input, out) else "rows"
        return _broadcast(operator) if algorithm == "elementwise" else "elementwise"
    pictures = [t for t in (out, *tensors_in(operator.arguments)) if len(t.shape) == 4 and product(t.shape[2:]) > 1]
    return "channels_last" if any(t.shape[1] > 1 and is_channels_last(t) for t in pictures) else "elementwise"


def _broadcast(operator: Operator) -> str:
    """Whether a smaller operand is repeated along the fastest dimension of the result, or along slower ones."""
    out, fastest = operator.out, _fastest(operator.out)
    smaller = [t for t in tensors_in(operator.arguments) if 1 < t.numel < out.numel]  # type: ignore[operator]
    if not smaller or fastest is None:
        return "elementwise"
    from_end = fastest - len(out.shape)
    varies = (len(t.shape) >= -from_end and t.shape[from_end] != 1 for t in smaller)
    return "broadcast_rows" if any(varies) else "broadcast_scalars"


def _same_fastest(source: TensorSpec, out: TensorSpec) -> bool:
    """Whether the fastest dimensions of both have the same size and lie without gaps."""
    first, second = _order(source), _order(out)
    return bool(first) and bool(second) and first[-1] == second[-1]


def _fastest(spec: TensorSpec) -> int | None:
    """The dimension along which elements lie next to each other; None for a single element."""
    strides = spec.strides or tuple(product(spec.shape[d + 1 :]) for d in range(len(spec.shape)))
    dims = [d for d, n in enumerate(spec.shape) if n != 1]
    return min(dims, key=lambda d: (strides[d], -d)) if dims else None  # type: ignore[operator]


def in_order(operator: Operator) -> bool:
    """Whether all full-size operands lie in the same order as the result, so that rows are walked as they lie."""
    out = operator.out
    full = [t for t in tensors_in(operator.arguments) if t.numel == out.numel]
    return len({_order(t) for t in (*full, out)}) <= 1


def _order(spec: TensorSpec) -> tuple[int, ...]:
    """Sizes from the slowest to the fastest dimension, those of size 1 left out."""
    strides = spec.strides or tuple(product(spec.shape[d + 1 :]) for d in range(len(spec.shape)))
    dims = (d for d, n in enumerate(spec.shape) if n != 1)
    return tuple(spec.shape[d] for d in sorted(dims, key=lambda d: (-strides[d], d)))  # type: ignore[operator]
