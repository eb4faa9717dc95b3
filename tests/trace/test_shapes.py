"""Window sizes against torch itself, on the meta device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from costmodel.symbols import bind, symbol
from costmodel.trace.shapes import window_dim


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
