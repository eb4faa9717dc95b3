"""The backward of pools, resampling, softmax, losses and moved elements: by loops that count, values from autograd."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from costmodel.cost import Cost
from costmodel.formulas import resampling
from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import Counted, exp, total

torch = pytest.importorskip("torch")
F = torch.nn.functional


def _cost(name: str, arguments: dict[str, Any], out: Any) -> Cost:
    cost = cost_of(f"aten.{name}", arguments, out)
    assert cost is not None
    return cost


def tensor(items: Any) -> Any:
    return torch.tensor(counting.values(items).astype(float))


def zeros(*shape: int) -> Any:
    """A map of zeros to add to: each addition counts."""
    return counting.array(*shape, low=0.0, high=0.0)


# -- pools -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2)])
def test_average_pool(kernel: int, stride: int) -> None:
    grads, image = counting.array((7 - kernel) // stride + 1, (7 - kernel) // stride + 1), zeros(7, 7)
    with counting.counting() as tally:
        for (i, j), g in np.ndenumerate(grads):
            share = g / kernel**2
            for a, b in itertools.product(range(kernel), repeat=2):
                image[i * stride + a, j * stride + b] = image[i * stride + a, j * stride + b] + share
    operand = torch.zeros(1, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    pooled = F.avg_pool2d(operand, kernel, stride)
    (expected,) = torch.autograd.grad(pooled, operand, tensor(grads)[None, None])
    assert np.allclose(counting.values(image).astype(float), expected[0, 0].numpy())
    arguments = {"grad_output": f32(2, 3, *grads.shape), "input": f32(2, 3, 7, 7), "kernel_size": [kernel]}
    cost = _cost("avg_pool2d_backward", arguments, f32(2, 3, 7, 7))
    assert cost.vector_flops == 6 * tally.flops
    assert (cost.bytes_read, cost.bytes_written) == (6 * grads.size * 4, 6 * 49 * 4)


@pytest.mark.parametrize("name", ["max_pool2d_with_indices_backward", "adaptive_max_pool2d_backward"])
def test_maximum_pool_adds_each_gradient_once(name: str) -> None:
    operand = torch.randn(2, 3, 7, 7, dtype=torch.float64, requires_grad=True)
    pooled, indices = F.max_pool2d(operand, 3, 2, return_indices=True)
    (expected,) = torch.autograd.grad(pooled, operand, torch.ones_like(pooled))
    image = zeros(6, 49)
    with counting.counting() as tally:
        for plane, place in enumerate(indices.reshape(6, -1)):
            for index in place.tolist():
                image[plane, index] = image[plane, index] + 1.0
    assert np.allclose(counting.values(image).astype(float), expected.reshape(6, 49).numpy())
    places = TensorSpec((2, 3, 3, 3), "int64")
    arguments = {"grad_output": f32(2, 3, 3, 3), "input": f32(2, 3, 7, 7), "indices": places}
    cost = _cost(name, arguments, f32(2, 3, 7, 7))
    assert cost.vector_flops == tally.flops
    assert (cost.bytes_read, cost.bytes_written) == (54 * (4 + 8), 6 * 49 * 4)


@pytest.mark.parametrize(("size", "outputs"), [(7, 1), (7, 7), (10, 4), (5, 3)])
def test_adaptive_average_pool(size: int, outputs: int) -> None:
    grads, line = counting.array(outputs), zeros(size)
    with counting.counting() as tally:
        for i, g in enumerate(grads):
            start, end = i * size // outputs, -(-(i + 1) * size // outputs)
            share = g / (end - start)
            for j in range(start, end):
                line[j] = line[j] + share
    operand = torch.zeros(1, 1, size, dtype=torch.float64, requires_grad=True)
    pooled = F.adaptive_avg_pool1d(operand, outputs)
    (expected,) = torch.autograd.grad(pooled, operand, tensor(grads)[None, None])
    assert np.allclose(counting.values(line).astype(float), expected[0, 0].numpy())
    arguments = {"grad_output": f32(2, 3, outputs, 1), "input": f32(2, 3, size, 1)}
    assert _cost("_adaptive_avg_pool2d_backward", arguments, f32(2, 3, size, 1)).vector_flops == 6 * tally.flops


# -- resampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [(2,), (2, 2), (3, 2), (2, 2, 2), (4, 4)], ids=str)
def test_spreading_is_products_axis_by_axis_and_sums(taps: tuple[int, ...]) -> None:
    """The transpose of a weighted sample: its values are the outer product of the axes' weights, times the gradient."""
    weights = [[Counted(0.25 + 0.1 * i + 0.3 * axis) for i in range(count)] for axis, count in enumerate(taps)]
    image, products = zeros(*taps), [Counted(0.7)]
    with counting.counting() as tally:
        for axis in weights:
            products = [p * w for p in products for w in axis]
        for place, value in zip(itertools.product(*map(range, taps)), products, strict=True):
            image[place] = image[place] + value
    expected = 0.7 * np.array([np.prod([float(w) for w in ws]) for ws in itertools.product(*weights)]).reshape(taps)
    assert np.allclose(counting.values(image).astype(float), expected)
    assert resampling.spread(taps) == tally.flops


@pytest.mark.parametrize(
    ("mode", "taps"), [("nearest", ()), ("bilinear", (2, 2)), ("bicubic", (4, 4)), ("_bilinear_aa", (2, 2))]
)
def test_upsampling_backward_walks_as_many_taps_as_the_forward(mode: str, taps: tuple[int, ...]) -> None:
    name = "_upsample_bilinear2d_aa" if mode.endswith("aa") else f"upsample_{mode}2d"
    small, large = f32(2, 3, 5, 5), f32(2, 3, 10, 10)
    forward = _cost(name, {"input": small}, large)
    backward = _cost(f"{name}_backward", {"grad_output": large, "input_size": [2, 3, 5, 5]}, small)
    if taps:
        assert forward.vector_flops == 600 * resampling.weighted(taps)
        assert backward.vector_flops == 600 * resampling.spread(taps)
    else:
        assert (forward.vector_flops, backward.vector_flops) == (0, 600)
    assert (backward.bytes_read, backward.bytes_written) == (forward.bytes_written, forward.bytes_read)


def test_shrinking_spreads_over_wider_kernels() -> None:
    backward = _cost("_upsample_bilinear2d_aa_backward", {"grad_output": f32(1, 1, 4, 4)}, f32(1, 1, 12, 12))
    assert backward.vector_flops == 16 * resampling.spread([6, 6])  # three times as wide as 2


def grid_backward(image: Any, g: Any, place: tuple[Any, Any], grads: Any) -> list[Any]:
    """One position, one channel after the other: corners of a bilinear sample that lies inside the image."""
    height, width = image.shape[1:]
    x, y = ((p + 1) * size - 1 for p, size in zip(place, (width, height), strict=True))
    x, y = x / 2, y / 2
    left, top = counting.floor(x), counting.floor(y)
    dx, dy = x - left, y - top
    ex, ey = 1 - dx, 1 - dy
    corners = [(0, 0, ey * ex), (0, 1, ey * dx), (1, 0, dy * ex), (1, 1, dy * dx)]
    by_x, by_y = Counted(0.0), Counted(0.0)
    row, column = int(top.value), int(left.value)
    for channel, gradient in enumerate(g):
        for a, b, weight in corners:
            grads[channel, row + a, column + b] = grads[channel, row + a, column + b] + gradient * weight
            value = gradient * image[channel, row + a, column + b]
            across, along = value * (dy if a else ey), value * (dx if b else ex)
            by_x = by_x + across if b else by_x - across
            by_y = by_y + along if a else by_y - along
    return [by_x * (width / 2), by_y * (height / 2)]


def test_grid_sampler_backward() -> None:
    image, g = counting.array(3, 5, 6), counting.array(3, seed=1)
    grads = zeros(3, 5, 6)
    with counting.counting() as tally:
        found = grid_backward(image, g, (Counted(0.3), Counted(-0.2)), grads)
    operand = tensor(image)[None].requires_grad_()
    grid = torch.tensor([[[[0.3, -0.2]]]], dtype=torch.float64, requires_grad=True)
    sampled = F.grid_sample(operand, grid, align_corners=False)
    expected = torch.autograd.grad(sampled, [operand, grid], tensor(g)[None, :, None, None])
    assert np.allclose(counting.values(grads).astype(float), expected[0][0].numpy())
    assert [float(v) for v in found] == pytest.approx(expected[1].flatten().tolist())
    arguments = {"grad_output": f32(2, 3, 4, 5), "input": f32(2, 3, 5, 6), "grid": f32(2, 4, 5, 2)}
    cost = _cost("grid_sampler_2d_backward", arguments, (f32(2, 3, 5, 6), f32(2, 4, 5, 2)))
    assert cost.vector_flops == 2 * 4 * 5 * tally.flops


# -- softmax, losses, distances --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name: str) -> None:
    g = counting.array(2, 5)
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    result = getattr(F, name)(x, -1)
    y = np.vectorize(Counted, otypes=[object])(result.detach().numpy())
    found = np.empty((2, 5), dtype=object)
    with counting.counting() as tally:
        for i in range(2):
            folded = total(g[i, j] * y[i, j] for j in range(5)) if name == "softmax" else total(g[i])
            for j in range(5):
                found[i, j] = (g[i, j] - folded) * y[i, j] if name == "softmax" else g[i, j] - exp(y[i, j]) * folded
    (expected,) = torch.autograd.grad(result, x, tensor(g))
    assert np.allclose(counting.values(found).astype(float), expected.numpy())
    specs = {"grad_output": f32(2, 5), "output": f32(2, 5), "dim": -1}
    assert _cost(f"_{name}_backward_data", specs, f32(2, 5)).vector_flops == tally.flops
    across = _cost(f"_{name}_backward_data", {**specs, "dim": 0}, f32(5, 2))
    assert across.vector_flops == _cost(f"_{name}_backward_data", {**specs, "dim": 0}, f32(2, 5)).vector_flops


@pytest.mark.parametrize(("reduction", "weighted"), [(1, False), (2, False), (1, True)])
def test_nll_loss_touches_one_class_a_target(reduction: int, weighted: bool) -> None:
    g, count = Counted(0.7), Counted(4.0)
    with counting.counting() as tally:
        for w in counting.array(4):
            value = -g
            value = value * w if weighted else value
            value = value / count if reduction == 1 else value
    arguments = {
        "grad_output": f32(), "input": f32(4, 10), "target": TensorSpec((4,), "int64"), "reduction": reduction,
        "weight": f32(10) if weighted else None, "total_weight": f32(),
    }  # fmt: skip
    cost = _cost("nll_loss_backward", arguments, f32(4, 10))
    assert cost.vector_flops == tally.flops
    assert (cost.bytes_read, cost.bytes_written) == (4 + 4 * 8 + 4 + 40 * weighted, 4 * 10 * 4)


def test_cross_entropy_with_logits() -> None:
    x, y = counting.array(3, seed=1), counting.array(3, seed=2, low=0.0, high=1.0)
    with counting.counting() as tally:
        losses = [(1 - b) * a - -counting.log1p(exp(-a)) for a, b in zip(x, y, strict=True)]
        mean = total(losses) / 3
    expected = F.binary_cross_entropy_with_logits(tensor(x), tensor(y))
    assert float(mean) == pytest.approx(float(expected))
    arguments = {"input": f32(3), "target": f32(3), "reduction": 1}
    assert _cost("binary_cross_entropy_with_logits", arguments, f32()).vector_flops == tally.flops
    with counting.counting() as more:
        for w in counting.array(3):
            1 + (w - 1) * 0.5 * Counted(1.0)  # the weight of a positive, and its product with log_sigmoid
    weighted = _cost("binary_cross_entropy_with_logits", {**arguments, "pos_weight": f32(3)}, f32())
    assert weighted.vector_flops - tally.flops == more.flops


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_cdist(p: float) -> None:
    x1, x2, g = counting.array(2, 3), counting.array(4, 3, seed=1), counting.array(2, 4, seed=2)
    plain = torch.cdist(tensor(x1), tensor(x2), p)
    distance = np.vectorize(Counted, otypes=[object])(plain.numpy())
    found = np.empty((2, 3), dtype=object)
    with counting.counting() as tally:
        for i in range(2):
            terms: list[list[Any]] = [[] for _ in range(3)]
            for k in range(4):
                factor = g[i, k]
                if p == 2:
                    factor = factor / distance[i, k]
                elif p != 1:
                    factor = factor / counting.power(distance[i, k], p - 1)
                for j in range(3):
                    d = x1[i, j] - x2[k, j]
                    if p == 1:
                        terms[j].append(factor * counting.sign(d))
                    elif p == 2:
                        terms[j].append(d * factor)
                    else:
                        terms[j].append(d * counting.power(abs(d), p - 2) * factor)
            found[i] = [total(line) for line in terms]
    operand = tensor(x1).requires_grad_()
    (expected,) = torch.autograd.grad(torch.cdist(operand, tensor(x2), p), operand, tensor(g))
    assert np.allclose(counting.values(found).astype(float), expected.numpy())
    specs = {"grad": f32(2, 4), "x1": f32(2, 3), "x2": f32(4, 3), "p": p, "cdist": f32(2, 4)}
    assert _cost("_cdist_backward", specs, f32(2, 3)).vector_flops == tally.flops


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_pdist(p: float) -> None:
    rows, width = 4, 3
    x, g = counting.array(rows, width), counting.array(6, seed=2)
    distance = [Counted(float(d)) for d in torch.nn.functional.pdist(tensor(x), p)]
    terms: list[list[list[tuple[int, Any]]]] = [[[] for _ in range(width)] for _ in range(rows)]
    with counting.counting() as tally:
        pairs = [(i, k) for i in range(rows) for k in range(i + 1, rows)]
        for (i, k), gradient, length in zip(pairs, g, distance, strict=True):
            factor = gradient
            if p == 2:
                factor = gradient / length
            elif p != 1:
                factor = gradient / counting.power(length, p - 1)
            for j in range(width):
                d = x[i, j] - x[k, j]
                if p == 1:
                    term = factor * counting.sign(d)
                elif p == 2:
                    term = d * factor
                else:
                    term = d * counting.power(abs(d), p - 2) * factor
                terms[i][j].append((1, term))
                terms[k][j].append((-1, term))
        found = np.empty((rows, width), dtype=object)
        for i in range(rows):
            for j in range(width):
                (sign, first), *rest = sorted(terms[i][j], key=lambda pair: -pair[0])
                result = first if sign > 0 else -first
                for sign, term in rest:
                    result = result + term if sign > 0 else result - term
                found[i, j] = result
    operand = tensor(x).requires_grad_()
    (expected,) = torch.autograd.grad(torch.nn.functional.pdist(operand, p), operand, tensor(g))
    assert np.allclose(counting.values(found).astype(float), expected.numpy())
    specs = {"grad": f32(6), "input": f32(rows, width), "p": p, "pdist": f32(6)}
    assert _cost("_pdist_backward", specs, f32(rows, width)).vector_flops == tally.flops


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("p", [1, 2])
def test_multi_margin_loss(p: int, weighted: bool) -> None:
    x, targets, weights = counting.array(3, 4), [2, 0, 3], counting.array(4, seed=1, low=0.5)
    found = np.empty((3, 4), dtype=object)
    gradient = Counted(1.0)
    with counting.counting() as tally:
        for i, y in enumerate(targets):
            scale = gradient * (1 / (3 * 4))  # classes, and samples of the mean
            scale = scale * weights[y] if weighted else scale
            least = 1.0 - x[i, y]
            for j in range(4):
                if j != y:
                    z = least + x[i, j]
                    inner = 2 * z * scale if p == 2 else scale
                    found[i, j] = counting.select(z > 0, inner, Counted(0.0))
            found[i, y] = -total([found[i, j] for j in range(4) if j != y])
    operand = tensor(x).requires_grad_()
    options = {"p": p, "weight": tensor(weights) if weighted else None}
    loss = torch.nn.functional.multi_margin_loss(operand, torch.tensor(targets), **options)
    (expected,) = torch.autograd.grad(loss, operand)
    assert np.allclose(counting.values(found).astype(float), expected.numpy())
    specs: dict[str, Any] = {"grad_output": f32(), "input": f32(3, 4), "target": TensorSpec((3,), "int64"), "p": p}
    specs["weight"] = f32(4) if weighted else None
    assert _cost("multi_margin_loss_backward", specs, f32(3, 4)).vector_flops == tally.flops


# -- moved elements --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slice_backward", "select_backward", "diagonal_backward"])
def test_a_part_is_put_back_onto_zeros(name: str) -> None:
    cost = _cost(name, {"grad_output": f32(2, 8), "input_sizes": [2, 197, 8]}, f32(2, 197, 8))
    assert (cost.flops, cost.bytes_read, cost.bytes_written, cost.launches) == (0, 16 * 4, 2 * 197 * 8 * 4, 2)


@pytest.mark.parametrize("by_frequency", [False, True])
def test_embedding_adds_rows_to_the_whole_table(by_frequency: bool) -> None:
    indices, grads, table = [1, 3, 1], counting.array(3, 4), zeros(5, 4)
    counts = {i: Counted(0) for i in indices}
    with counting.counting() as tally:
        if by_frequency:
            for i in indices:
                counts[i] = counts[i] + 1
        for row, i in zip(grads, indices, strict=True):
            for j in range(4):
                table[i, j] = table[i, j] + (row[j] / counts[i] if by_frequency else row[j])
    operand = torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)
    looked_up = F.embedding(torch.tensor(indices), operand, scale_grad_by_freq=by_frequency)
    (expected,) = torch.autograd.grad(looked_up, operand, tensor(grads))
    assert np.allclose(counting.values(table).astype(float), expected.numpy())
    specs = {"grad_output": f32(3, 4), "indices": TensorSpec((3,), "int64"), "scale_grad_by_freq": by_frequency}
    cost = _cost("embedding_dense_backward", specs, f32(5, 4))
    assert cost.vector_flops == tally.flops
    assert (cost.bytes_read, cost.bytes_written) == (12 * 4 + 3 * 8, 20 * 4)


@pytest.mark.parametrize(("mode", "weighted"), [(0, False), (0, True), (1, False), (2, False)])
def test_embedding_bag(mode: int, weighted: bool) -> None:
    """Two bags of two and three rows, of 4 elements."""
    bags, grads = [[1, 3], [0, 1, 4]], counting.array(2, 4)
    table, weights = zeros(5, 4), counting.array(5, seed=1)
    with counting.counting() as tally:
        for bag, g in zip(bags, grads, strict=True):
            shares = [value / len(bag) if mode == 1 else value for value in g]
            for i in bag if mode != 2 else bag[:1]:  # of a maximum, one row gets the element
                for j in range(4):
                    table[i, j] = table[i, j] + (shares[j] * weights[i] if weighted else shares[j])
    specs = {
        "grad": f32(2, 4), "indices": TensorSpec((5,), "int64"), "offset2bag": TensorSpec((5,), "int64"), "mode": mode,
        "per_sample_weights": f32(5) if weighted else None, "maximum_indices": TensorSpec((2, 4), "int64"),
    }  # fmt: skip
    assert _cost("_embedding_bag_dense_backward", specs, f32(5, 4)).vector_flops == tally.flops


def test_the_weight_of_a_sample_gets_a_dot_product() -> None:
    with counting.counting() as tally:
        for row in counting.array(5, 4):
            total(value * Counted(0.5) for value in row)
    specs = {"grad": f32(2, 4), "weight": f32(9, 4), "indices": TensorSpec((5,), "int64")}
    specs["offset2bag"] = TensorSpec((5,), "int64")
    assert _cost("_embedding_bag_per_sample_weights_backward", specs, f32(5)).vector_flops == tally.flops


@pytest.mark.parametrize("name", ["reflection_pad1d_backward", "replication_pad1d_backward"])
def test_padded_elements_are_added_to_what_they_repeat(name: str) -> None:
    operand = torch.zeros(1, 1, 5, dtype=torch.float64, requires_grad=True)
    padded = F.pad(operand, (2, 1), mode="reflect" if name.startswith("reflection") else "replicate")
    (expected,) = torch.autograd.grad(padded, operand, torch.ones_like(padded))
    line = zeros(5)
    source = [2, 1, 0, 1, 2, 3, 4, 3] if name.startswith("reflection") else [0, 0, 0, 1, 2, 3, 4, 4]
    with counting.counting() as tally:
        for i in source:
            line[i] = line[i] + 1.0
    assert np.allclose(counting.values(line).astype(float), expected[0, 0].numpy())
    cost = _cost(name, {"grad_output": f32(1, 1, 8), "input": f32(1, 1, 5), "padding": [2, 1]}, f32(1, 1, 5))
    assert (cost.vector_flops, cost.bytes_read, cost.bytes_written) == (tally.flops, 8 * 4, 5 * 4)
