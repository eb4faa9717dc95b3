"""Pooling: every output is folded from a window of k elements; max and average, fixed, adaptive, fractional.

Windows that hang over the edge count in full: padding positions are counted, as in convolutions. A maximum
of k elements is k - 1 comparisons, an average k - 1 additions and one division.

Backward, gradients are added to a map that starts as zeros, 1 FLOP each: that of a maximum where the maximum was, that
of an average, divided once, at all k elements of its window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import aten, cost
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, ceil_div, floor_div, product
from costmodel.tensor import TensorSpec

__all__ = ["covered"]


def _window(kernel_size: Dim | Sequence[Dim], dims: int) -> Dim:
    """Elements of a window; one size stands for all dimensions."""
    if not isinstance(kernel_size, (list, tuple)):
        kernel_size = (kernel_size,)
    return product(kernel_size if len(kernel_size) == dims else tuple(kernel_size) * dims)


def _first(out: Any) -> TensorSpec:
    return out if isinstance(out, TensorSpec) else out[0]  # type: ignore[no-any-return]


def _register_fixed(dims: int, maxima: str, averages: str) -> None:
    @formula(*aten(maxima))
    def max_pool(input: TensorSpec, kernel_size: Any, *, out: Any) -> Cost:
        """out[*, o] = max of a window of k elements: k - 1 comparisons. Indices, where asked for, are written too."""
        return cost((_window(kernel_size, dims) - 1) * _first(out).numel, (input,), out)

    @formula(*aten(averages))
    def avg_pool(input: TensorSpec, kernel_size: Any, *, out: TensorSpec) -> Cost:
        """out[*, o] = mean of a window of k elements: k - 1 additions, 1 division."""
        return cost(_window(kernel_size, dims) * out.numel, (input,), out)


def _register_fixed_backward(dims: int) -> None:
    @formula(*aten(f"max_pool{dims}d_with_indices_backward"))
    def max_pool_backward(grad_output: TensorSpec, indices: TensorSpec, *, out: TensorSpec) -> Cost:
        """Each gradient is added where its maximum was, as the indices say: the operand itself is not read."""
        return cost(grad_output.numel, (grad_output, indices), out)

    @formula(*aten(f"avg_pool{dims}d_backward"))
    def avg_pool_backward(grad_output: TensorSpec, kernel_size: Any, *, out: TensorSpec) -> Cost:
        """Each gradient is divided by k and added to the k elements of its window."""
        return cost((1 + _window(kernel_size, dims)) * grad_output.numel, (grad_output,), out)


_register_fixed(1, "max_pool1d max_pool1d_with_indices", "avg_pool1d")
_register_fixed(2, "max_pool2d max_pool2d_with_indices mkldnn_max_pool2d quantized_max_pool2d", "avg_pool2d")
_register_fixed(3, "max_pool3d max_pool3d_with_indices mkldnn_max_pool3d", "avg_pool3d")
for _dims in (2, 3):
    _register_fixed_backward(_dims)


def covered(size: Dim, outputs: Dim) -> Dim:
    """Elements in all windows of an adaptive pool along one axis, shared ones as often as they are shared.

    Window i is floor(i*size/outputs) .. ceil((i+1)*size/outputs); neighbours share an element wherever
    their common boundary i*size/outputs is not whole: at all but gcd(size, outputs) - 1 of the outputs - 1.

    >>> covered(224, 7), covered(10, 4)             # 10 into 4: windows 0-2, 2-4, 5-7, 7-9, of 3 each
    (224, 12)
    """
    if not isinstance(outputs, int):  # a symbolic number of outputs: windows taken as a partition
        return size
    if isinstance(size, int):
        return size + outputs - math.gcd(size, outputs)
    return size + sum(ceil_div(i * size, outputs) - floor_div(i * size, outputs) for i in range(1, outputs))


def _covered(input: TensorSpec, out: TensorSpec, dims: int) -> Dim:
    """Window elements of all outputs together."""
    axes = zip(input.shape[-dims:], out.shape[-dims:], strict=True)
    return product(out.shape[:-dims]) * product(size if size == o else covered(size, o) for size, o in axes)


def _register_adaptive(dims: int) -> None:
    @formula(f"aten.adaptive_max_pool{dims}d")
    def adaptive_max_pool(input: TensorSpec, *, out: Any) -> Cost:
        """Windows of k elements as :func:`covered` places them: k - 1 comparisons each. Indices are written too."""
        first = _first(out)
        return cost(_covered(input, first, dims) - first.numel, (input,), out)

    @formula(*aten(f"adaptive_avg_pool{dims}d" if dims == 1 else f"adaptive_avg_pool{dims}d _adaptive_avg_pool{dims}d"))
    def adaptive_avg_pool(input: TensorSpec, *, out: TensorSpec) -> Cost:
        """Windows of k elements as :func:`covered` places them: k - 1 additions and 1 division each.

        With one output the window is the whole map: H*W FLOP a channel.
        """
        return cost(_covered(input, out, dims), (input,), out)


for _dims in (1, 2, 3):
    _register_adaptive(_dims)


def _register_adaptive_backward(dims: int) -> None:
    @formula(*aten(f"adaptive_max_pool{dims}d_backward fractional_max_pool{dims}d_backward"))
    def max_pool_backward(grad_output: TensorSpec, indices: TensorSpec, *, out: TensorSpec) -> Cost:
        """Each gradient is added where its maximum was, as the indices say."""
        return cost(grad_output.numel, (grad_output, indices), out)

    @formula(f"aten._adaptive_avg_pool{dims}d_backward")
    def adaptive_avg_pool_backward(grad_output: TensorSpec, *, out: TensorSpec) -> Cost:
        """Each gradient is divided by the size of its window and added to the window's elements."""
        return cost(grad_output.numel + _covered(out, grad_output, dims), (grad_output,), out)


for _dims in (2, 3):
    _register_adaptive_backward(_dims)


def _register_fractional(dims: int) -> None:
    @formula(f"aten.fractional_max_pool{dims}d")
    def fractional_max_pool(input: TensorSpec, kernel_size: Any, random_samples: Any = None, *, out: Any) -> Cost:
        """Windows of fixed size at random places: k - 1 comparisons each."""
        return cost((_window(kernel_size, dims) - 1) * _first(out).numel, (input, random_samples), out)

    @formula(f"aten.max_unpool{dims}d")
    def max_unpool(input: TensorSpec, indices: TensorSpec, *, out: TensorSpec) -> Cost:
        """Puts every element where its maximum was, zeros elsewhere: 0 FLOP."""
        return cost(0, (input, indices), out)


for _dims in (2, 3):
    _register_fractional(_dims)
