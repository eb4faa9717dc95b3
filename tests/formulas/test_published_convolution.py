"""The arithmetic of convolutions that papers, lectures and articles publish, from the formulas.

Parameters are MACs per output position: there every weight is used exactly once.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from costmodel.cost import Cost
from costmodel.formulas import convolution
from costmodel.symbols import symbol
from costmodel.tensor import f32

from .differential import meta, ran


def conv2d(n: Any, c_in: int, c_out: int, kernel: int, side: Any, groups: int = 1) -> Cost:
    """A same-padded convolution without bias, by its formula."""
    x, weight, out = f32(n, c_in, side, side), f32(c_out, c_in // groups, kernel, kernel), f32(n, c_out, side, side)
    return convolution.convolution(x, weight, None, [1, 1], [kernel // 2] * 2, out=out)


def test_standard_convolution_and_its_bottleneck():
    """Input (128, 24, 50, 50), 48 filters of 3x3: 10 368 weights; through 1x1 to 12 channels first: 288 + 5 184."""
    direct, squeeze, expand = conv2d(128, 24, 48, 3, 50), conv2d(128, 24, 12, 1, 50), conv2d(128, 12, 48, 3, 50)
    positions = 128 * 50 * 50
    assert direct.macs == 10_368 * positions
    assert (squeeze.macs, expand.macs) == (288 * positions, 5_184 * positions)
    assert round(direct.macs / (squeeze + expand).macs, 3) == 1.895


def test_conv1d_with_bias_and_its_bottleneck():
    """Conv1d 24 -> 48, k = 3 with bias has 3 504 parameters; 1x1 to 12 and k = 3 to 48, with biases, 2 076."""

    def parameters(c_in: int, c_out: int, k: int) -> int:
        cost = convolution.convolution(f32(1, c_in, k), f32(c_out, c_in, k), f32(c_out), out=f32(1, c_out, 1))
        return cost.macs + cost.vector_flops  # a single output position: each weight and each bias is used once

    assert parameters(24, 48, 3) == 3_504
    assert parameters(24, 12, 1) + parameters(12, 48, 3) == 2_076


def test_depthwise_separable_small():
    """Input (3, 5, 5), 4 outputs, 3x3: standard 108 weights; depthwise 27 + pointwise 12 = 39."""
    positions = 5 * 5
    assert conv2d(1, 3, 4, 3, 5).macs == 108 * positions
    assert conv2d(1, 3, 3, 3, 5, groups=3).macs == 27 * positions
    assert conv2d(1, 3, 4, 1, 5).macs == 12 * positions


def test_depthwise_separable_over_standard_is_one_over_outputs_and_taps():
    """MobileNet's ratio (arXiv:1704.04861, section 3.1): 1/C_out + 1/K^2, exactly."""
    sympy = pytest.importorskip("sympy")
    n, c_in, c_out, k, h, w = (symbol(s) for s in ["n", "c_in", "c_out", "k", "h", "w"])
    standard = convolution.convolution(f32(n, c_in, h, w), f32(c_out, c_in, k, k), out=f32(n, c_out, h, w))
    depthwise = convolution.convolution(f32(n, c_in, h, w), f32(c_in, 1, k, k), out=f32(n, c_in, h, w))
    pointwise = convolution.convolution(f32(n, c_in, h, w), f32(c_out, c_in, 1, 1), out=f32(n, c_out, h, w))
    ratio = (depthwise + pointwise).macs / standard.macs
    assert sympy.simplify(ratio - (1 / c_out + 1 / k**2)) == 0


@pytest.mark.parametrize(("kernel", "stack", "of"), [(5, 2, 18), (7, 3, 27)])
def test_stacks_of_3x3(kernel, stack, of):
    """Two 3x3 for a 5x5: 18 C^2 against 25 C^2; three for a 7x7: 27 C^2 against 49 C^2 (VGG, arXiv:1409.1556)."""
    channels, side = 6, 14
    large, small = conv2d(1, channels, channels, kernel, side), conv2d(1, channels, channels, 3, side)
    per_weight = channels**2 * side**2
    assert large.macs == kernel**2 * per_weight
    assert stack * small.macs == of * per_weight


def test_vgg_stages_keep_their_macs():
    """Halve height and width, double the channels: MACs unchanged, weights times 4, activations halved."""
    stages = [conv2d(1, c, c, 3, side) for c, side in ((64, 224), (128, 112), (256, 56), (512, 28))]
    for c, side, stage, following in zip((64, 128, 256), (224, 112, 56), stages, stages[1:], strict=False):
        assert stage.macs == following.macs == 9 * c**2 * side**2
        assert stage.activations == 2 * following.activations
        weights = lambda cost: cost.bytes_read // 4 - cost.activations  # noqa: E731 - as many inputs as outputs
        assert weights(following) == 4 * weights(stage)


def test_dilation_two_keeps_macs_and_weights():
    for dilation in (1, 2):
        cost, _ = ran("conv2d", meta(1, 8, 20, 20), meta(8, 8, 3, 3), None, [1, 1], [dilation] * 2, [dilation] * 2)
        assert cost.macs == 9 * 8 * 8 * 20 * 20


@pytest.mark.parametrize(("kernel", "stride", "blow_up"), [(3, 1, 9), (2, 2, 1), (4, 2, 4), (1, 2, Fraction(1, 4))])
def test_im2col_blows_up_by_taps_over_stride(kernel, stride, blow_up):
    """K^2 / s^2 where the padding keeps in-size = stride * out-size."""
    x, out = f32(1, 3, 32, 32), f32(1, 8, 32 // stride, 32 // stride)
    weight, padding = f32(8, 3, kernel, kernel), (kernel - stride + 1) // 2
    cost = convolution.convolution(x, weight, None, [stride] * 2, [padding] * 2, out=out)
    assert Fraction(cost.workspace_bytes, x.nbytes) == blow_up


def test_im2col_as_articles_have_it_has_as_many_elements():
    """(K*K) x (C_in*W_out*H_out) against (C_in*K*K) x (W_out*H_out): as many elements, another matrix."""
    c_in, k, side = 3, 3, 7
    conv = convolution.convolution(f32(1, c_in, 9, 9), f32(8, c_in, k, k), out=f32(1, 8, side, side))
    articles = (k * k, c_in * side * side)
    gemm = (c_in * k * k, side * side)
    assert conv.workspace_bytes == 4 * math.prod(articles) == 4 * math.prod(gemm)
    weight = np.zeros((8, c_in * k * k))
    assert (weight @ np.zeros(gemm)).shape == (8, side * side)
    with pytest.raises(ValueError, match="mismatch"):
        weight @ np.zeros(articles)


@pytest.mark.parametrize("operator", ["conv1d", "conv3d", "conv_transpose2d", "conv2d"])
def test_every_kind_has_a_memory_cost(operator):
    rank = int(operator[-2])
    cost, flops = ran(operator, meta(1, 2, *[5] * rank), meta(2, 2, *[3] * rank))
    assert cost.matrix_flops == flops > 0
    assert cost.bytes_read == 4 * (2 * 5**rank + 4 * 3**rank)
    assert cost.workspace_bytes > 0
