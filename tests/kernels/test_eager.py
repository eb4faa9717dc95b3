"""The kernels of eager PyTorch on a GPU, counted by hand on small modules: which run, and what they move."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from costmodel.engines import lower
from costmodel.execution import Execution
from costmodel.hardware import load
from costmodel.kernels.shapes import Convolution, Depthwise, Pooling, Product, Rows

GPU, CPU = load("rtx3090"), load("xeon-6148")
AMP, HALF, FULL = Execution.of(dtype="amp_fp16"), Execution.of(dtype="fp16"), Execution()


class Applied(nn.Module):
    """A function of its inputs as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


@pytest.fixture(scope="module")
def kernels(traced):
    """Kernels of a module in program order."""

    def run(module, *inputs, execution=HALF, hardware=GPU, layout="nchw"):
        plan = lower(traced(module, *inputs, layout=layout), execution, hardware)
        return [plan.kernels[launch.kernel] for launch in plan.launches]

    return run


def algorithms(run):
    return [kernel.algorithm for kernel in run]


N, C, K, SIDE = 2, 16, 32, 8
IMAGE = torch.empty(N, C, SIDE, SIDE)
X, W, Y = N * C * SIDE * SIDE, K * C * 9, N * K * SIDE * SIDE  # elements of input, weight, output of a 3x3
CONV = nn.Conv2d(C, K, 3, padding=1)


# -- convolutions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (3, 2), (5, 3), ((3, 5), (2, 1))])
def test_padding_by_name_keeps_the_picture_whatever_the_dilation(kernels, size, dilation):
    """``padding="same"`` puts out as many positions as it reads; a dilated window reaches further."""
    run = kernels(nn.Conv2d(C, K, size, padding="same", dilation=dilation, bias=False), IMAGE, execution=FULL)
    (shape,) = (kernel.shape for kernel in run if isinstance(kernel.shape, Convolution))
    assert shape.window is not None
    assert shape.window.out_size == (SIDE, SIDE)


def test_a_3x3_convolution_in_nchw_under_autocast(kernels):
    """Casts of input, weight and bias; to NHWC; the convolution; back; and the bias, which cuDNN leaves out."""
    run = kernels(CONV, IMAGE, execution=AMP)
    expected = [
        ("cast", 4 * X, 2 * X),
        ("cast", 4 * W, 2 * W),
        ("cast", 4 * K, 2 * K),
        ("nchw_to_nhwc", 2 * X, 2 * X),
        ("implicit_gemm", 2 * X + 2 * W, 2 * Y),
        ("nhwc_to_nchw", 2 * Y, 2 * Y),
        ("bias", 2 * Y + 2 * K, 2 * Y),
    ]
    assert [(k.algorithm, k.bytes_read, k.bytes_written) for k in run] == expected
    assert run[4].matrix_flops == 2 * Y * C * 9
    assert (run[4].engine, run[4].dtype) == ("matrix", "fp16")
    assert run[4].shape.product == Product(N * SIDE * SIDE, K, C * 9, item_bytes=2)
    assert sum(k.vector_flops for k in run) == Y  # one addition of the bias for each output


def test_channels_last_needs_no_conversion(kernels):
    assert algorithms(kernels(CONV, IMAGE, layout="nhwc")) == ["implicit_gemm", "bias"]


def test_a_1x1_convolution_is_a_matrix_product_on_nchw_as_it_lies(kernels):
    run = kernels(nn.Conv2d(C, K, 1, bias=False), IMAGE)
    assert algorithms(run) == ["gemm"]
    assert run[0].shape.product == Product(N * SIDE * SIDE, K, C, item_bytes=2)


def test_fp32_lanes_run_1x1_convolutions_as_cudnn_does(kernels):
    """cuDNN splits no k: DeepBench's V100 took 95 µs for 16 images of 7x7, 832 to 256 channels, 56 tiles of 128x32."""
    fp32, v100 = Execution.of(dtype="fp32"), load("v100-sxm-16gb")
    run = kernels(nn.Conv2d(832, 256, 1), torch.empty(16, 832, 7, 7), execution=fp32, hardware=v100)
    assert algorithms(run) == ["implicit_gemm", "bias"]


def test_a_strided_1x1_convolution_is_no_plain_product(kernels):
    assert "implicit_gemm" in algorithms(kernels(nn.Conv2d(C, K, 1, stride=2, bias=False), IMAGE))


@pytest.mark.parametrize(("groups", "kernel", "stride"), [(1, 4, 2), (1, 3, 1), (2, 2, 2)])
def test_a_transposed_convolution_sums_up_a_share_of_the_taps_for_each_pixel(kernels, groups, kernel, stride):
    """Its product does the operator's FLOPs where strides divide windows and nothing is cut off."""
    wide = 64  # channels of a group fill the depth of a tile, so that groups are not packed
    layer = nn.ConvTranspose2d(wide * groups, K * groups, kernel, stride=stride, groups=groups)
    run = kernels(layer, torch.empty(N, wide * groups, SIDE, SIDE))
    assert any("implicit_gemm" in name for name in algorithms(run))
    (product,) = [found.shape.product for found in run if found.matrix_flops]
    side = (SIDE - 1) * stride + kernel
    assert (product.m, product.n, product.batch) == (N * side * side, K, groups)
    assert product.k == wide * kernel**2 // stride**2
    if kernel == stride:
        (flops,) = [found.matrix_flops for found in run if found.matrix_flops]
        assert 2 * product.macs == flops == 2 * N * SIDE * SIDE * wide * groups * K * kernel**2


def test_a_depthwise_convolution_adds_its_bias_itself_on_the_vector_lanes(kernels):
    (kernel,) = kernels(nn.Conv2d(C, C, 3, padding=1, groups=C), IMAGE)
    assert (kernel.algorithm, kernel.engine) == ("direct_depthwise", "vector")
    assert kernel.matrix_flops == 2 * X * 9
    assert kernel.vector_flops == X
    assert (kernel.bytes_read, kernel.bytes_written) == (2 * (X + 9 * C + C), 2 * X)


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "execution", "layout", "variant"),
    [
        (32, 7, 3, 1, HALF, "nchw", "nchw"),
        (16, 7, 3, 1, HALF, "nchw", "native"),  # fewer than 32 channels
        (32, 6, 3, 1, HALF, "nchw", "native"),  # narrower than 7
        (32, 9, 7, 1, HALF, "nchw", "native"),  # neither 1, 3 nor 5
        (64, 14, 3, 2, HALF, "nchw", "native"),
        (256, 28, 3, 2, HALF, "nchw", "nchw"),
        (512, 14, 3, 2, HALF, "nchw", "nchw"),
        (32, 7, 3, 1, FULL, "nchw", "native"),  # fp32
        (32, 7, 3, 1, HALF, "nhwc", "nhwc"),
        (32, 14, 9, 1, HALF, "nhwc", "nhwc_large"),
    ],
)
def test_whose_depthwise_kernel_runs(kernels, channels, size, kernel, stride, execution, layout, variant):
    """use_cudnn_depthwise of PyTorch's Convolution.cpp."""
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels)
    (run,) = kernels(conv, torch.empty(1, channels, size, size), execution=execution, layout=layout)
    assert run.shape.depthwise is Depthwise(variant)


def test_depthwise_kernels_of_cudnn_are_square_and_count_in_32_bits(kernels):
    flat = nn.Conv2d(32, 32, (1, 5), padding=(0, 2), groups=32)
    assert kernels(flat, torch.empty(1, 32, 8, 8), layout="nhwc")[0].shape.depthwise is Depthwise.NHWC_LARGE
    conv, side = nn.Conv2d(32, 32, 3, padding=1, groups=32), 8192  # 32 channels of 2^26 pixels: 2^31 elements
    for rows, variant in ((side, "nhwc_wide"), (side - 1, "nhwc")):
        (run,) = kernels(conv, torch.empty(1, 32, rows, side, device="meta"), layout="nhwc")
        assert run.shape.depthwise is Depthwise(variant)


def test_fp32_convolutions_take_tf32_where_there_is_tf32_and_lanes_elsewhere(kernels):
    ampere, volta = kernels(CONV, IMAGE, execution=FULL), kernels(CONV, IMAGE, execution=FULL, hardware=load("v100"))
    assert {(k.engine, k.dtype) for k in ampere if k.matrix_flops} == {("matrix", "tf32")}
    assert {(k.engine, k.dtype) for k in volta if k.matrix_flops} == {("vector", "fp32")}
    assert algorithms(volta) == ["implicit_gemm", "bias"]  # lanes take NCHW as it is


@pytest.mark.parametrize("name", ["gtx1080ti", "p100"])
def test_half_precision_of_pascal_is_added_up_in_fp32(kernels, name):
    """Its lanes add fp16 up in fp16, at 1/64 of the rate on a GTX 1080 Ti; PyTorch asks for sums in fp32."""
    run = kernels(nn.Sequential(CONV, nn.Conv2d(K, C, 1)), IMAGE, execution=HALF, hardware=load(name))
    assert {(k.engine, k.dtype, k.accumulate) for k in run if k.matrix_flops} == {("vector", "fp32", "fp32")}


def test_grouped_convolution_does_the_multiplications_of_its_groups(kernels):
    run = kernels(nn.Conv2d(C, K, 3, padding=1, groups=4, bias=False), IMAGE, layout="nhwc")
    assert algorithms(run) == ["grouped_implicit_gemm"]
    assert run[0].matrix_flops == 2 * Y * C // 4 * 9


# -- matrix products -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 16), (2, 6, 16)])
def test_linear_of_a_contiguous_input_has_its_bias_in_the_epilogue(kernels, shape):
    (kernel,) = kernels(nn.Linear(16, 24), torch.empty(shape))
    rows = 6 * (len(shape) == 2) + 12 * (len(shape) == 3)
    assert kernel.shape == Product(rows, 24, 16, item_bytes=2)
    assert kernel.matrix_flops == 2 * rows * 24 * 16
    assert kernel.vector_flops == rows * 24
    assert (kernel.bytes_read, kernel.bytes_written) == (2 * (rows * 16 + 24 * 16 + 24), 2 * rows * 24)


def test_linear_without_bias_adds_nothing(kernels):
    (kernel,) = kernels(nn.Linear(16, 24, bias=False), torch.empty(6, 16))
    assert kernel.vector_flops == 0


def test_linear_of_an_input_strided_in_every_dimension_copies_it_first(kernels):
    copy, product = kernels(Applied(lambda x, w: F.linear(x[:, ::2], w)), torch.empty(6, 32), torch.empty(24, 16))
    assert (copy.algorithm, product.algorithm) == ("contiguous_copy", "gemm")
    assert (copy.bytes_read, copy.bytes_written) == (2 * 6 * 16, 2 * 6 * 16)


def test_a_transposed_factor_is_taken_as_it_lies(kernels):
    assert algorithms(kernels(Applied(lambda a: a @ a.mT), torch.empty(3, 5, 4))) == ["batched_gemm"]


def test_batched_product(kernels):
    (kernel,) = kernels(Applied(torch.bmm), torch.empty(3, 5, 4), torch.empty(3, 4, 7))
    assert kernel.shape == Product(5, 7, 4, 3, item_bytes=2)
    assert kernel.matrix_flops == 2 * 3 * 5 * 7 * 4


# -- attention -------------------------------------------------------------------------------------------------------

ATTENTION = Applied(lambda q, k, v: F.scaled_dot_product_attention(q, k, v))


def attention_inputs(*lead, length=4096, width=1):
    return [torch.empty(*lead, length, width) for _ in range(3)]


def test_attention_of_four_dimensions_keeps_its_scores_on_chip(kernels):
    (kernel,) = kernels(ATTENTION, *attention_inputs(2, 3, length=64, width=32))
    operand = 2 * 2 * 3 * 64 * 32  # B
    assert kernel.algorithm == "flash_attention"
    assert (kernel.bytes_read, kernel.bytes_written) == (3 * operand, operand)
    assert kernel.matrix_flops == 2 * 2 * (2 * 3) * 64 * 64 * 32


def test_attention_with_a_mask_takes_the_memory_efficient_kernel(kernels):
    masked = Applied(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m))
    run = kernels(masked, *attention_inputs(2, 3, length=64, width=32), torch.empty(64, 64))
    assert algorithms(run) == ["efficient_attention"]


@pytest.mark.parametrize(
    ("version", "bytes_per_score"),
    [
        # scores written by the first product, read and written by softmax, read by the second: 4 x 2 B
        ("2.4.1", 8),
        # The same in fp32 (16 B), and _safe_softmax's eq (4 read, 1 written), all (1 read), where (4 and 4)
        ("2.9.1", 30),
    ],
)
def test_attention_of_five_dimensions_puts_its_scores_into_memory(kernels, version, bytes_per_score):
    length = 4096
    run = kernels(
        ATTENTION, *attention_inputs(1, 1, 2, length=length), execution=Execution.of(dtype="fp16", torch=version)
    )
    scores = 2 * length * length
    per_score = sum(k.bytes for k in run) / scores
    assert bytes_per_score <= per_score < bytes_per_score + 0.05  # operands of width 1 add a few bytes a row
    assert sum(k.matrix_flops for k in run) == 2 * 2 * scores * 1
    assert "flash_attention" not in algorithms(run)


def test_the_math_path_of_fp32_operands_casts_nothing(kernels):
    run = kernels(ATTENTION, *attention_inputs(1, 1, 2, length=64, width=8), execution=FULL)
    assert "cast" not in algorithms(run)


# -- normalization, pooling, movement --------------------------------------------------------------------------------


def test_layer_norm_of_a_permuted_tensor_copies_it_first(kernels):
    module = nn.Sequential(Applied(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(C))
    copy, norm = kernels(module, IMAGE)
    assert (copy.algorithm, copy.bytes_read, copy.bytes_written) == ("contiguous_copy", 2 * X, 2 * X)
    assert (norm.algorithm, norm.shape) == ("normalization", Rows(C))


def test_layer_norm_of_a_contiguous_tensor_is_one_kernel(kernels):
    (kernel,) = kernels(nn.LayerNorm(C), torch.empty(5, C))
    assert (kernel.bytes_read, kernel.bytes_written) == (2 * (5 * C + 2 * C), 2 * 5 * C)


def test_max_pooling_writes_an_index_of_eight_bytes_beside_each_maximum(kernels):
    (kernel,) = kernels(nn.MaxPool2d(2), IMAGE)
    assert kernel.bytes_read == 2 * X
    assert kernel.bytes_written == (2 + 8) * X // 4


def test_unfold_starts_one_kernel_for_each_sample(kernels):
    (kernel,) = kernels(nn.Unfold(2), torch.empty(5, 3, 4, 4))
    assert kernel.count == 5


def test_views_launch_nothing(kernels):
    module = Applied(
        lambda x: x.view(N, -1).unflatten(1, (C, -1)).transpose(1, 2).unsqueeze(0)[:, 1:].expand(3, 1, -1, -1)
    )
    assert kernels(module, torch.empty(N, C, SIDE)) == []


def test_a_transposing_copy_is_strided_and_a_plain_one_is_not(kernels):
    (transposing,) = kernels(Applied(lambda x: x.mT.contiguous()), torch.empty(32, 64))
    (plain,) = kernels(Applied(torch.clone), torch.empty(32, 64))
    assert (transposing.access, plain.access) == ("strided", "elementwise")
    assert transposing.bytes == plain.bytes == 2 * 2 * 32 * 64


def test_an_addition_of_two_orders_is_strided(kernels):
    (mixed,) = kernels(Applied(lambda x: x + x.mT), torch.empty(64, 64))
    (same,) = kernels(Applied(lambda x: x + x), torch.empty(64, 64))
    assert (mixed.access, same.access) == ("strided", "elementwise")


@pytest.mark.parametrize(("layout", "algorithm"), [("nchw", "resample_serial"), ("nhwc", "resample")])
def test_bilinear_upsampling_walks_the_planes_in_nchw_alone(kernels, layout, algorithm):
    (kernel,) = kernels(nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE, layout=layout)
    assert kernel.algorithm == algorithm


# -- elsewhere -------------------------------------------------------------------------------------------------------


def test_cpus_run_none_of_the_kernels_of_cuda(kernels):
    module = nn.Sequential(CONV, nn.MaxPool2d(2), nn.ReLU())
    run = kernels(module, IMAGE, execution=FULL, hardware=CPU)
    assert not {"nchw_to_nhwc", "nhwc_to_nchw", "bias"} & set(algorithms(run))
    assert sum(k.bytes_written for k in run if k.algorithm == "pool") <= 4 * Y // 4  # no indices


# -- group normalization and pooling ---------------------------------------------------------------------------------


def test_group_norm_reads_its_input_twice(kernels):
    """Moments (two fp32 a group), a scale and a shift for each channel, and both applied."""
    groups = 4
    run = kernels(nn.GroupNorm(groups, C), IMAGE, execution=HALF)
    assert [(k.access, k.bytes_read, k.bytes_written) for k in run] == [
        ("reduction", 2 * X, 8 * N * groups),
        ("elementwise", 8 * N * groups, 8 * N * C),
        ("elementwise", 2 * X + 8 * N * C, 2 * X),
    ]


def test_group_norm_of_channels_last_is_copied_there_and_back(kernels):
    run = kernels(nn.Sequential(nn.ReLU(), nn.GroupNorm(4, C)), IMAGE, execution=HALF, layout="nhwc")
    copies = [k for k in run if k.algorithm == "contiguous_copy"]
    assert [(k.bytes_read, k.bytes_written) for k in copies] == [(2 * X, 2 * X)] * 2


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_average_pooling_walks_its_window(kernels, layout):
    (kernel,) = kernels(nn.AvgPool2d((3, 2), 1), IMAGE, layout=layout)
    assert kernel.shape == Pooling(6, channels_last=layout == "nhwc")
