"""Resampling: upsampling, sampling on a grid, regions of interest.

A linear or cubic sample weighs t taps along each axis, innermost axis first: t multiplications and t - 1
additions, which reduces t values to one. Weights that depend on the position along one axis only are
computed once per row and column and are not counted; nor is the arithmetic of indices.

Backward the same taps are walked the other way: a gradient is multiplied by each weight of the outermost axis, each
product by each weight of the next, and the last products are added to the map, which starts as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import cost
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, ceil_div, maximum
from costmodel.tensor import TensorSpec

__all__ = ["spread", "weighted"]


def weighted(taps: Sequence[Dim]) -> Dim:
    """FLOP of one sample with this many taps along each axis.

    >>> weighted([2]), weighted([2, 2]), weighted([2, 2, 2]), weighted([4, 4])   # linear, bi-, trilinear, bicubic
    (3, 9, 21, 35)
    """
    *outer, last = taps
    return 2 * last - 1 + last * weighted(outer) if outer else 2 * last - 1


def spread(taps: Sequence[Dim]) -> Dim:
    """FLOP of spreading one gradient over this many taps along each axis: the transpose of :func:`weighted`.

    >>> spread([2]), spread([2, 2]), spread([2, 2, 2]), spread([4, 4])           # 2+2, 2+4+4, 2+4+8+8, 4+16+16
    (4, 10, 22, 36)
    """
    products: Dim = 1
    flops: Dim = 0
    for count in taps:
        products = products * count
        flops = flops + products
    return flops + products


def _register_upsampling(operator: str, taps: Sequence[int]) -> None:
    flops, backward_flops = (weighted(taps), spread(taps)) if taps else (0, 1)

    @formula(f"aten.{operator}")
    def upsample(input: TensorSpec, *, out: TensorSpec) -> Cost:
        return cost(flops * out.numel, (input,), out)

    upsample.__doc__ = f"{flops} FLOP per output element: see :func:`weighted`; nearest neighbours only move."

    @formula(f"aten.{operator}_backward")
    def upsample_backward(grad_output: TensorSpec, *, out: TensorSpec) -> Cost:
        return cost(backward_flops * grad_output.numel, (grad_output,), out)

    upsample_backward.__doc__ = f"{backward_flops} FLOP per gradient: see :func:`spread`; of nearest neighbours a sum."


for _dims in (1, 2, 3):
    _register_upsampling(f"upsample_nearest{_dims}d", ())
    _register_upsampling(f"_upsample_nearest_exact{_dims}d", ())
_register_upsampling("upsample_linear1d", (2,))
_register_upsampling("upsample_bilinear2d", (2, 2))
_register_upsampling("upsample_trilinear3d", (2, 2, 2))
_register_upsampling("upsample_bicubic2d", (4, 4))


def _antialiased_taps(support: int, image: TensorSpec, resized: TensorSpec) -> list[Dim]:
    sizes = zip(image.shape[-2:], resized.shape[-2:], strict=True)
    return [maximum(support, ceil_div(support * before, after)) for before, after in sizes]


def _register_antialiased(operator: str, support: int) -> None:
    @formula(f"aten.{operator}")
    def upsample_antialiased(input: TensorSpec, *, out: TensorSpec) -> Cost:
        """The kernel is as wide as when upsampling, or wider by the factor of shrinking: ceil(support*in/out) taps."""
        return cost(weighted(_antialiased_taps(support, input, out)) * out.numel, (input,), out)

    @formula(f"aten.{operator}_backward")
    def upsample_antialiased_backward(grad_output: TensorSpec, *, out: TensorSpec) -> Cost:
        """Each gradient is spread over the taps that its value was made of."""
        return cost(spread(_antialiased_taps(support, out, grad_output)) * grad_output.numel, (grad_output,), out)


_register_antialiased("_upsample_bilinear2d_aa", 2)
_register_antialiased("_upsample_bicubic2d_aa", 4)
_register_antialiased("_upsample_lanczos2d_aa", 6)

#: FLOP to bring one grid coordinate back into the image, by ``padding_mode``.
_PADDING_FLOPS = {
    0: 0,  # zeros: like the padding of a convolution
    1: 2,  # border: min(max(x, 0), size - 1)
    2: 8,  # reflection: x - low; % 2*span; - span; abs; span - ; + low; then the border's 2
}


def _grid_flops(dims: int, mode: int, padding_mode: int, align_corners: bool) -> tuple[int, int]:
    """FLOP of one sampled position: once for all channels, and for each channel."""
    place = 2 if align_corners else 4  # (x + 1) * ((size - 1) / 2), or ((x + 1) * size - 1) / 2
    place += _PADDING_FLOPS[padding_mode]
    if mode == 1:  # nearest: round each coordinate
        return dims * (place + 1), 0
    if mode == 2:  # bicubic: floor, fraction; four coefficients, cubics in x+1, x, 1-x, 2-x
        return dims * (place + 2 + 3 + 2 * 5 + 2 * 6), weighted([4] * dims)  # type: ignore[return-value]
    corners = 2**dims  # floor, fraction, 1 - fraction; each corner's weight is a product of dims factors
    return dims * (place + 3) + corners * (dims - 1), 2 * corners - 1


@formula("aten.grid_sampler_2d", "aten.grid_sampler_3d", "aten.grid_sampler")
def grid_sampler(
    input: TensorSpec,
    grid: TensorSpec,
    interpolation_mode: int = 0,
    padding_mode: int = 0,
    align_corners: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """out[N, C, *positions] = input[N, C, *] sampled at grid[N, *positions, dims] in [-1, 1].

    Each position is placed ((x+1)*size - 1)/2 and weighted once for all channels; each channel then
    weighs its corners. Bilinear: 2*(4 + 3) + 4 = 18 FLOP a position, 7 a channel.

    >>> from costmodel.tensor import f32
    >>> grid_sampler(f32(1, 3, 9, 9), f32(1, 4, 5, 2), out=f32(1, 3, 4, 5)).vector_flops   # 20 * (18 + 3*7)
    780
    """
    dims = len(input.shape) - 2
    each_position, each_channel = _grid_flops(dims, interpolation_mode, padding_mode, align_corners)
    positions = out.shape[0]
    for size in out.shape[2:]:
        positions = positions * size
    return cost(each_position * positions + each_channel * out.numel, (input, grid), out)


@formula("aten.grid_sampler_2d_backward", "aten.grid_sampler_3d_backward")
def grid_sampler_backward(
    grad_output: TensorSpec,
    input: TensorSpec,
    grid: TensorSpec,
    interpolation_mode: int = 0,
    padding_mode: int = 0,
    align_corners: bool = False,
    output_mask: Sequence[bool] = (True, True),
    *,
    out: Any,
) -> Cost:
    """Gradients of :func:`grid_sampler` by the image and, always, by the grid.

    Each position is placed and weighted as in the forward. Each channel spreads its gradient over the corners, a
    product and a sum each, and adds to the position's own gradient, for each corner, the product of gradient and pixel,
    by each axis times the other axes' weights: 1 + 2 * dims. Last, a product for each axis brings it to the grid's
    scale. Nearest neighbours add the gradient to one pixel, and the grid's is 0. Bicubic has 4^dims corners, and the
    derivatives of its coefficients, 4 of 4 FLOP an axis.

    >>> from costmodel.tensor import f32
    >>> x, grid = f32(1, 3, 9, 9), f32(1, 4, 5, 2)
    >>> grid_sampler_backward(f32(1, 3, 4, 5), x, grid, out=(x, grid)).vector_flops        # 20 * (18 + 2 + 3*(8 + 20))
    2080
    """
    dims = len(input.shape) - 2
    by_input = output_mask[0]
    each_position, _ = _grid_flops(dims, interpolation_mode, padding_mode, align_corners)
    corners = (4 if interpolation_mode == 2 else 2) ** dims
    each_channel = (2 * corners if by_input else 0) + corners * (1 + 2 * dims)
    each_position += dims + (16 * dims if interpolation_mode == 2 else 0)
    if dims == 3:
        each_position += dims * 4  # the products of the other two axes' weights
    if interpolation_mode == 1:
        each_position, each_channel = (each_position - dims, 1) if by_input else (0, 0)
    positions = grad_output.shape[0]
    for size in grad_output.shape[2:]:
        positions = positions * size
    return cost(each_position * positions + each_channel * grad_output.numel, (grad_output, input, grid), out)


@formula("aten.affine_grid_generator")
def affine_grid(theta: TensorSpec, *, out: TensorSpec) -> Cost:
    """out[N, *positions, dims] = theta[N, dims, dims + 1] @ (position, 1): dims products, dims additions."""
    return cost(2 * (theta.shape[-1] - 1) * out.numel, (theta,), out)


@formula("torchvision.roi_align")
def roi_align(input: TensorSpec, rois: TensorSpec, sampling_ratio: int = -1, *, out: TensorSpec) -> Cost:
    """out[K, C, h, w] = mean of s*s bilinear samples in each bin: s*s*7 FLOP, s*s - 1 additions, 1 division.

    s is ``sampling_ratio``; where that is adaptive (-1), which depends on the boxes, s = 2 is assumed.
    Sample positions and weights, shared by all channels, are not counted.
    """
    samples = (sampling_ratio if sampling_ratio > 0 else 2) ** 2
    return cost(8 * samples * out.numel, (input, rois), out)


@formula("torchvision._roi_align_backward")
def roi_align_backward(grad: TensorSpec, rois: TensorSpec, sampling_ratio: int = -1, *, out: TensorSpec) -> Cost:
    """Each gradient, divided by s*s, is spread over the four pixels of each of its s*s samples: 8 FLOP a sample.

    s as in :func:`roi_align`.
    """
    samples = (sampling_ratio if sampling_ratio > 0 else 2) ** 2
    return cost((8 * samples + 1) * grad.numel, (grad, rois), out)


@formula("torchvision.roi_pool")
def roi_pool(input: TensorSpec, rois: TensorSpec, *, out: Any) -> Cost:
    """Maxima of bins whose size depends on the boxes: moved elements only, no FLOP is invented."""
    return cost(0, (input, rois), out)


@formula("torchvision._roi_pool_backward")
def roi_pool_backward(grad: TensorSpec, rois: TensorSpec, argmax: TensorSpec, *, out: TensorSpec) -> Cost:
    """Each gradient is added where its maximum was: 1 FLOP."""
    return cost(grad.numel, (grad, rois, argmax), out)


@formula("aten.im2col")
def im2col(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Copies windows into columns: 0 FLOP; the columns written are k elements for every window."""
    return cost(0, (input,), out)


@formula("aten.unfold_backward")
def unfold_backward(grad_in: TensorSpec, *, out: TensorSpec) -> Cost:
    """Adds every element of overlapping windows to a line that starts as zeros (``istft``): 1 FLOP each."""
    return cost(grad_in.numel, (grad_in,), out)


@formula("aten.col2im")
def col2im(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Adds every column element to the map, which starts as zeros: 1 FLOP each."""
    return cost(input.numel, (input,), out)
