"""The backward pass in eager PyTorch on a GPU: the kernels that each of autograd's operators starts.

A convolution has two: one for its data (dgrad: output channels are summed up for each input pixel) and one for its
weight (wgrad: all pixels of all images are summed up for each weight); each converts its operands again where the
library wants another layout, and the bias is a sum over pixels of its own. Normalizations reduce before they can
write, so that they read their input and its gradient twice. Rules hold no fitted constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from costmodel.kernels.contractions import contraction, depthwise_kernel, packed_groups, padded_copies, pads_channels
from costmodel.kernels.operator import (
    Operator,
    channel_blocks,
    copy_kernel,
    is_channels_last,
    is_contiguous,
    rule,
    window_elements,
)
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import LOOP, Channels, Convolution, Pooling, Product, Rows, Window
from costmodel.symbols import product
from costmodel.tensor import TensorSpec, tensors_in

__all__ = ["DEPTHWISE_GRADIENTS"]

#: Kernels of depthwise convolutions' gradients: of the data and of the weight.
DEPTHWISE_GRADIENTS = ("depthwise_dgrad", "depthwise_wgrad")


# -- convolutions --------------------------------------------------------------------------------


@rule("convolution_backward", "_slow_conv2d_backward", "cudnn_convolution_backward", "miopen_convolution_backward")
def _convolution_backward(operator: Operator) -> Iterator[Kernel]:
    """Gradients of data, weight and bias, those that ``output_mask`` asks for (native/Convolution.cpp)."""
    arguments = operator.arguments
    gradient: TensorSpec = arguments["grad_output"]
    wants = arguments.get("output_mask") or (True, True, True)
    if not (is_contiguous(gradient) or is_channels_last(gradient)):
        yield copy_kernel(operator.op, gradient)
    groups = arguments.get("groups", 1)
    depthwise = groups > 1 and groups == operator.input.shape[1]
    if wants[0]:
        yield from _data_gradient(operator, depthwise=depthwise)
    if wants[1]:
        yield from _weight_gradient(operator, depthwise=depthwise)
    if wants[2]:
        yield Kernel(
            operator.op, "reduction", access="reduction", vector_flops=gradient.numel,
            bytes_read=gradient.nbytes, bytes_written=gradient.shape[1] * gradient.itemsize, elements=gradient.shape[1],
        )  # type: ignore[arg-type]  # fmt: skip


def _macs(operator: Operator) -> Any:
    """Multiply-accumulates of the convolution itself, which each of the two gradients has as well."""
    weight, x, gradient = (operator.arguments[name] for name in ("weight", "input", "grad_output"))
    positions = x if operator.arguments.get("transposed") else gradient  # a filter is applied at each of these
    return positions.numel * product(weight.shape[1:])


def _data_gradient(operator: Operator, *, depthwise: bool) -> Iterator[Kernel]:
    """dx[input pixels, C_in/g] over k = C_out/g * taps, of which each pixel meets 1/stride in each direction.

    At stride 1 it is the convolution of the gradient with the filter turned around, by whatever algorithm a forward
    convolution may take; a transposed convolution's is a plain convolution of the gradient.
    """
    arguments = operator.arguments
    weight, x, gradient = arguments["weight"], operator.input, arguments["grad_output"]
    groups, taps = arguments.get("groups", 1), product(weight.shape[2:])
    if arguments.get("transposed"):
        columns, depth, window = weight.shape[0] // groups, weight.shape[1] * taps, None
    else:
        strides = product(arguments["stride"]) if len(arguments["stride"]) > 1 else arguments["stride"][0]
        columns, depth = weight.shape[1], max(1, -(-weight.shape[0] // groups * taps // strides))
        window = _turned(Window.of_call(arguments)) if strides == 1 else None
    packed = packed_groups(groups, weight.shape[0] // groups)
    shape = Convolution(
        Product(x.numel // x.shape[1], columns * packed, depth * packed, -(-groups // packed), weight.itemsize),
        window,
        depthwise_kernel(operator, weight) if depthwise else None,
    )
    kernel = _gradient_kernel(operator, DEPTHWISE_GRADIENTS[0] if depthwise else "implicit_gemm_dgrad", shape)
    kernel = replace(kernel, bytes_read=gradient.nbytes + weight.nbytes, bytes_written=x.nbytes, elements=x.numel)
    in_phases = not (depthwise or arguments.get("transposed") or operator.hardware.gpu.convolutions.converts_layout)
    if in_phases and product(arguments["stride"]) > 1:
        yield from _by_phases(operator, kernel)
        return
    yield from _converted(operator, kernel, before=(gradient,), after=x)


def _by_phases(operator: Operator, kernel: Kernel) -> Iterator[Kernel]:
    """MIOpen's gradient of the data at a stride (``ImplicitGemmBwdDataV4R1``): a product for each phase of input pixels
    that meets a tap, one after the other, ahead of which the result is set to zero where some meet none. Rows of an
    image lie one after the other, so a phase writes every s-th element: s times the sectors."""
    arguments, x, shape = operator.arguments, operator.input, kernel.shape
    assert isinstance(shape, Convolution)  # noqa: S101 - as made above
    strides = tuple(arguments["stride"]) * (2 if len(arguments["stride"]) == 1 else 1)
    taps = arguments["weight"].shape[2:]
    met = product(min(k, s) for k, s in zip(taps, strides, strict=False))
    if met < product(strides):
        yield Kernel(operator.op, "elementwise", bytes_written=x.nbytes, elements=x.numel)  # type: ignore[arg-type]
    depth: Any = -(-shape.product.k * product(strides) // met)
    positions: Any = -(-shape.product.m // product(strides))
    part = replace(
        kernel,
        shape=replace(shape, product=replace(shape.product, m=positions, k=depth)),
        matrix_flops=kernel.matrix_flops // met, bytes_read=kernel.bytes_read // met,
        bytes_written=strides[-1] * kernel.bytes_written // product(strides), elements=positions * x.shape[1],
    )  # fmt: skip
    yield from [part] * int(met)


def _weight_gradient(operator: Operator, *, depthwise: bool) -> Iterator[Kernel]:
    """dw[C_in/g * taps, C_out/g] over k = all output pixels of all images: k is split to fill the machine."""
    arguments = operator.arguments
    weight, x, gradient = arguments["weight"], operator.input, arguments["grad_output"]
    groups = arguments.get("groups", 1)
    rows, columns = product(weight.shape[1:]), weight.shape[0] // groups
    deep = x if arguments.get("transposed") else gradient
    packed = packed_groups(groups, weight.shape[1])
    shape = Convolution(
        Product(rows * packed, columns * packed, deep.numel // deep.shape[1], -(-groups // packed), weight.itemsize),
        None if arguments.get("transposed") else Window.of_call(arguments),
        depthwise_kernel(operator, weight) if depthwise else None,
    )
    algorithm = DEPTHWISE_GRADIENTS[1] if depthwise else "implicit_gemm_wgrad"
    if not depthwise and _is_direct(operator, groups, weight.shape[1], columns):
        algorithm = "grouped_direct_wgrad"
    kernel = _gradient_kernel(operator, algorithm, shape)
    read = gradient.nbytes + x.nbytes
    kernel = replace(kernel, bytes_read=read, bytes_written=weight.nbytes, elements=weight.numel)
    yield from _converted(operator, kernel, before=(gradient, x))


def _is_direct(operator: Operator, groups: int, channels: int, columns: int) -> bool:
    """Whether a grouped convolution's weight gradient takes cuDNN's direct kernel (``wgrad2d_grouped_direct_kernel``),
    which multiplies on FMA lanes: half precision in groups that its tensor-core kernels are not made for.

    Those serve narrow groups, and 32 groups or a multiple of up to 32 channels each, that put out as many channels as
    they take in, by steps of timm's networks on an RTX 3090: a ResNeXt-101 of 32 groups trains as fast as its products
    suggest up to 32x8d and three times slower at 32x16d, ResNeSts of 2 groups three times slower, SENet-154, whose 64
    groups double the channels, two times. What decides about groups of 16 channels is not known: some are slow too.
    """
    serves = channels == columns and (channels <= 16 or (groups % 32 == 0 and channels <= 32))
    in_half = operator.input.itemsize == 2 and operator.hardware.gpu.convolutions.converts_layout
    return groups > 1 and not serves and in_half


def _gradient_kernel(operator: Operator, algorithm: str, shape: Convolution) -> Kernel:
    """One of the two gradients on the units that the machine has for it."""
    on_lanes = (*DEPTHWISE_GRADIENTS, "grouped_direct_wgrad")
    units_of = "direct_depthwise" if algorithm in on_lanes else algorithm
    kernel = contraction(operator, units_of, shape=shape, matrix_flops=2 * _macs(operator), vector_flops=0)
    return replace(kernel, algorithm=algorithm, count=1, workspace_bytes=0)


def _turned(window: Window | None) -> Window | None:
    """The convolution that a gradient at stride 1 is: of the output's maps into the input's, padded to its size."""
    if window is None:
        return None
    (height, width), (kernel_h, kernel_w) = window.out_size, window.kernel
    padding = (
        window.dilation[0] * (kernel_h - 1) - window.padding[0],
        window.dilation[1] * (kernel_w - 1) - window.padding[1],
    )
    return replace(
        window, in_channels=window.out_channels, out_channels=window.in_channels, height=height, width=width,
        padding=padding,
    )  # fmt: skip


def _converted(
    operator: Operator, kernel: Kernel, *, before: Sequence[TensorSpec], after: TensorSpec | None = None
) -> Iterator[Kernel]:
    """The kernel with conversions to NHWC and back, as around a forward convolution of NCHW tensors."""
    gradient: TensorSpec = operator.arguments["grad_output"]
    wants_nhwc = kernel.engine == "matrix" and operator.hardware.gpu.convolutions.converts_layout
    converted = wants_nhwc and not _is_nhwc(operator, gradient) and not _is_product(operator)
    pads = kernel.engine == "matrix" and _is_nhwc(operator, gradient) and pads_channels(operator)
    if converted:
        for operand in before:
            yield copy_kernel(operator.op, operand, "nchw_to_nhwc", "elementwise")
    elif pads:
        yield from padded_copies(operator.op, *before)
    yield kernel
    if after is None:
        return
    if converted:
        yield copy_kernel(operator.op, after, "nhwc_to_nchw", "elementwise")
    elif pads:
        yield from padded_copies(operator.op, after)


def _is_nhwc(operator: Operator, gradient: TensorSpec) -> bool:
    return is_channels_last(gradient) or is_channels_last(operator.input)


def _is_product(operator: Operator) -> bool:
    """Whether the convolution runs as a matrix product on the tensors as they lie: 1x1 at stride 1."""
    arguments = operator.arguments
    weight, stride = arguments["weight"], arguments["stride"]
    return product(weight.shape[2:]) == 1 and all(s == 1 for s in stride) and arguments.get("groups", 1) == 1


# -- normalizations ------------------------------------------------------------------------------


def _given(*specs: Any) -> Any:
    """B of the tensors among ``specs``."""
    return sum(spec.nbytes for spec in tensors_in(specs))


@rule("native_batch_norm_backward", "cudnn_batch_norm_backward", "miopen_batch_norm_backward", "batch_norm_backward")
def _batch_norm_backward(operator: Operator) -> Iterator[Kernel]:
    """Two sums over each channel, then the gradient: input and its gradient are read twice.

    ``batch_norm_backward_reduce`` and ``batch_norm_backward_elemt`` in native/cuda/Normalization.cuh; cuDNN's kernels
    read as much in one launch.
    """
    arguments = operator.arguments
    gradient, x = next(tensors_in(arguments.get("grad_out", arguments.get("grad_output")))), operator.input
    both = gradient.nbytes + x.nbytes
    sums, shape = 8 * x.shape[1], channel_blocks(operator)
    yield Kernel(operator.op, "normalization", access="statistics", bytes_read=both, bytes_written=sums,
                 vector_flops=4 * x.numel, elements=x.shape[1], shape=shape)  # type: ignore[arg-type]  # fmt: skip
    if (arguments.get("output_mask") or (True,))[0]:
        yield Kernel(operator.op, "normalization", bytes_read=both + sums, bytes_written=x.nbytes,
                     vector_flops=5 * x.numel, elements=x.numel, shape=shape)  # type: ignore[arg-type]  # fmt: skip


@rule("native_layer_norm_backward", "_fused_rms_norm_backward")
def _layer_norm_backward(operator: Operator) -> Iterator[Kernel]:
    """``layer_norm_grad_input_kernel``, a block a row, then ``GammaBetaBackward``, sums over all rows of each column
    (native/cuda/layer_norm_kernel.cu): both read the input and its gradient."""
    arguments = operator.arguments
    gradient, x = arguments["grad_out"], operator.input
    wants = tuple(arguments.get("output_mask") or (True, True, True))
    row = product(arguments["normalized_shape"])
    for operand in (gradient, x):
        if not is_contiguous(operand):
            yield copy_kernel(operator.op, operand)
    both, statistics = gradient.nbytes + x.nbytes, 8 * (x.numel // row)
    if wants[0]:
        yield Kernel(operator.op, "normalization", access="layer_norm", shape=Rows(row), bytes_read=both + statistics,
                     bytes_written=x.numel * x.itemsize, vector_flops=8 * x.numel, elements=x.numel)  # type: ignore[arg-type]  # fmt: skip
    if any(wants[1:]):
        few_blocks = not operator.execution.software.at_least_torch(1, 13)  # later releases split the rows as well
        yield Kernel(operator.op, "normalization", access="columns", bytes_read=both + statistics,
                     bytes_written=2 * row * x.itemsize, vector_flops=4 * x.numel, elements=row,
                     shape=Channels(row) if few_blocks else LOOP)  # type: ignore[arg-type]  # fmt: skip


@rule("native_group_norm_backward")
def _group_norm_backward(operator: Operator) -> Iterator[Kernel]:
    """Sums over each channel of each image (``ComputeInternalGradients``), then the gradient: native/cuda/
    group_norm_kernel.cu. Gradients of scale and shift are sums over images of what the first has made."""
    arguments = operator.arguments
    gradient, x = arguments["grad_out"], operator.input
    for operand in (gradient, x):
        if not is_contiguous(operand):
            yield copy_kernel(operator.op, operand)
    both, sums = gradient.nbytes + x.nbytes, 8 * x.shape[0] * x.shape[1]
    yield Kernel(operator.op, "normalization", access="reduction", bytes_read=both, bytes_written=sums,
                 vector_flops=3 * x.numel, elements=x.shape[0] * x.shape[1])  # type: ignore[arg-type]  # fmt: skip
    yield Kernel(operator.op, "normalization", bytes_read=sums, bytes_written=sums, elements=x.shape[0] * x.shape[1],
                 count=2)  # type: ignore[arg-type]  # fmt: skip
    yield Kernel(operator.op, "normalization", bytes_read=both + sums, bytes_written=x.nbytes,
                 vector_flops=4 * x.numel, elements=x.numel)  # type: ignore[arg-type]  # fmt: skip
    if is_channels_last(x):
        yield copy_kernel(operator.op, x)  # the gradient as the convolution before wants it


@rule("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(operator: Operator) -> Iterator[Kernel]:
    """A row in registers or walked by a block, as forward: reads the gradient and the result."""
    dim = operator.arguments.get("dim", -1)
    yield operator.kernel("softmax", access="softmax", shape=Rows(operator.out.shape[dim]), count=1)


# -- pooling, embedding and other scatters -------------------------------------------------------


@rule("max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward")
def _max_pool_backward(operator: Operator) -> Iterator[Kernel]:
    """The gradient is cleared, then filled where an int64 index says so (native/cuda/DilatedMaxPool2d.cu)."""
    written = operator.out.nbytes
    yield _cleared(operator, written)
    read = _given(operator.arguments["grad_output"], operator.arguments.get("indices"))
    yield operator.kernel("pool", access="pooling", bytes_read=read, bytes_written=written, count=1)


@rule("avg_pool2d_backward", "avg_pool3d_backward")
def _avg_pool_backward(operator: Operator) -> Iterator[Kernel]:
    """A thread an input pixel, which walks the windows that hold it: native/cuda/AveragePool2d.cu."""
    stride = operator.arguments.get("stride") or operator.arguments.get("kernel_size", 1)
    strides = stride**2 if isinstance(stride, int) else product(tuple(stride))
    taps = max(1, window_elements(operator) // max(strides, 1))
    shape = Pooling(taps, is_channels_last(operator.out))
    read = _given(operator.arguments["grad_output"])
    yield operator.kernel("pool", access="pooling", bytes_read=read, shape=shape, count=1)


@rule("embedding_dense_backward")
def _embedding_backward(operator: Operator) -> Iterator[Kernel]:
    """The table's gradient is cleared, indices are sorted, and rows of one index are added up: native/cuda/
    Embedding.cu and EmbeddingBackwardKernel.cu."""
    gradient, indices = operator.arguments["grad_output"], operator.arguments["indices"]
    yield _cleared(operator, operator.out.nbytes)
    count = indices.numel
    yield Kernel(operator.op, "sort", bytes_read=_SORT_PASSES * 16 * count, bytes_written=_SORT_PASSES * 16 * count,
                 elements=count, count=_SORT_LAUNCHES)  # fmt: skip
    yield Kernel(operator.op, "gather", access="gather", bytes_read=gradient.nbytes + 8 * count,
                 bytes_written=min(gradient.nbytes, operator.out.nbytes), elements=gradient.numel)  # fmt: skip


#: cub's radix sort of int64 keys with int64 positions: passes over both, and launches with those that find the runs of
#: equal keys.
_SORT_PASSES, _SORT_LAUNCHES = 4, 8


@rule("index_put", "index_put_", "_index_put_impl", "_index_put_impl_", "_unsafe_index_put")
def _index_put(operator: Operator) -> Iterator[Kernel]:
    """Without accumulation a scatter; with it, as the backward of indexing has it, indices are sorted first and runs of
    equal ones added up (native/cuda/Indexing.cu)."""
    if not operator.arguments.get("accumulate"):
        yield operator.kernel("copy", access="gather", count=1)
        return
    values = operator.arguments["values"]
    indices = [t for t in tensors_in(operator.arguments.get("indices")) if "int" in t.dtype]
    count = max((t.numel for t in indices), default=1)
    yield Kernel(operator.op, "sort", bytes_read=_SORT_PASSES * 16 * count, bytes_written=_SORT_PASSES * 16 * count,
                 elements=count, count=_SORT_LAUNCHES)  # fmt: skip
    yield Kernel(operator.op, "gather", access="gather", bytes_read=2 * values.nbytes + 8 * count,
                 bytes_written=values.nbytes, elements=values.numel)  # fmt: skip


@rule("slice_backward", "select_backward", "diagonal_backward", "unfold_backward")
def _placed(operator: Operator) -> Iterator[Kernel]:
    """Zeros of the whole tensor, and the gradient copied to its place in them."""
    gradient = next(tensors_in(operator.arguments.get("grad_output", operator.arguments.get("grad_in"))))
    yield _cleared(operator, operator.out.nbytes)
    written = gradient.numel * gradient.itemsize
    yield Kernel(operator.op, "copy", access="strided", bytes_read=gradient.nbytes, bytes_written=written,
                 elements=gradient.numel)  # type: ignore[arg-type]  # fmt: skip


@rule("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "upsample_trilinear3d_backward")
def _upsample_backward(operator: Operator) -> Iterator[Kernel]:
    """The gradient is cleared, then each output adds to the four (or more) inputs that it was made of."""
    yield _cleared(operator, operator.out.nbytes)
    read = _given(operator.arguments["grad_output"])
    yield operator.kernel("resample", access="gather", bytes_read=read, bytes_written=read, count=1)


def _cleared(operator: Operator, nbytes: Any) -> Kernel:
    """A memset of what the kernels after it add to."""
    return Kernel(operator.op, "clear", bytes_written=nbytes, elements=operator.out.numel)  # type: ignore[arg-type]


@rule("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward")
def _reflection_backward(operator: Operator) -> Iterator[Kernel]:
    """The gradient is cleared, then every pixel is added to the one that it mirrors, by an atomic addition
    (native/cuda/ReflectionPad.cu). Tensors are NCHW: others are copied before."""
    gradient: TensorSpec = operator.arguments["grad_output"]
    if not is_contiguous(gradient):
        yield copy_kernel(operator.op, gradient)
    yield _cleared(operator, operator.out.nbytes)
    yield operator.kernel("copy", access="gather", bytes_read=gradient.nbytes, bytes_written=gradient.nbytes,
                          elements=gradient.numel, count=1)  # fmt: skip
