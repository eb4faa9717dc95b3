"""Convolutions: plain, grouped, depthwise, dilated, transposed, deformable, in 1, 2 and 3 dimensions.

Conventions

* A MAC is counted for every tap of every output element, those that fall on padding included
  (``torch.utils.flop_counter`` counts the same). Dilation changes none of the counts.
* The weight's shape carries the groups: (C_out, C_in/groups, *K), and (C_in, C_out/groups, *K) for a
  transposed convolution. groups = C_in is a depthwise convolution.
* ``bias`` adds one vector FLOP per output element.
* ``workspace_bytes`` is the im2col matrix, (C_in * prod K) rows x prod(out spatial) columns per image
  (grouped: one matrix of C_in/groups * prod K rows per group, as large together), in the input's dtype.
  A 1x1 convolution of stride 1 without padding needs none: there the input *is* the matrix. Articles that
  give the matrix as (prod K) x (C_in * prod out) name the same number of elements, but not a matrix that
  a GEMM can multiply by the weight.
* A transposed convolution is the same GEMM the other way round: its workspace is the matrix that col2im
  folds into the output, (C_out * prod K) x prod(in spatial).
* The gradients by input and by weight have the forward's MACs each.
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.cost import Cost
from costmodel.formulas.operands import Specs, contraction_cost, nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec

__all__ = [
    "conv_tbc",
    "conv_transpose",
    "convolution",
    "convolution_backward",
    "convolution_forward",
    "cudnn_convolution_add_relu",
    "cudnn_convolution_relu",
    "deform_conv2d",
    "deform_conv2d_backward",
]

Sizes = int | Sequence[Dim] | str


def _all_are(value: int, sizes: Sizes) -> bool:
    """Whether one size, or each of several, is the number ``value``; padding by name never moves a 1x1 kernel."""
    if isinstance(sizes, (list, tuple)):
        return all(size == value for size in sizes)
    return isinstance(sizes, str) or sizes == value


def _is_matrix_product(kernel: Sequence[Dim], stride: Sizes, padding: Sizes) -> bool:
    """1x1, stride 1, no padding: the tensor is the GEMM's matrix as it stands."""
    return _all_are(1, kernel) and _all_are(1, stride) and _all_are(0, padding)


def _columns(unfolded: TensorSpec, positions: TensorSpec, kernel: Sequence[Dim]) -> Dim:
    """Elements of the im2col matrix: every channel of ``unfolded`` x every tap x every position of the other side."""
    rank = len(kernel)
    return product(unfolded.shape[:-rank]) * product(kernel) * product(positions.shape[-rank:])


@formula(
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
    "aten.mkldnn_convolution",
    "aten.cudnn_convolution",
    "aten.miopen_convolution",
    "aten.miopen_depthwise_convolution",
    "aten._slow_conv2d_forward",
    "aten.slow_conv3d_forward",
    "aten.thnn_conv2d",
    "aten.slow_conv3d",
    "aten.slow_conv_dilated2d",
    "aten.slow_conv_dilated3d",
    "aten._conv_depthwise2d",
    "aten.conv_depthwise3d",
)
def convolution(
    input: TensorSpec,
    weight: TensorSpec,
    bias: TensorSpec | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    *,
    out: TensorSpec,
) -> Cost:
    """out[N, C_out, *] = sum over C_in/groups and K of input[N, C_in, *] * weight[C_out, C_in/groups, *K] + bias[C_out]

    Each output element is a dot product of length C_in/groups * prod(K). ``stride`` and ``padding`` only
    decide whether the input must be unfolded; the output's size is in ``out``.

    >>> from costmodel.tensor import f32
    >>> cost = convolution(f32(1, 3, 5, 5), f32(4, 3, 3, 3), out=f32(1, 4, 3, 3))
    >>> cost.macs                    # 4*3*3 outputs, 3*3*3 MACs each
    972
    >>> cost.workspace_bytes         # a matrix of 3*3*3 rows and 3*3 columns, 4 B each
    972
    >>> convolution(f32(1, 3, 5, 5), f32(4, 3, 1, 1), out=f32(1, 4, 5, 5)).workspace_bytes
    0
    """
    kernel = weight.shape[2:]
    as_it_stands = _is_matrix_product(kernel, stride, padding)
    return contraction_cost(
        out.numel * product(weight.shape[1:]),
        input, weight, bias,
        out=out,
        vector_flops=0 if bias is None else out.numel,
        workspace_bytes=0 if as_it_stands else _columns(input, out, kernel) * input.itemsize,
    )  # fmt: skip


@formula(
    "aten.conv_transpose1d",
    "aten.conv_transpose2d",
    "aten.conv_transpose3d",
    "aten.cudnn_convolution_transpose",
    "aten.miopen_convolution_transpose",
    "aten.slow_conv_transpose2d",
    "aten.slow_conv_transpose3d",
)
def conv_transpose(
    input: TensorSpec,
    weight: TensorSpec,
    bias: TensorSpec | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    *,
    out: TensorSpec,
) -> Cost:
    """Every input element is multiplied into C_out/groups * prod(K) output elements: weight[C_in, C_out/groups, *K].

    The convolution whose gradient this is has the roles of input and output swapped, and as many MACs.

    >>> from costmodel.tensor import f32
    >>> cost = conv_transpose(f32(1, 3, 2, 2), f32(3, 4, 2, 2), stride=[2, 2], out=f32(1, 4, 4, 4))
    >>> cost.macs                    # 3*2*2 inputs, 4*2*2 MACs each
    192
    >>> cost.workspace_bytes         # a matrix of 4*2*2 rows and 2*2 columns, 4 B each
    256
    """
    kernel = weight.shape[2:]
    as_it_stands = _is_matrix_product(kernel, stride, padding) and _all_are(0, output_padding)
    return contraction_cost(
        input.numel * product(weight.shape[1:]),
        input, weight, bias,
        out=out,
        vector_flops=0 if bias is None else out.numel,
        workspace_bytes=0 if as_it_stands else _columns(out, input, kernel) * out.itemsize,
    )  # fmt: skip


@formula("aten.convolution", "aten._convolution", "aten.convolution_overrideable")
def convolution_forward(
    input: TensorSpec,
    weight: TensorSpec,
    bias: TensorSpec | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    transposed: bool = False,
    output_padding: Sizes = 0,
    *,
    out: TensorSpec,
) -> Cost:
    """The dispatcher's one convolution: plain or transposed.

    >>> from costmodel.tensor import f32
    >>> convolution_forward(f32(1, 3, 2, 2), f32(3, 4, 2, 2), transposed=True, stride=[2, 2], out=f32(1, 4, 4, 4)).macs
    192
    """
    if transposed:
        return conv_transpose(input, weight, bias, stride, padding, output_padding, out=out)
    return convolution(input, weight, bias, stride, padding, out=out)


@formula("aten.cudnn_convolution_relu", "aten.miopen_convolution_relu")
def cudnn_convolution_relu(
    input: TensorSpec,
    weight: TensorSpec,
    bias: TensorSpec | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    *,
    out: TensorSpec,
) -> Cost:
    """max(convolution + bias, 0): one comparison per output element besides.

    >>> from costmodel.tensor import f32
    >>> cudnn_convolution_relu(f32(1, 3, 5, 5), f32(4, 3, 3, 3), f32(4), out=f32(1, 4, 3, 3)).vector_flops   # 2 * 4*3*3
    72
    """
    return convolution(input, weight, bias, stride, padding, out=out) + Cost(vector_flops=out.numel)


@formula("aten.cudnn_convolution_add_relu", "aten.miopen_convolution_add_relu")
def cudnn_convolution_add_relu(
    input: TensorSpec,
    weight: TensorSpec,
    z: TensorSpec,
    alpha: float | None = None,
    bias: TensorSpec | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    *,
    out: TensorSpec,
) -> Cost:
    """max(convolution + alpha * z + bias, 0): an addition and a comparison per element; alpha other than 1 a product.

    >>> from costmodel.tensor import f32
    >>> cudnn_convolution_add_relu(f32(1, 3, 5, 5), f32(4, 3, 3, 3), f32(1, 4, 3, 3), out=f32(1, 4, 3, 3)).vector_flops
    72
    """
    per_element = 2 if alpha is None or alpha == 1 else 3
    besides = Cost(vector_flops=per_element * out.numel, bytes_read=z.nbytes)
    return convolution(input, weight, bias, stride, padding, out=out) + besides


@formula("aten.conv_tbc")
def conv_tbc(input: TensorSpec, weight: TensorSpec, bias: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[T', N, C_out] from input[T, N, C_in] and weight[K, C_in, C_out]: K * C_in MACs per element, and a bias.

    It runs as K matrix products, one a tap, on views of the input, so it needs no workspace.

    >>> from costmodel.tensor import f32
    >>> conv_tbc(f32(7, 2, 3), f32(3, 3, 4), f32(4), out=f32(5, 2, 4)).macs        # 5*2*4 outputs, 3*3 MACs each
    360
    """
    macs = out.numel * weight.shape[0] * weight.shape[1]
    return contraction_cost(macs, input, weight, bias, out=out, vector_flops=out.numel)


@formula("torchvision.deform_conv2d")
def deform_conv2d(
    input: TensorSpec,
    weight: TensorSpec,
    offset: TensorSpec,
    mask: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    use_mask: bool = True,
    *,
    out: TensorSpec,
) -> Cost:
    """Deformable convolution (Dai et al. 2017, arXiv:1703.06211; with a mask v2, Zhu et al. 2018, arXiv:1811.11168).

    The convolution's MACs, on a column matrix that is sampled bilinearly where the offsets point:

    * for each sampling point, offset[N, 2 * offset_groups * K_h * K_w, H, W] / 2, 12 FLOP, shared by the channels of
      an offset group: two coordinates (2 additions), their floors (2), the distances to the four neighbours (4)
      and the four products that weigh them (4);
    * for each element of the column matrix, N * C_in * K_h * K_w * H * W, 7 FLOP: 4 products and 3 additions;
      the mask, mask[N, offset_groups * K_h * K_w, H, W], multiplies each once more.

    The column matrix is always made: it is the workspace, even for a 1x1 kernel.

    >>> from costmodel.tensor import f32
    >>> offset, mask, bias, out = f32(1, 18, 3, 3), f32(1, 9, 3, 3), f32(4), f32(1, 4, 3, 3)
    >>> cost = deform_conv2d(f32(1, 3, 5, 5), f32(4, 3, 3, 3), offset, mask, bias, out=out)
    >>> cost.macs                    # as the plain convolution: 4*3*3 outputs, 3*3*3 MACs each
    972
    >>> cost.vector_flops            # 9*3*3 points * 12 + 3*9*3*3 column elements * (7 + 1) + 4*3*3 biases
    2952
    """
    columns = _columns(input, out, weight.shape[2:])
    per_column_element = 8 if use_mask and mask is not None else 7
    return contraction_cost(
        out.numel * product(weight.shape[1:]),
        input, weight, offset, mask if use_mask else None, bias,
        out=out,
        vector_flops=6 * offset.numel + per_column_element * columns + (0 if bias is None else out.numel),
        workspace_bytes=columns * input.itemsize,
    )  # fmt: skip


@formula("aten.convolution_backward", "aten.convolution_backward_overrideable")
def convolution_backward(
    grad_output: TensorSpec,
    input: TensorSpec,
    weight: TensorSpec,
    bias_sizes: Sequence[Dim] | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    transposed: bool = False,
    output_padding: Sizes = 0,
    output_mask: Sequence[bool] = (True, True, True),
    *,
    out: Specs,
) -> Cost:
    """Gradients of a convolution by its input (dgrad), weight (wgrad) and bias, those that ``output_mask`` asks for.

    Every MAC of the forward, out += input * weight, is met again in each of the two: grad_input += grad_output * weight
    and grad_weight += input * grad_output. So dgrad and wgrad have the forward's MACs each, grouped, dilated and
    transposed ones too. (``torch.utils.flop_counter`` says the same but for the wgrad of grouped convolutions, which it
    counts ``groups`` times over.) A bias's gradient is a sum over images and positions: N * prod(out) - 1 additions a
    channel. Both products work on the forward's column matrix, one after the other: the workspace is the same.

    >>> from costmodel.tensor import f32
    >>> x, w, g = f32(1, 3, 5, 5), f32(4, 3, 3, 3), f32(1, 4, 3, 3)
    >>> cost = convolution_backward(g, x, w, [4], out=(x, w, f32(4)))
    >>> cost.macs, cost.vector_flops                    # twice the forward's 972; 4 sums of 3*3 numbers
    (1944, 32)
    >>> convolution_backward(g, x, w, output_mask=[False, True, False], out=(w,)).macs     # a first layer: wgrad alone
    972
    """
    dgrad, wgrad, by_bias = output_mask
    forward = convolution_forward(
        input, weight, None, stride, padding, transposed, output_padding, out=TensorSpec(grad_output.shape, input.dtype)
    )
    return Cost(
        matrix_flops=forward.matrix_flops * (dgrad + wgrad),
        vector_flops=grad_output.numel - grad_output.shape[1] if by_bias else 0,
        bytes_read=nbytes(grad_output, weight if dgrad else None, input if wgrad else None),
        bytes_written=nbytes(out),
        launches=dgrad + wgrad + by_bias,
        activations=(input.numel if dgrad else 0) + (weight.numel if wgrad else 0),
        workspace_bytes=forward.workspace_bytes if dgrad or wgrad else 0,
    )


@formula("torchvision._deform_conv2d_backward")
def deform_conv2d_backward(
    grad: TensorSpec,
    input: TensorSpec,
    weight: TensorSpec,
    offset: TensorSpec,
    mask: TensorSpec,
    bias: TensorSpec,
    use_mask: bool = True,
    *,
    out: Specs,
) -> Cost:
    """Gradients of :func:`deform_conv2d` by all its operands, as torchvision computes them, asked for or not.

    Twice the forward's MACs: the column matrix's gradient, and the weight's. Sampling points are placed and weighed as
    in the forward, 12 FLOP. For each element of the column matrix, its gradient is spread over four pixels, a product
    and a sum each (8), and for each of them is multiplied by the pixel, and that by each axis's other weight into the
    offset's gradient (4 * 5). A mask multiplies it before (1), and gets the sampled value (7) times it, summed (2).
    The bias is a sum over images and positions.

    >>> from costmodel.tensor import f32
    >>> x, w, offset, mask = f32(1, 3, 5, 5), f32(4, 3, 3, 3), f32(1, 18, 3, 3), f32(1, 9, 3, 3)
    >>> bias, g = f32(4), f32(1, 4, 3, 3)
    >>> cost = deform_conv2d_backward(g, x, w, offset, mask, bias, out=(x, w, offset, mask, bias))
    >>> cost.macs                    # twice 4*3*3 outputs, 3*3*3 MACs each
    1944
    >>> cost.vector_flops            # 9*3*3 points * 12 + 3*9*3*3 column elements * 38 + 4 sums of 9
    10238
    """
    columns = _columns(input, grad, weight.shape[2:])
    per_column_element = 8 + 20 + (10 if use_mask else 0)
    return Cost(
        matrix_flops=4 * grad.numel * product(weight.shape[1:]),
        vector_flops=6 * offset.numel + per_column_element * columns + grad.numel - grad.shape[1],
        bytes_read=nbytes(grad, input, weight, offset, mask if use_mask else None),
        bytes_written=nbytes(out),
        launches=5,
        activations=columns + weight.numel,
        workspace_bytes=columns * input.itemsize,
    )
