"""How eager CPU kernels walk memory: what strides say, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.execution import Execution
from costmodel.formulas import cost_of
from costmodel.hardware import load
from costmodel.kernels.cpu import cpu_kernels
from costmodel.kernels.operator import Operator
from costmodel.tensor import TensorSpec, f32

CPU = load("epyc-milan-2c")


def nhwc(*shape: int) -> TensorSpec:
    """A float32 tensor of logical shape N, C, H, W whose channels lie fastest."""
    _, c, h, w = shape
    return TensorSpec(shape, strides=(c * h * w, 1, w * c, c))


def access(op: str, out: TensorSpec, **arguments: Any) -> str:
    cost = cost_of(op, arguments, out)
    assert cost is not None
    return cpu_kernels(Operator(op, arguments, out, cost, Execution(), CPU))[-1].access


PICTURE, TURNED = f32(2, 8, 6, 6), nhwc(2, 8, 6, 6)


@pytest.mark.parametrize(
    ("out", "first", "second", "wanted"),
    [
        (PICTURE, PICTURE, PICTURE, "elementwise"),
        (TURNED, TURNED, TURNED, "elementwise"),
        (PICTURE, PICTURE, TURNED, "strided"),  # neither order suits both
        (PICTURE, PICTURE, f32(2, 8, 1, 1), "broadcast_scalars"),  # one number for a row of pixels
        (TURNED, TURNED, f32(2, 8, 1, 1), "broadcast_rows"),  # channels are the row
        (f32(2, 9, 8), f32(2, 9, 8), f32(8), "broadcast_rows"),
        (f32(2, 9, 8), f32(2, 9, 8), f32(1), "elementwise"),  # a single number is no operand to walk
    ],
)
def test_sums_and_products(out: TensorSpec, first: TensorSpec, second: TensorSpec, wanted: str) -> None:
    assert access("aten.mul", out, input=first, other=second) == wanted


@pytest.mark.parametrize(
    ("source", "out", "wanted"),
    [
        (f32(4, 5, 6), f32(4, 5, 6), "elementwise"),
        (TensorSpec((5, 4, 6), strides=(6, 30, 1)), f32(5, 4, 6), "rows"),  # rows of 6 stay in one piece
        (TensorSpec((6, 5), strides=(1, 6)), f32(6, 5), "strided"),  # a transpose
    ],
)
def test_copies(source: TensorSpec, out: TensorSpec, wanted: str) -> None:
    assert access("aten.clone", out, input=source) == wanted


def test_kernels_with_another_loop_for_channels_last_say_so() -> None:
    weight = {"weight": f32(8), "bias": f32(8), "running_mean": f32(8), "running_var": f32(8), "training": False,
              "momentum": 0.1, "eps": 1e-5}  # fmt: skip
    assert access("aten.batch_norm", PICTURE, input=PICTURE, **weight) == "elementwise"
    assert access("aten.batch_norm", TURNED, input=TURNED, **weight) == "channels_last"
    assert access("aten.cat", TURNED, tensors=[nhwc(2, 4, 6, 6), nhwc(2, 4, 6, 6)], dim=1) == "channels_last"
    assert access("aten.mean", f32(2, 8, 1, 1), input=TURNED, dim=[2, 3], keepdim=True) == "channels_last"
    window = {"kernel_size": [2, 2], "stride": [2, 2]}
    assert access("aten.max_pool2d", f32(2, 8, 3, 3), input=PICTURE, **window) == "elementwise"
    assert access("aten.max_pool2d", nhwc(2, 8, 3, 3), input=TURNED, **window) == "channels_last"


def test_a_convolution_that_needs_no_reorder_reads_channels_last() -> None:
    convolution = {"weight": f32(4, 8, 1, 1), "stride": [1, 1], "padding": [0, 0]}
    cost = cost_of("aten.conv2d", {"input": TURNED, **convolution}, nhwc(2, 4, 6, 6))
    assert cost is not None
    arguments = {"input": TURNED, **convolution}
    kernels = cpu_kernels(Operator("aten.conv2d", arguments, nhwc(2, 4, 6, 6), cost, Execution(), CPU))
    assert [(k.algorithm, k.access) for k in kernels] == [("reorder_weights", "elementwise"), ("gemm", "channels_last")]
