"""Convolutions against counting loops, laws, torch's counter and published arithmetic."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from costmodel.cost import Cost
from costmodel.formulas import contraction, convolution
from costmodel.formulas.registry import cost_of
from costmodel.tensor import f32

from .counting import Counted, array, counting, floor, values
from .counting import total as plain_total
from .differential import check_symbolic, meta, ran
from .test_published_convolution import conv2d


def conv_by_loops(x: Any, weight: Any, bias: Any, stride: int, padding: int, dilation: int, groups: int) -> Any:
    """A 2-d convolution that multiplies every tap, padding included; input [N, C_in, H, W]."""
    images, _, height, width = x.shape
    c_out, c_in, k_h, k_w = weight.shape
    padded = np.full((images, x.shape[1], height + 2 * padding, width + 2 * padding), Counted(0.0), dtype=object)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    out_h = (height + 2 * padding - dilation * (k_h - 1) - 1) // stride + 1
    out_w = (width + 2 * padding - dilation * (k_w - 1) - 1) // stride + 1
    out = np.empty((images, c_out, out_h, out_w), dtype=object)
    for n, o, i, j in np.ndindex(out.shape):
        first = o // (c_out // groups) * c_in
        total = Counted(0.0)
        for c, a, b in np.ndindex(c_in, k_h, k_w):
            tap = padded[n, first + c, i * stride + a * dilation, j * stride + b * dilation]
            total = total + tap * weight[o, c, a, b]
        out[n, o, i, j] = total if bias is None else total + bias[o]
    return out


@pytest.mark.parametrize(
    ("c_in", "c_out", "kernel", "stride", "padding", "dilation", "groups", "has_bias"),
    [
        (3, 4, (3, 3), 1, 0, 1, 1, True),
        (2, 3, (2, 3), 2, 1, 1, 1, False),
        (4, 6, (3, 3), 1, 1, 1, 2, True),
        (3, 3, (3, 3), 1, 1, 1, 3, False),
        (2, 2, (3, 3), 1, 2, 2, 1, True),
        (5, 2, (1, 1), 1, 0, 1, 1, True),
    ],
)
def test_counts_what_loops_count(c_in, c_out, kernel, stride, padding, dilation, groups, has_bias):
    x, weight = array(2, c_in, 5, 6), array(c_out, c_in // groups, *kernel, seed=1)
    bias = array(c_out, seed=2) if has_bias else None
    with counting() as tally:
        out = conv_by_loops(x, weight, bias, stride, padding, dilation, groups)
    as_tensor = lambda a: None if a is None else torch.tensor(values(a).astype(float))  # noqa: E731
    reference = torch.conv2d(as_tensor(x), as_tensor(weight), as_tensor(bias), stride, padding, dilation, groups)
    assert np.allclose(values(out).astype(float), reference.numpy())
    operands = f32(*x.shape), f32(*weight.shape), f32(c_out) if has_bias else None
    cost = convolution.convolution(*operands, [stride] * 2, [padding] * 2, out=f32(*out.shape))
    assert cost.macs == tally["mul"]
    assert cost.flops == tally.flops
    assert cost.activations == out.size


def conv_transpose_by_loops(x: Any, weight: Any, stride: int) -> Any:
    """Every input element spreads over the output: weight [C_in, C_out, K_h, K_w], no padding, no groups."""
    images, _, height, width = x.shape
    _, c_out, k_h, k_w = weight.shape
    out = np.full((images, c_out, (height - 1) * stride + k_h, (width - 1) * stride + k_w), Counted(0.0), dtype=object)
    for n, c, i, j in np.ndindex(x.shape):
        for o, a, b in np.ndindex(c_out, k_h, k_w):
            place = n, o, i * stride + a, j * stride + b
            out[place] = out[place] + x[n, c, i, j] * weight[c, o, a, b]
    return out


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_counts_what_loops_count(stride):
    x, weight = array(2, 3, 3, 2), array(3, 4, 2, 3, seed=1)
    with counting() as tally:
        out = conv_transpose_by_loops(x, weight, stride)
    reference = torch.conv_transpose2d(*(torch.tensor(values(a).astype(float)) for a in (x, weight)), stride=stride)
    assert np.allclose(values(out).astype(float), reference.numpy())
    cost = convolution.conv_transpose(f32(*x.shape), f32(*weight.shape), stride=[stride] * 2, out=f32(*out.shape))
    assert cost.macs == tally["mul"]
    assert cost.flops == tally.flops


def im2col_elements(x: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> int:
    """Elements of the matrix that torch itself unfolds."""
    unfold = torch.nn.Unfold(kernel, dilation, padding, stride)
    return unfold(torch.empty(x.shape)).numel()


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (7, 7), (2, 2), (1, 1)])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"),
    [((1, 1), (0, 0), (1, 1)), ((2, 2), (3, 3), (1, 1)), ((1, 2), (1, 0), (1, 2))],
)
def test_workspace_is_the_matrix_that_torch_unfolds(kernel, stride, padding, dilation):
    x, weight = meta(2, 4, 15, 18), meta(6, 4, *kernel)
    cost, _ = ran("conv2d", x, weight, None, stride, padding, dilation)
    matrix = im2col_elements(x, kernel, stride, padding, dilation)
    input_is_the_matrix = kernel == (1, 1) and stride == (1, 1) and padding == (0, 0)
    assert cost.workspace_bytes == (0 if input_is_the_matrix else 4 * matrix)


def test_workspace_of_a_transposed_convolution_is_what_col2im_folds():
    x, weight = f32(2, 3, 5, 6), f32(3, 4, 3, 3)
    cost = convolution.conv_transpose(x, weight, stride=[2, 2], out=f32(2, 4, 11, 13))
    columns = torch.einsum("nchw,codk->nodkhw", torch.empty(x.shape), torch.empty(weight.shape))
    assert cost.workspace_bytes == 4 * columns.numel()


def test_a_1x1_transposed_convolution_is_folded_only_when_something_moves():
    """Output padding (which a dilation allows) leaves a border that the product does not fill."""
    x, w = meta(1, 3, 5, 5), meta(3, 4, 1, 1)
    assert ran("conv_transpose2d", x, w)[0].workspace_bytes == 0
    bordered, _ = ran("conv_transpose2d", x, w, None, [1, 1], [0, 0], [1, 1], 1, [2, 2])
    assert bordered.workspace_bytes == 4 * (4 * 5 * 5)


GRID = [
    # rank, input, weight, stride, padding, dilation, groups
    (1, (2, 4, 11), (6, 4, 3), 1, 1, 1, 1),
    (1, (4, 11), (6, 2, 3), 2, 0, 2, 2),
    (2, (2, 8, 14, 15), (8, 1, 3, 3), 2, 1, 1, 8),
    (2, (1, 3, 32, 33), (16, 3, 7, 7), 2, 3, 1, 1),
    (2, (3, 6, 9, 9), (12, 2, 1, 5), 1, 0, 1, 3),
    (2, (6, 9, 9), (12, 6, 1, 1), 1, 0, 1, 1),
    (3, (2, 3, 4, 8, 8), (5, 3, 2, 3, 3), 1, 1, 1, 1),
    (3, (1, 6, 6, 8, 8), (6, 1, 3, 3, 3), 2, 1, 2, 6),
]


@pytest.mark.parametrize(("rank", "x", "w", "stride", "padding", "dilation", "groups"), GRID)
def test_as_torch_counts(rank, x, w, stride, padding, dilation, groups):
    sizes = [stride] * rank, [padding] * rank, [dilation] * rank
    cost, flops = ran(f"conv{rank}d", meta(*x), meta(*w), None, *sizes, groups)
    assert cost.matrix_flops == flops > 0
    if len(x) == rank + 2:
        dispatched = (*sizes, False, [0] * rank, groups)
        low, flops = ran("convolution", meta(*x), meta(*w), None, *dispatched)
        assert low == cost
        assert ran("_convolution", meta(*x), meta(*w), None, *dispatched, False, False, False, False)[0] == low


@pytest.mark.parametrize(
    ("rank", "x", "w", "stride", "padding", "output_padding", "groups"),
    [
        (1, (2, 4, 11), (4, 6, 3), 2, 1, 1, 1),
        (2, (2, 8, 5, 6), (8, 3, 4, 4), 2, 1, 0, 2),
        (2, (1, 3, 5, 5), (3, 6, 1, 1), 1, 0, 0, 1),
        (2, (1, 8, 5, 5), (8, 1, 3, 3), 1, 1, 0, 8),
        (3, (1, 2, 3, 4, 5), (2, 3, 2, 2, 2), 2, 0, 0, 1),
    ],
)
def test_transposed_as_torch_counts(rank, x, w, stride, padding, output_padding, groups):
    sizes = [stride] * rank, [padding] * rank
    cost, flops = ran(f"conv_transpose{rank}d", meta(*x), meta(*w), None, *sizes, [output_padding] * rank, groups)
    assert cost.matrix_flops == flops > 0
    dispatched = (*sizes, [1] * rank, True, [output_padding] * rank, groups)
    assert ran("convolution", meta(*x), meta(*w), None, *dispatched)[0] == cost


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding):
    cost, flops = ran("conv2d", meta(2, 3, 9, 9), meta(4, 3, 3, 3), None, [1, 1], padding)
    side = {"same": 9, "valid": 7}[padding]
    assert cost.matrix_flops == flops == 2 * (2 * 4 * side * side) * (3 * 3 * 3)
    assert cost.workspace_bytes == 4 * (3 * 3 * 3) * (2 * side * side)
    assert ran("conv2d", meta(2, 3, 9, 9), meta(4, 3, 1, 1), None, [1, 1], padding)[0].workspace_bytes == 0


def test_bytes_are_the_operands_and_the_result():
    half = torch.float16
    cost, _ = ran("conv2d", meta(2, 3, 8, 8, dtype=half), meta(4, 3, 3, 3, dtype=half), meta(4, dtype=half))
    assert cost.bytes_read == 2 * (2 * 3 * 8 * 8 + 4 * 3 * 3 * 3 + 4)
    assert cost.bytes_written == 2 * (2 * 4 * 6 * 6)
    assert cost.launches == 1


# laws


def test_linear_in_the_batch():
    one, seven = conv2d(1, 8, 16, 3, 10), conv2d(7, 8, 16, 3, 10)
    weight_bytes = 4 * 16 * 8 * 9
    assert seven.flops == 7 * one.flops
    assert seven.workspace_bytes == 7 * one.workspace_bytes
    assert seven.bytes_read - weight_bytes == 7 * (one.bytes_read - weight_bytes)


def test_a_pointwise_convolution_is_a_linear_layer():
    n, c_in, c_out, side = 2, 8, 16, 5
    x, weight, bias, out = f32(n, c_in, side, side), f32(c_out, c_in, 1, 1), f32(c_out), f32(n, c_out, side, side)
    conv = convolution.convolution(x, weight, bias, out=out)
    linear = contraction.linear(f32(n, side, side, c_in), f32(c_out, c_in), bias, out=f32(n, side, side, c_out))
    assert conv == linear


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_groups_divide_macs_and_parameters(groups):
    whole, grouped = conv2d(3, 8, 16, 3, 10), conv2d(3, 8, 16, 3, 10, groups)
    assert grouped.macs * groups == whole.macs
    saved_weights = 16 * 8 * 9 - 16 * 8 * 9 // groups
    assert whole.bytes_read - grouped.bytes_read == 4 * saved_weights
    assert grouped.workspace_bytes == whole.workspace_bytes


def test_a_grouped_convolution_is_its_groups_side_by_side():
    part, whole = conv2d(3, 4, 6, 3, 10), conv2d(3, 8, 12, 3, 10, groups=2)
    assert whole == 2 * part + Cost(launches=-1)  # but in one kernel


def test_conv3d_of_depth_one_is_conv2d():
    flat = convolution.convolution(f32(2, 3, 9, 9), f32(4, 3, 3, 3), out=f32(2, 4, 7, 7))
    deep = convolution.convolution(f32(2, 3, 1, 9, 9), f32(4, 3, 1, 3, 3), out=f32(2, 4, 1, 7, 7))
    assert flat == deep


def test_a_transposed_convolution_is_the_convolution_with_roles_swapped():
    """The gradient of a convolution with respect to its input: same weight, same MACs, same matrix."""
    small, large, weight = f32(2, 6, 5, 5), f32(2, 3, 11, 11), f32(6, 3, 3, 3)
    forward = convolution.convolution(large, weight, None, [2, 2], out=small)
    transposed = convolution.conv_transpose(small, weight, None, [2, 2], out=large)
    assert transposed.macs == forward.macs
    assert transposed.workspace_bytes == forward.workspace_bytes
    assert transposed.bytes == forward.bytes


def test_dilation_changes_nothing_but_the_output():
    wide, _ = ran("conv2d", meta(1, 3, 9, 9), meta(4, 3, 3, 3), None, [1, 1], [2, 2], [2, 2])
    dense, _ = ran("conv2d", meta(1, 3, 9, 9), meta(4, 3, 3, 3), None, [1, 1], [1, 1], [1, 1])
    assert wide == dense


def test_conv_tbc_is_a_convolution_of_transposed_tensors():
    x, w, bias = torch.randn(7, 2, 3), torch.randn(3, 3, 4), torch.randn(4)
    out = torch.conv_tbc(x, w, bias, 1)
    reference = torch.conv1d(x.permute(1, 2, 0), w.permute(2, 1, 0), bias, padding=1)
    assert torch.allclose(out.permute(1, 2, 0), reference, atol=1e-5)
    by_name = convolution.conv_tbc(f32(7, 2, 3), f32(3, 3, 4), f32(4), out=f32(*out.shape))
    plain = convolution.convolution(f32(2, 3, 7), f32(4, 3, 3), f32(4), 1, 1, out=f32(*reference.shape))
    assert (by_name.macs, by_name.vector_flops, by_name.bytes) == (plain.macs, plain.vector_flops, plain.bytes)


def test_fused_relu_and_shortcut_add_their_own_work():
    x, w, b, out = f32(1, 3, 5, 5), f32(4, 3, 3, 3), f32(4), f32(1, 4, 3, 3)
    plain = convolution.convolution(x, w, b, out=out)
    relu = cost_of("aten.cudnn_convolution_relu", {"input": x, "weight": w, "bias": b}, out)
    added = cost_of("aten.cudnn_convolution_add_relu", {"input": x, "weight": w, "z": out, "alpha": 2, "bias": b}, out)
    assert relu == plain + Cost(vector_flops=36)  # a comparison for each of 4*3*3
    assert added == plain + Cost(vector_flops=3 * 36, bytes_read=4 * 36)  # alpha * z, +, max


@pytest.mark.parametrize("operator", ["aten.conv2d", "aten.convolution"])
def test_symbolic_batch_and_side(operator):
    def build(n):
        arguments = {"input": f32(n, 3, 2 * n, n), "weight": f32(8, 3, 3, 3), "bias": f32(8), "padding": [1, 1]}
        return arguments, f32(n, 8, 2 * n, n)

    check_symbolic(operator, build, (1, 2, 7, 224))


def test_symbolic_transposed():
    def build(n):
        return {"input": f32(n, 3, n, n), "weight": f32(3, 8, 2, 2), "stride": [2, 2]}, f32(n, 8, 2 * n, 2 * n)

    check_symbolic("aten.conv_transpose2d", build, (1, 5, 28))


# deformable convolution


def deform_conv_by_loops(x: Any, weight: Any, offset: Any, mask: Any, bias: Any, offset_groups: int) -> Any:
    """Stride 1, no padding; each sampling point is located once for all channels of its offset group."""
    images, c_in, height, width = x.shape
    c_out, _, k_h, k_w = weight.shape
    out_h, out_w = height - k_h + 1, width - k_w + 1
    columns = np.empty((images, c_in, k_h, k_w, out_h, out_w), dtype=object)

    def pixel(n: int, c: int, i: int, j: int) -> Any:
        return x[n, c, i, j] if 0 <= i < height and 0 <= j < width else Counted(0.0)

    for n, g, a, b, i, j in itertools.product(*map(range, (images, offset_groups, k_h, k_w, out_h, out_w))):
        tap = (g * k_h + a) * k_w + b
        y, z = i + a + offset[n, 2 * tap, i, j], j + b + offset[n, 2 * tap + 1, i, j]
        top, left = floor(y), floor(z)
        dy, dz = y - top, z - left
        ey, ez = 1 - dy, 1 - dz
        weights = ey * ez, ey * dz, dy * ez, dy * dz
        t, s = top.value, left.value
        for c in range(g * c_in // offset_groups, (g + 1) * c_in // offset_groups):
            corners = pixel(n, c, t, s), pixel(n, c, t, s + 1), pixel(n, c, t + 1, s), pixel(n, c, t + 1, s + 1)
            sample = plain_total(w * corner for w, corner in zip(weights, corners, strict=True))
            columns[n, c, a, b, i, j] = sample if mask is None else sample * mask[n, tap, i, j]
    out = np.empty((images, c_out, out_h, out_w), dtype=object)
    for n, o, i, j in np.ndindex(out.shape):
        total = Counted(0.0)
        for c, a, b in np.ndindex(c_in, k_h, k_w):
            total = total + columns[n, c, a, b, i, j] * weight[o, c, a, b]
        out[n, o, i, j] = total + bias[o]
    return out, columns.size


@pytest.mark.parametrize("offset_groups", [1, 2])
@pytest.mark.parametrize("masked", [True, False])
def test_deformable_counts_what_loops_count(offset_groups, masked):
    x, weight, bias = array(1, 4, 5, 5), array(3, 4, 3, 3, seed=1), array(3, seed=2)
    taps = offset_groups * 9
    offset = array(1, 2 * taps, 3, 3, seed=3, low=-0.9, high=0.9)
    mask = array(1, taps, 3, 3, seed=4) if masked else None
    with counting() as tally:
        out, columns = deform_conv_by_loops(x, weight, offset, mask, bias, offset_groups)
    arguments = {
        "input": f32(*x.shape), "weight": f32(*weight.shape), "offset": f32(*offset.shape), "bias": f32(3),
        "mask": f32(*mask.shape) if masked else f32(1, 1), "use_mask": masked,
    }  # fmt: skip
    cost = cost_of("torchvision.deform_conv2d", arguments, f32(*out.shape))
    assert cost.flops == tally.flops
    assert cost.workspace_bytes == 4 * columns
    assert cost.macs == out.size * 4 * 3 * 3


def test_undeformed_loops_are_the_plain_convolution():
    """The reference above is the operator: with offsets 0 and a mask of ones it is a convolution."""
    x, weight, bias = array(1, 2, 5, 5), array(3, 2, 3, 3, seed=1), array(3, seed=2)
    offset = np.full((1, 18, 3, 3), Counted(0.0), dtype=object)
    out, _ = deform_conv_by_loops(x, weight, offset, None, bias, 1)
    reference = torch.conv2d(*(torch.tensor(values(a).astype(float)) for a in (x, weight, bias)))
    assert np.allclose(values(out).astype(float), reference.numpy())
