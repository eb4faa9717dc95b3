"""Fourier transforms: 5 N log2 N FLOP for N complex points, half of that for real ones.

This is the convention of FFTW's benchmarks (https://www.fftw.org/speed/method.html), after the operation
count of the radix-2 Cooley-Tukey algorithm; log2 of each transformed size is rounded up to whole stages.
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.cost import Cost
from costmodel.formulas.elements import cost
from costmodel.formulas.registry import formula
from costmodel.formulas.sorting import ceil_log2
from costmodel.symbols import Dim, floor_div
from costmodel.tensor import TensorSpec

__all__: list[str] = []


def _stages(points: TensorSpec, dim: Sequence[int]) -> Dim:
    """Radix-2 stages of a transform over several dimensions, one after the other."""
    return sum((ceil_log2(points.shape[d]) for d in dim), 0)


@formula("aten._fft_c2c")
def fft_c2c(input: TensorSpec, dim: Sequence[int], *, out: TensorSpec) -> Cost:
    """Complex to complex.

    >>> fft_c2c(TensorSpec((3, 8), "complex64"), [1], out=TensorSpec((3, 8), "complex64")).vector_flops   # 3 * 5*8*3
    360
    """
    return cost(5 * input.numel * _stages(input, dim), (input,), out)


@formula("aten._fft_r2c")
def fft_r2c(input: TensorSpec, dim: Sequence[int], *, out: TensorSpec) -> Cost:
    """Real to complex: 2.5 N log2 N, rounded down."""
    return cost(floor_div(5 * input.numel * _stages(input, dim), 2), (input,), out)


@formula("aten._fft_c2r")
def fft_c2r(input: TensorSpec, dim: Sequence[int], *, out: TensorSpec) -> Cost:
    """Complex to real: 2.5 N log2 N for the N real points, rounded down."""
    return cost(floor_div(5 * out.numel * _stages(out, dim), 2), (input,), out)
