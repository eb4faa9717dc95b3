"""Window sizes against torch itself, on the meta device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from costmodel.symbols import bind, symbol
from costmodel.tensor import TensorSpec, f32
from costmodel.trace.shapes import output_dims, output_strides, window_dim


@given(
    size=st.integers(1, 200),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 5),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_window_dim_is_what_a_convolution_puts_out(size, kernel, stride, padding, dilation):
    assume(size + 2 * padding >= dilation * (kernel - 1) + 1)
    out = F.conv1d(
        torch.empty(1, 1, size, device="meta"),
        torch.empty(1, 1, kernel, device="meta"),
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    assert window_dim(size, kernel, stride, padding, dilation) == out.shape[-1]
    assert bind(window_dim(symbol("n"), kernel, stride, padding, dilation), {"n": size}) == out.shape[-1]


@pytest.mark.parametrize("size", range(6, 40))
def test_window_dim_in_ceil_mode_is_what_a_pool_puts_out(size):
    out = F.max_pool1d(torch.empty(1, 1, size, device="meta"), 3, stride=2, ceil_mode=True)
    assert bind(window_dim(symbol("n"), 3, 2, 0, ceil_mode=True), {"n": size}) == out.shape[-1]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("size", [9, 12, 31])
def test_the_dispatchers_convolution_has_the_rule_of_either_kind(size, transposed):
    parameters = {"stride": [2], "padding": [1], "dilation": [2], "transposed": transposed, "output_padding": [1]}
    x, w = TensorSpec((1, 3, symbol("n"))), f32(3, 3, 3)
    out = torch.convolution(
        torch.empty(1, 3, size, device="meta"), torch.empty(3, 3, 3, device="meta"), None, groups=1, **parameters
    )
    dims = dict(output_dims("aten.convolution", {"input": x, "weight": w, **parameters}))
    assert {d: bind(size_, {"n": size}) for d, size_ in dims.items()} == {2: out.shape[2]}


def test_a_gradient_is_as_large_as_its_operand():
    x, w, g = TensorSpec((4, 3, symbol("n"))), f32(3, 3, 3), TensorSpec((4, 3, symbol("n") - 2))
    arguments = {"grad_output": g, "input": x, "weight": w, "output_mask": [True, True, False]}
    assert dict(output_dims("aten.convolution_backward", arguments)) == dict(enumerate(x.shape))
    weight_alone = {**arguments, "output_mask": [False, True, False]}
    assert dict(output_dims("aten.convolution_backward", weight_alone)) == {}
    sliced = {"grad_output": g, "input_sizes": [4, 3, symbol("n")], "dim": 2, "start": 2}
    assert dict(output_dims("aten.slice_backward", sliced)) == dict(enumerate(x.shape))
    assert dict(output_dims("aten.max_pool2d_with_indices_backward", {"grad_output": g, "input": x})) == dict(
        enumerate(x.shape)
    )


@pytest.mark.parametrize("length", [16, 17, 31, 100])
def test_the_gradient_of_a_mask_lies_in_padded_rows(length):
    def meta(*shape):
        return torch.empty(shape, device="meta")

    x, mask, state = meta(2, 4, length, 8), meta(2, 4, length, length), meta(2)
    saved = (x, meta(2, 4, length), state, state)
    gradient = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
        x, x, x, x, mask, *saved, 0.0, [True, True, True, True]
    )[3]
    n = symbol("n")
    q = TensorSpec((2, 4, n, 8))
    by_rule = output_strides(
        "aten._scaled_dot_product_efficient_attention_backward",
        {"query": q, "key": q, "attn_bias": TensorSpec((2, 4, n, n))},
    )
    assert [bind(stride, {"n": length}) for stride in by_rule] == [*reversed(gradient.stride()[:-1])]
