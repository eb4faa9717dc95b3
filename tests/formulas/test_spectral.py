"""Fourier transforms: a radix-2 FFT done on numbers that count stays near, and never above, 5 N log2 N."""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np
import pytest

from costmodel.cost import Cost
from costmodel.formulas import spectral  # noqa: F401 - registers the sheet
from costmodel.formulas.registry import cost_of
from costmodel.symbols import symbol
from costmodel.tensor import TensorSpec, f32

from . import counting


def c64(*shape: Any) -> TensorSpec:
    return TensorSpec(shape, "complex64")


def _cost(name: str, arguments: dict[str, Any], out: Any) -> Cost:
    cost = cost_of(f"aten.{name}", arguments, out)
    assert cost is not None
    return cost


Pair = tuple[Any, Any]


def fft(points: list[Pair]) -> list[Pair]:
    """Cooley and Tukey, radix 2, on pairs of real numbers; twiddle factors are known ahead."""
    n = len(points)
    if n == 1:
        return points
    even, odd = fft(points[::2]), fft(points[1::2])
    turned = []
    for k, (real, imaginary) in enumerate(odd):
        w = cmath.exp(-2j * math.pi * k / n)
        turned.append((real * w.real - imaginary * w.imag, real * w.imag + imaginary * w.real))
    upper = [(a + c, b + d) for (a, b), (c, d) in zip(even, turned, strict=True)]
    return upper + [(a - c, b - d) for (a, b), (c, d) in zip(even, turned, strict=True)]


@pytest.mark.parametrize("size", [2, 8, 64])
def test_the_convention_is_the_count_of_radix_two(size: int) -> None:
    real, imaginary = counting.array(size), counting.array(size, seed=1)
    with counting.counting() as tally:
        result = fft(list(zip(real, imaginary, strict=True)))
    expected = np.fft.fft(counting.values(real).astype(float) + 1j * counting.values(imaginary).astype(float))
    assert np.allclose([complex(a.value, b.value) for a, b in result], expected)
    cost = _cost("_fft_c2c", {"input": c64(3, size), "dim": [1]}, c64(3, size))
    assert cost.vector_flops == 3 * tally.flops  # a butterfly: 4 mul, 2 + 4 add, for 2 points: 5 a point and stage
    assert (cost.bytes_read, cost.bytes_written) == (3 * size * 8, 3 * size * 8)


def test_dimensions_are_transformed_one_after_the_other() -> None:
    both = _cost("_fft_c2c", {"input": c64(16, 8), "dim": [0, 1]}, c64(16, 8))
    rows = _cost("_fft_c2c", {"input": c64(16, 8), "dim": [1]}, c64(16, 8))
    columns = _cost("_fft_c2c", {"input": c64(16, 8), "dim": [0]}, c64(16, 8))
    assert both.vector_flops == rows.vector_flops + columns.vector_flops


def test_real_transforms_cost_half_there_and_back() -> None:
    whole = _cost("_fft_c2c", {"input": c64(4, 16), "dim": [1]}, c64(4, 16))
    there = _cost("_fft_r2c", {"input": f32(4, 16), "dim": [1], "onesided": True}, c64(4, 9))
    back = _cost("_fft_c2r", {"input": c64(4, 9), "dim": [1], "last_dim_size": 16}, f32(4, 16))
    assert 2 * there.vector_flops == 2 * back.vector_flops == whole.vector_flops
    assert (there.bytes_read, there.bytes_written) == (back.bytes_written, back.bytes_read) == (256, 288)


@pytest.mark.parametrize("length", [1, 5, 16, 197])
def test_symbolic_and_numeric_agree(length: int) -> None:
    def at(n: Any) -> list[Cost]:
        return [
            _cost("_fft_c2c", {"input": c64(2, n), "dim": [1]}, c64(2, n)),
            _cost("_fft_r2c", {"input": f32(n, 15), "dim": [0, 1]}, c64(n, 8)),
        ]

    assert [c.bind({"seq_len": length}) for c in at(symbol("seq_len"))] == at(length)
