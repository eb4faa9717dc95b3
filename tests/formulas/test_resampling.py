"""Resampling: samples weighed by loops, whose values are torch's."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from costmodel.cost import Cost
from costmodel.formulas import resampling
from costmodel.formulas.registry import cost_of
from costmodel.symbols import symbol
from costmodel.tensor import f32

from . import counting
from .counting import Counted, total

torch = pytest.importorskip("torch")
F = torch.nn.functional


def _cost(name: str, arguments: dict[str, Any], out: Any) -> Cost:
    cost = cost_of(name if "." in name else f"aten.{name}", arguments, out)
    assert cost is not None
    return cost


def linear_taps(position: int, size: int, scale: int) -> list[tuple[int, float]]:
    """The two neighbours of an output position and their weights: plain numbers, known ahead."""
    source = max((position + 0.5) / scale - 0.5, 0.0)
    low = int(source)
    return [(low, 1 - (source - low)), (min(low + 1, size - 1), source - low)]


def cubic_taps(position: int, size: int, scale: int) -> list[tuple[int, float]]:
    """Four neighbours and Keys' cubic weights with a = -3/4."""
    source, a = (position + 0.5) / scale - 0.5, -0.75
    low = math.floor(source)
    taps = []
    for i in range(low - 1, low + 3):
        d = abs(source - i)
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        taps.append((min(max(i, 0), size - 1), near if d <= 1 else far))
    return taps


def sample(image: Any, taps: list[list[tuple[int, float]]]) -> Any:
    """Weigh the last axis first, then what it leaves along the others."""
    (first, *rest) = taps
    return total([weight * (sample(image[i], rest) if rest else image[i]) for i, weight in first])


@pytest.mark.parametrize(
    ("name", "mode", "dims"),
    [
        ("linear1d", "linear", 1),
        ("bilinear2d", "bilinear", 2),
        ("trilinear3d", "trilinear", 3),
        ("bicubic2d", "bicubic", 2),
    ],
)
def test_upsampling_costs_what_the_loop_counts(name: str, mode: str, dims: int) -> None:
    image = counting.array(*[3] * dims)
    taps = cubic_taps if mode == "bicubic" else linear_taps
    with counting.counting() as tally:
        positions = itertools.product(range(6), repeat=dims)
        result = [sample(image, [taps(p, 3, 2) for p in position]) for position in positions]
    tensor = torch.tensor(counting.values(image).astype(float))[None, None]
    expected = F.interpolate(tensor, scale_factor=2, mode=mode, align_corners=False)
    assert np.allclose(counting.values(result).astype(float), expected.numpy().ravel())
    cost = _cost(f"upsample_{name}", {"input": f32(2, 4, *[3] * dims)}, f32(2, 4, *[6] * dims))
    assert cost.vector_flops == 8 * tally.flops
    assert (cost.bytes_read, cost.bytes_written) == (8 * 3**dims * 4, 8 * 6**dims * 4)


@pytest.mark.parametrize(
    "name", [f"{n}{d}d" for n in ("upsample_nearest", "_upsample_nearest_exact") for d in (1, 2, 3)]
)
def test_nearest_neighbours_only_move(name: str) -> None:
    cost = _cost(name, {"input": f32(1, 2, 3)}, f32(1, 2, 6))
    assert (cost.flops, cost.bytes, cost.launches) == (0, (6 + 12) * 4, 1)


@pytest.mark.parametrize(("name", "mode", "support"), [("bilinear", "bilinear", 2), ("bicubic", "bicubic", 4)])
@pytest.mark.parametrize(("before", "after"), [(36, 12), (24, 12), (12, 24), (50, 10)])
def test_antialiased_taps_are_as_many_as_torch_weighs(
    name: str, mode: str, support: int, before: int, after: int
) -> None:
    """Inside the image, torch's weights of one output (its gradient) are nonzero on at most that many elements."""
    image = torch.zeros(1, 1, before, before, dtype=torch.float64, requires_grad=True)
    output = F.interpolate(image, size=(after, after), mode=mode, antialias=True)
    (gradient,) = torch.autograd.grad(output[0, 0, after // 2, after // 2], image)
    along_axis = int((gradient.abs().sum(dim=2) > 1e-12).sum())
    cost = _cost(f"_upsample_{name}2d_aa", {"input": f32(1, 1, before, before)}, f32(1, 1, after, after))
    taps = -(-support * max(before, after) // after) if before > after else support
    assert cost.vector_flops == after * after * resampling.weighted([taps, taps])
    zeros = 1 if mode == "bilinear" else 3  # of the kernel, on which a tap may fall: its end, and those at +-1
    assert along_axis <= taps <= along_axis + zeros


def test_antialiased_upsampling_is_plain_upsampling() -> None:
    for kind in ("bilinear2d", "bicubic2d"):
        arguments, out = {"input": f32(2, 3, 4, 4)}, f32(2, 3, 8, 8)
        assert _cost(f"_upsample_{kind}_aa", arguments, out) == _cost(f"upsample_{kind}", arguments, out)


# -- sampling on a grid ------------------------------------------------------------------------------


def placed(x: Any, size: int, align_corners: bool) -> Any:
    return (x + 1) * ((size - 1) / 2) if align_corners else ((x + 1) * size - 1) / 2


def grid_sample_linear(image: Any, position: Any, align_corners: bool) -> list[Any]:
    """One position of all channels; ``image`` is indexed [channel, *axes], ``position`` is (..., y, x) reversed."""
    dims = len(position)
    axes = []
    for size, x in zip(image.shape[1:], reversed(position), strict=True):
        source = placed(x, size, align_corners)
        low = counting.floor(source)
        fraction = source - low
        axes.append([(int(low.value), 1 - fraction), (int(low.value) + 1, fraction)])
    corners = []
    for corner in itertools.product(*axes):
        weight = corner[0][1]
        for _, factor in corner[1:]:
            weight = weight * factor
        corners.append((tuple(i for i, _ in corner), weight))
    assert len(corners) == 2**dims
    return [total([channel[index] * weight for index, weight in corners]) for channel in image]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_sampling_costs_what_the_loop_counts(dims: int, align_corners: bool) -> None:
    image = counting.array(3, *[4] * dims)
    grid = counting.array(5, dims, seed=1, low=-0.5, high=0.4)  # inside: every corner exists
    with counting.counting() as tally:
        result = [grid_sample_linear(image, list(position), align_corners) for position in grid]
    tensor = torch.tensor(counting.values(image).astype(float))[None]
    places = torch.tensor(counting.values(grid).astype(float)).reshape(1, *[1] * (dims - 1), 5, dims)
    expected = F.grid_sample(tensor, places, align_corners=align_corners)[0].reshape(3, 5).T
    assert np.allclose(counting.values(result).astype(float), expected.numpy())
    arguments = {
        "input": f32(2, 3, *[4] * dims), "grid": f32(2, *[1] * (dims - 1), 5, dims),
        "interpolation_mode": 0, "padding_mode": 0, "align_corners": align_corners,
    }  # fmt: skip
    cost = _cost(f"grid_sampler_{dims}d", arguments, f32(2, 3, *[1] * (dims - 1), 5))
    assert cost.vector_flops == 2 * tally.flops
    assert cost.bytes_read == (2 * 3 * 4**dims + 2 * 5 * dims) * 4


def test_nearest_grid_sample_rounds_coordinates_only() -> None:
    with counting.counting() as tally:
        for x in counting.array(5 * 2):
            counting.round_(placed(x, 4, False))
    arguments = {"input": f32(1, 3, 4, 4), "grid": f32(1, 1, 5, 2), "interpolation_mode": 1}
    assert _cost("grid_sampler_2d", arguments, f32(1, 3, 1, 5)).vector_flops == tally.flops


def keys(t: Any, a: float = -0.75) -> list[Any]:
    """Four counted weights of a sample at fraction t, by Horner's rule."""

    def outer(d: Any) -> Any:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    def inner(d: Any) -> Any:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    rest = 1 - t
    return [outer(t + 1), inner(t), inner(rest), outer(2 - t)]


def test_bicubic_grid_sample_costs_what_the_loop_counts() -> None:
    image, position = counting.array(3, 8, 8), counting.array(2, low=-0.2, high=0.2)
    with counting.counting() as tally:
        lows, weights = [], []
        for x in reversed(list(position)):
            source = placed(x, 8, False)
            low = counting.floor(source)
            lows.append(int(low.value))
            weights.append(keys(source - low))
        taps = [[(low - 1 + i, w) for i, w in enumerate(ws)] for low, ws in zip(lows, weights, strict=True)]
        result = [sample(channel, taps) for channel in image]
    tensor = torch.tensor(counting.values(image).astype(float))[None]
    places = torch.tensor(counting.values(position).astype(float)).reshape(1, 1, 1, 2)
    expected = F.grid_sample(tensor, places, mode="bicubic", align_corners=False)
    assert np.allclose(counting.values(result).astype(float), expected.numpy().ravel())
    arguments = {"input": f32(1, 3, 8, 8), "grid": f32(1, 1, 1, 2), "interpolation_mode": 2}
    assert _cost("grid_sampler_2d", arguments, f32(1, 3, 1, 1)).vector_flops == tally.flops


@pytest.mark.parametrize(("padding_mode", "name"), [(1, "border"), (2, "reflection")])
def test_bringing_coordinates_back_is_counted_once_a_coordinate(padding_mode: int, name: str) -> None:
    def reflected(x: Any, low: float, span: float) -> Any:
        return span - abs((x - low) % (2 * span) - span) + low

    x, size = Counted(5.3), 4
    with counting.counting() as tally:
        inside = reflected(x, -0.5, size) if name == "reflection" else x
        inside = counting.min_(counting.max_(inside, 0), size - 1)
    image = torch.arange(size, dtype=torch.float64).expand(1, 1, size, size)
    place = torch.tensor([(2 * 5.3 + 1) / size - 1, 0.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    assert F.grid_sample(image, place, padding_mode=name, align_corners=False).item() == pytest.approx(inside.value)

    def at(mode: int) -> Any:
        arguments = {"input": f32(1, 3, 4, 4), "grid": f32(1, 1, 5, 2), "padding_mode": mode}
        return _cost("grid_sampler_2d", arguments, f32(1, 3, 1, 5)).vector_flops

    assert at(padding_mode) - at(0) == 5 * 2 * tally.flops


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_grid_is_a_small_product(dims: int) -> None:
    theta = counting.array(dims, dims + 1)
    place = counting.array(dims, seed=1)
    with counting.counting() as tally:
        for row in theta:
            total([*(row[i] * place[i] for i in range(dims)), row[dims]])
    cost = _cost("affine_grid_generator", {"theta": f32(2, dims, dims + 1)}, f32(2, *[5] * dims, dims))
    assert cost.vector_flops == 2 * 5**dims * tally.flops


def test_roi_align_averages_its_samples() -> None:
    image = counting.array(2, 2)
    taps = [[(0, Counted(0.25)), (1, Counted(0.75))]] * 2
    with counting.counting() as tally:
        corners = [(i, j, v * w) for i, v in taps[0] for j, w in taps[1]]
    weights_once = tally.flops
    with counting.counting() as tally:
        total([total([image[i, j] * w for i, j, w in corners]) for _ in range(9)]) / 9
    arguments = {"input": f32(1, 4, 32, 32), "rois": f32(6, 5), "sampling_ratio": 3}
    cost = _cost("torchvision.roi_align", arguments, f32(6, 4, 7, 7))
    assert weights_once == 4  # shared by all channels and not counted, as the formula states
    assert cost.vector_flops == 6 * 4 * 49 * tally.flops
    adaptive = _cost("torchvision.roi_align", {**arguments, "sampling_ratio": -1}, f32(6, 4, 7, 7))
    assert adaptive == _cost("torchvision.roi_align", {**arguments, "sampling_ratio": 2}, f32(6, 4, 7, 7))


def test_columns_move_and_their_way_back_adds() -> None:
    columns = torch.ops.aten.im2col(torch.zeros(1, 3, 6, 6), [3, 3], [1, 1], [1, 1], [1, 1])
    out = f32(*columns.shape)
    unfolded = _cost("im2col", {"input": f32(1, 3, 6, 6), "kernel_size": [3, 3]}, out)
    assert (unfolded.flops, unfolded.bytes_written) == (0, 9 * 3 * 36 * 4)
    image = np.zeros((8, 8), dtype=object)
    with counting.counting() as tally:
        for i, j, k, m in itertools.product(range(6), range(6), range(3), range(3)):
            image[i + k, j + m] = image[i + k, j + m] + Counted(1.0)
    assert _cost("col2im", {"input": out}, f32(1, 3, 6, 6)).vector_flops == 3 * tally.flops


@pytest.mark.parametrize(("height", "width"), [(7, 9), (14, 14), (32, 20)])
def test_symbolic_and_numeric_agree(height: int, width: int) -> None:
    def at(h: Any, w: Any) -> list[Cost]:
        return [
            _cost("upsample_bilinear2d", {"input": f32(2, h, w)}, f32(2, 2 * h, 2 * w)),
            _cost("_upsample_bicubic2d_aa", {"input": f32(1, 2, h, w)}, f32(1, 2, 10, 10)),
            _cost("grid_sampler_2d", {"input": f32(1, 2, h, w), "grid": f32(1, h, w, 2)}, f32(1, 2, h, w)),
        ]

    symbolic = at(symbol("height"), symbol("width"))
    assert [c.bind({"height": height, "width": width}) for c in symbolic] == at(height, width)


def test_unfold_backward_adds_every_element_of_every_window() -> None:
    windows = counting.array(3 * 4)  # 3 windows of 4, 2 apart, on a line of 8
    line: list[Any] = [counting.Counted(0.0) for _ in range(8)]
    with counting.counting() as tally:
        for window in range(3):
            for i in range(4):
                line[2 * window + i] = line[2 * window + i] + windows[4 * window + i]
    values = torch.tensor([w.value for w in windows], dtype=torch.float64).view(3, 4)
    expected = torch.ops.aten.unfold_backward(values, [8], 0, 4, 2)
    assert [x.value for x in line] == pytest.approx(expected.tolist())
    arguments = {"grad_in": f32(3, 4), "input_sizes": [8], "dim": 0, "size": 4, "step": 2}
    assert _cost("unfold_backward", arguments, f32(8)).vector_flops == tally.flops
