"""Pooling: windows walked by loops; adaptive windows placed as torch documents them."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from costmodel.cost import Cost
from costmodel.formulas import pooling
from costmodel.formulas.registry import cost_of
from costmodel.symbols import bind, symbol
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import max_, total

torch = pytest.importorskip("torch")


def _cost(name: str, arguments: dict[str, Any], out: Any) -> Cost:
    cost = cost_of(f"aten.{name}", arguments, out)
    assert cost is not None
    return cost


def maximum(window: Any) -> Any:
    return functools.reduce(max_, window)


def mean(window: Any) -> Any:
    return total(window) / len(window)


def _pool(padded: Any, kernel: tuple[int, ...], stride: int, fold: Any) -> list[Any]:
    """All windows of one channel that is already padded, folded; padding positions are elements like others."""
    starts = [range(0, size - k + 1, stride) for size, k in zip(padded.shape, kernel, strict=True)]
    corners = itertools.product(*starts)
    return [fold(padded[tuple(slice(s, s + k) for s, k in zip(c, kernel, strict=True))].ravel()) for c in corners]


KERNELS = [(3,), (2, 3), (2, 2, 3)]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pool_costs_what_the_loop_counts(kind: str, stride: int, kernel: tuple[int, ...]) -> None:
    dims = len(kernel)
    image = counting.array(*[5] * dims)
    with counting.counting() as tally:
        result = _pool(image, kernel, stride, maximum if kind == "max" else mean)
    tensor = torch.tensor(counting.values(image).astype(float))[None]
    expected = getattr(torch.nn.functional, f"{kind}_pool{dims}d")(tensor, kernel, stride)[0]
    assert np.allclose(counting.values(result).astype(float), expected.numpy().ravel())
    out = f32(2, 3, *expected.shape)
    arguments = {"input": f32(2, 3, *image.shape), "kernel_size": list(kernel), "stride": [stride]}
    cost = _cost(f"{kind}_pool{dims}d", arguments, out)
    assert (cost.vector_flops, cost.launches) == (6 * tally.flops, 1)
    assert (cost.bytes_read, cost.bytes_written) == (6 * image.size * 4, 6 * expected.numel() * 4)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_padding_positions_are_counted(kind: str) -> None:
    with counting.counting() as tally:
        _pool(counting.array(7, 7), (3, 3), 2, maximum if kind == "max" else mean)  # 5x5 and a border of 1
    arguments = {"input": f32(1, 1, 5, 5), "kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1]}
    assert _cost(f"{kind}_pool2d", arguments, f32(1, 1, 3, 3)).vector_flops == tally.flops


def test_indices_are_written_too() -> None:
    out = (f32(1, 1, 2, 2), TensorSpec((1, 1, 2, 2), "int64"))
    whole = _cost("max_pool2d_with_indices", {"input": f32(1, 1, 4, 4), "kernel_size": [2]}, out)
    bare = _cost("max_pool2d", {"input": f32(1, 1, 4, 4), "kernel_size": [2, 2]}, out[0])
    assert whole.vector_flops == bare.vector_flops
    assert whole.bytes_written - bare.bytes_written == 4 * 8


def test_a_pool_over_a_window_of_one_moves_only() -> None:
    assert _cost("max_pool2d", {"input": f32(1, 1, 4, 4), "kernel_size": 1}, f32(1, 1, 4, 4)).vector_flops == 0


@pytest.mark.parametrize(("size", "outputs"), [(7, 1), (7, 7), (10, 4), (5, 3), (12, 5), (3, 6), (224, 7)])
def test_adaptive_windows_are_torchs(size: int, outputs: int) -> None:
    """Each output of an average pool says how long its window is: the gradient of a window of k is 1/k."""
    line = torch.zeros(1, 1, size, dtype=torch.float64, requires_grad=True)
    lengths = []
    for i in range(outputs):
        (gradient,) = torch.autograd.grad(torch.nn.functional.adaptive_avg_pool1d(line, outputs)[0, 0, i], line)
        lengths.append(int((gradient != 0).sum()))
    assert pooling.covered(size, outputs) == sum(lengths)


def _adaptive_windows(size: int, outputs: int) -> list[slice]:
    return [slice(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]


@pytest.mark.parametrize("shape", [((7, 5), (1, 1)), ((10, 5), (4, 3)), ((6, 6), (3, 2)), ((6, 6), (6, 6))], ids=str)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_adaptive_pool_costs_what_the_loop_counts(kind: str, shape: tuple[tuple[int, int], tuple[int, int]]) -> None:
    before, after = shape
    image = counting.array(*before)
    fold = maximum if kind == "max" else mean
    with counting.counting() as tally:
        rows, columns = (_adaptive_windows(b, a) for b, a in zip(before, after, strict=True))
        result = [fold(image[row, column].ravel()) for row in rows for column in columns]
    tensor = torch.tensor(counting.values(image).astype(float))[None, None]
    expected = getattr(torch.nn.functional, f"adaptive_{kind}_pool2d")(tensor, after)
    assert np.allclose(counting.values(result).astype(float), expected.numpy().ravel())
    out: Any = f32(2, 3, *after)
    if kind == "max":
        out = (out, TensorSpec((2, 3, *after), "int64"))
    assert _cost(f"adaptive_{kind}_pool2d", {"input": f32(2, 3, *before)}, out).vector_flops == 6 * tally.flops


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_global_average_reads_the_map_and_divides_once(dims: int) -> None:
    size = 4**dims
    cost = _cost(f"adaptive_avg_pool{dims}d", {"input": f32(2, *[4] * dims)}, f32(2, *[1] * dims))
    assert cost.vector_flops == 2 * ((size - 1) + 1)


@pytest.mark.parametrize("height", [7, 13, 14, 224])
def test_symbolic_adaptive_pool_agrees_with_numbers(height: int) -> None:
    assert bind(pooling.covered(symbol("height"), 7), {"height": height}) == pooling.covered(height, 7)

    def at(h: Any) -> Cost:
        return _cost("_adaptive_avg_pool2d", {"input": f32(2, h, 9)}, f32(2, 7, 7))

    assert at(symbol("height")).bind({"height": height}) == at(height)


def test_fractional_pool_and_unpool() -> None:
    out = (f32(1, 3, 4, 4), TensorSpec((1, 3, 4, 4), "int64"))
    arguments = {"input": f32(1, 3, 9, 9), "kernel_size": [2, 2], "output_size": [4, 4], "random_samples": f32(1, 3, 2)}
    pooled = _cost("fractional_max_pool2d", arguments, out)
    fixed = _cost("max_pool2d_with_indices", {"input": f32(1, 3, 9, 9), "kernel_size": [2, 2]}, out)
    assert pooled.vector_flops == fixed.vector_flops
    assert pooled.bytes_read - fixed.bytes_read == 6 * 4
    unpooled = _cost("max_unpool2d", {"input": out[0], "indices": out[1]}, f32(1, 3, 9, 9))
    assert (unpooled.flops, unpooled.bytes_read, unpooled.bytes_written) == (0, 48 * (4 + 8), 243 * 4)
