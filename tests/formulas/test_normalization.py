"""Normalizations against loops that count every operation, torch's values, and laws between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from costmodel.formulas import normalization
from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from .counting import array, counting, rsqrt, sqrt, total, values
from .differential import check_symbolic, meta, ran

EPS = 1e-5


def tensor(a: Any) -> Any:
    return None if a is None else torch.tensor(values(a).astype(float))


def spec(a: Any) -> TensorSpec | None:
    return None if a is None else f32(*a.shape)


def statistics(items: list[Any]) -> tuple[Any, Any, list[Any]]:
    """Mean, variance and centred values of a group, by the definition."""
    mean = total(items) / len(items)
    centred = [x - mean for x in items]
    return mean, total(c * c for c in centred) / len(items), centred


def scale_and_shift(mean: Any, var: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    """scale = weight / sqrt(var + eps) and shift = bias - mean * scale: (scale, what to add or subtract)."""
    scale = rsqrt(var + EPS)
    if weight is not None:
        scale = scale * weight
    return scale, mean * scale if bias is None else bias - mean * scale


def mapped(x: Any, scale: Any, shift: Any, bias: Any) -> Any:
    return x * scale - shift if bias is None else x * scale + shift


def moved(running: Any, new: Any, momentum: float) -> Any:
    return (1 - momentum) * running + momentum * new


def batch_norm_by_loops(x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool) -> Any:
    out = np.empty(x.shape, dtype=object)
    for c in range(x.shape[1]):
        if training:
            items = list(x[:, c].reshape(-1))
            mean, var, _ = statistics(items)
            if running_mean is not None:
                unbiased = var * (len(items) / (len(items) - 1))
                running_mean[c] = moved(running_mean[c], mean, 0.1)
                running_var[c] = moved(running_var[c], unbiased, 0.1)
        else:
            mean, var = running_mean[c], running_var[c]
        b = None if bias is None else bias[c]
        scale, shift = scale_and_shift(mean, var, None if weight is None else weight[c], b)
        for index in np.ndindex(x[:, c].shape):
            where = (index[0], c, *index[1:])
            out[where] = mapped(x[where], scale, shift, b)
    return out


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 3, 4)])
@pytest.mark.parametrize("affine", ["weight and bias", "weight", ""])
@pytest.mark.parametrize(("training", "running"), [(False, True), (True, True), (True, False)])
def test_batch_norm_counts_what_loops_count(shape, affine, training, running):
    x = array(*shape)
    weight, bias = (array(3, seed=s) if name in affine else None for s, name in ((1, "weight"), (2, "bias")))
    mean, var = (array(3, seed=s, low=0.5) if running else None for s in (3, 4))
    arguments = [tensor(a) for a in (x, mean, var, weight, bias)]
    operands = [spec(a) for a in (x, weight, bias, mean, var)]
    with counting() as tally:
        out = batch_norm_by_loops(x, weight, bias, mean, var, training)
    reference = torch.nn.functional.batch_norm(*arguments, training, 0.1, EPS)
    assert np.allclose(values(out).astype(float), reference.numpy())
    if running:
        assert np.allclose(values(var).astype(float), arguments[2].numpy())
    cost = normalization.batch_norm(*operands, training, out=f32(*shape))
    assert (cost.matrix_flops, cost.vector_flops) == (0, tally.flops)
    assert cost.bytes_read == sum(o.nbytes for o in operands if o)
    assert cost.bytes_written == x.size * 4 + (2 * 3 * 4 if training and running else 0)


@pytest.mark.parametrize(
    "name", ["native_batch_norm", "_native_batch_norm_legit", "_batch_norm_no_update", "cudnn_batch_norm"]
)
def test_batch_norm_has_one_cost_under_all_its_names(name):
    channels = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), f32(3))
    arguments = {"input": f32(2, 3, 4, 4), **channels, "momentum": 0.1, "eps": EPS}
    plain = cost_of("aten.batch_norm", arguments, f32(2, 3, 4, 4))
    assert cost_of(f"aten.{name}", arguments, (f32(2, 3, 4, 4), f32(0), f32(0))) == plain


def test_batch_norm_dispatched_in_inference_and_training():
    x, c = meta(2, 3, 4, 4), meta(3)
    eval_cost, _ = ran("_native_batch_norm_legit_no_training", x, c, c, c, c, 0.1, EPS)
    assert eval_cost == normalization.batch_norm(f32(2, 3, 4, 4), *[f32(3)] * 4, False, out=f32(2, 3, 4, 4))
    train_cost, _ = ran("_batch_norm_with_update", x, c, c, c, c, 0.1, EPS)
    native = normalization.batch_norm(f32(2, 3, 4, 4), *[f32(3)] * 4, True, out=(f32(2, 3, 4, 4), f32(3), f32(3)))
    assert train_cost.vector_flops == native.vector_flops
    no_stats, _ = ran("_native_batch_norm_legit", x, c, c, True, 0.1, EPS)
    assert native.vector_flops - no_stats.vector_flops == 3 * 7


def rows_by_loops(x: Any, weight: Any, bias: Any, root_mean_square: bool) -> Any:
    """Layer norm, or RMS norm, over the last dimension."""
    out = np.empty(x.shape, dtype=object)
    for index in np.ndindex(x.shape[:-1]):
        row = list(x[index])
        if root_mean_square:
            factor, centred = rsqrt(total(v * v for v in row) / len(row) + EPS), row
        else:
            _, var, centred = statistics(row)
            factor = rsqrt(var + EPS)
        for j, v in enumerate(centred):
            y = v * factor
            y = y if weight is None else y * weight[j]
            out[(*index, j)] = y if bias is None else y + bias[j]
    return out


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 6), (7,)])
@pytest.mark.parametrize("affine", ["weight and bias", "weight", ""])
@pytest.mark.parametrize("root_mean_square", [False, True])
def test_layer_and_rms_norm_count_what_loops_count(shape, affine, root_mean_square):
    width = shape[-1]
    x = array(*shape)
    weight = array(width, seed=1) if affine else None
    bias = array(width, seed=2) if "bias" in affine and not root_mean_square else None
    with counting() as tally:
        out = rows_by_loops(x, weight, bias, root_mean_square)
    if root_mean_square:
        reference = torch.nn.functional.rms_norm(tensor(x), [width], tensor(weight), EPS)
        cost = normalization.rms_norm(f32(*shape), [width], spec(weight), out=f32(*shape))
    else:
        reference = torch.nn.functional.layer_norm(tensor(x), [width], tensor(weight), tensor(bias), EPS)
        cost = normalization.layer_norm(f32(*shape), [width], spec(weight), spec(bias), out=f32(*shape))
    assert np.allclose(values(out).astype(float), reference.numpy())
    assert cost.vector_flops == tally.flops
    assert cost.bytes_written == 4 * x.size


def test_layer_norm_over_several_dimensions_is_over_their_product():
    flat = normalization.layer_norm(f32(2, 5, 24), [24], f32(24), f32(24), out=f32(2, 5, 24))
    assert normalization.layer_norm(f32(2, 5, 4, 6), [4, 6], f32(4, 6), f32(4, 6), out=f32(2, 5, 4, 6)) == flat


def test_native_layer_norm_also_writes_its_statistics():
    cost, _ = ran("native_layer_norm", meta(2, 5, 8), [8], meta(8), meta(8), EPS)
    whole, _ = ran("layer_norm", meta(2, 5, 8), [8], meta(8), meta(8))
    assert cost.vector_flops == whole.vector_flops
    assert cost.bytes_written - whole.bytes_written == 2 * 10 * 4


def group_norm_by_loops(x: Any, groups: int, weight: Any, bias: Any) -> Any:
    images, channels = x.shape[:2]
    per_group = channels // groups
    out = np.empty(x.shape, dtype=object)
    for n, g in np.ndindex(images, groups):
        members = range(g * per_group, (g + 1) * per_group)
        mean, var, _ = statistics([v for c in members for v in x[n, c].reshape(-1)])
        rstd = rsqrt(var + EPS)
        mean_times_rstd = mean * rstd if weight is None else None
        for c in members:
            scale = rstd if weight is None else rstd * weight[c]
            shift = mean_times_rstd if weight is None else mean * scale
            b = None if bias is None else bias[c]
            shift = shift if b is None else b - shift
            for index in np.ndindex(x[n, c].shape):
                out[(n, c, *index)] = mapped(x[(n, c, *index)], scale, shift, b)
    return out


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("affine", ["weight and bias", "weight", ""])
def test_group_norm_counts_what_loops_count(groups, affine):
    x = array(2, 6, 2, 3)
    weight, bias = (array(6, seed=s) if name in affine else None for s, name in ((1, "weight"), (2, "bias")))
    with counting() as tally:
        out = group_norm_by_loops(x, groups, weight, bias)
    reference = torch.nn.functional.group_norm(tensor(x), groups, tensor(weight), tensor(bias), EPS)
    assert np.allclose(values(out).astype(float), reference.numpy())
    cost = normalization.group_norm(f32(*x.shape), groups, spec(weight), spec(bias), out=f32(*x.shape))
    assert cost.vector_flops == tally.flops
    affine_map = [None if a is None else meta(6) for a in (weight, bias)]
    native, _ = ran("native_group_norm", meta(*x.shape), *affine_map, 2, 6, 6, groups, EPS)
    assert native.vector_flops == cost.vector_flops
    assert native.bytes_written == cost.bytes_written + 2 * (2 * groups) * 4


# laws


@pytest.mark.parametrize("affine", [f32(6), None])
def test_a_group_a_channel_is_instance_norm_is_batch_norm_of_each_image(affine):
    x, channels = f32(3, 6, 4, 5), affine
    instance = normalization.instance_norm(x, channels, channels, out=x)
    assert normalization.group_norm(x, 6, channels, channels, out=x) == instance
    one = f32(1, 6, 4, 5)
    alone = normalization.batch_norm(one, channels, channels, None, None, True, out=one)
    assert instance.vector_flops == 3 * alone.vector_flops


def test_instance_norm_with_running_statistics_is_batch_norm_in_inference():
    x = f32(3, 6, 4, 5)
    instance = normalization.instance_norm(x, *[f32(6)] * 4, use_input_stats=False, out=x)
    assert instance == normalization.batch_norm(x, *[f32(6)] * 4, out=x)


def test_instance_norm_updates_by_the_mean_of_its_images():
    """Each of N * C planes makes batch norm's update of its channel, then N values are averaged, twice."""
    x = f32(3, 6, 4, 5)
    updating = normalization.instance_norm(x, None, None, f32(6), f32(6), out=x)
    still = normalization.instance_norm(x, out=x)
    m, r = 0.1, array(3, 6)
    with counting() as tally:
        for c in range(6):
            for _ in range(2):
                total(moved(r[n, c], r[n, c], m) for n in range(3)) / 3
            for n in range(3):
                r[n, c] * (20 / 19)
    assert updating.vector_flops - still.vector_flops == tally.flops
    assert updating.bytes_written - still.bytes_written == 2 * 6 * 4


@pytest.mark.parametrize("operator", ["aten.batch_norm", "aten.instance_norm"])
def test_linear_in_the_spatial_size(operator):
    """Beyond the per-channel work, twice the pixels are twice the FLOP."""
    costs = [cost_of(operator, {"input": f32(1, 3, 4, w), "training": True}, f32(1, 3, 4, w)) for w in (1, 2, 3)]
    first, second, third = (c.vector_flops for c in costs)
    assert third - second == second - first > 0


def test_weight_norm_counts_what_loops_count():
    v, g = array(4, 2, 3), array(4, 1, 1, seed=1, low=0.5)
    out = np.empty(v.shape, dtype=object)
    with counting() as tally:
        for o in range(4):
            factor = g[o, 0, 0] / sqrt(total(w * w for w in v[o].reshape(-1)))
            for index in np.ndindex(2, 3):
                out[(o, *index)] = v[(o, *index)] * factor
    assert np.allclose(values(out).astype(float), torch._weight_norm(tensor(v), tensor(g)).numpy())
    cost, _ = ran("_weight_norm", meta(4, 2, 3), meta(4, 1, 1))
    assert cost.vector_flops == tally.flops


def test_symbolic_sizes():
    affine = {"weight": f32(6), "bias": f32(6)}
    running = {"running_mean": f32(6), "running_var": f32(6)}
    sizes = (1, 2, 7, 224)
    for training in (False, True):
        options = {**affine, **running, "training": training}
        check_symbolic("aten.batch_norm", lambda n, o=options: ({"input": f32(n, 6, n), **o}, f32(n, 6, n)), sizes)
    grouped = {"num_groups": 3, **affine}
    check_symbolic("aten.group_norm", lambda n: ({"input": f32(n, 6, n), **grouped}, f32(n, 6, n)), sizes)
    check_symbolic("aten.instance_norm", lambda n: ({"input": f32(n, 6, n), **affine}, f32(n, 6, n)), sizes)
    check_symbolic("aten.layer_norm", lambda n: ({"input": f32(n, 4, n), "normalized_shape": [n]}, f32(n, 4, n)), sizes)
    check_symbolic("aten.rms_norm", lambda n: ({"input": f32(n, n, 6), "normalized_shape": [6]}, f32(n, n, 6)), sizes)
