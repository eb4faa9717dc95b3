"""The backward of normalizations, done by loops that count; the values are torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import Counted, rsqrt, total
from .differential import check_symbolic

torch = pytest.importorskip("torch")
F = torch.nn.functional
EPS = 1e-5
MASKS = [(True, True, True), (True, False, False), (False, True, True), (False, False, True), (True, False, True)]


def tensor(items: Any) -> Any:
    return torch.tensor(counting.values(items).astype(float))


def saved(values: Any) -> Any:
    """Statistics that the forward left: numbers whose making is not counted here."""
    return np.vectorize(Counted, otypes=[object])(values)


def close(found: Any, expected: Any) -> bool:
    return np.allclose(counting.values(found).astype(float), expected.numpy())


# -- batch norm ------------------------------------------------------------------------------------


def batch_norm_backward(g: Any, x: Any, weight: Any, mean: Any, invstd: Any, mask: Any) -> tuple[Any, Any, Any]:
    """x[C, n] in training: sums, then grad_x = g * a - x * b + c."""
    channels, n = x.shape
    by_x, by_weight, by_bias = np.empty_like(x), np.empty(channels, dtype=object), np.empty(channels, dtype=object)
    for ch in range(channels):
        m, r = mean[ch], invstd[ch]
        if mask[2] or mask[0]:
            s = by_bias[ch] = total(g[ch])
        if mask[1] or mask[0]:
            d = by_weight[ch] = total(g[ch, i] * (x[ch, i] - m) for i in range(n)) * r
        if mask[0]:
            a = r if weight is None else r * weight[ch]
            b = a * (d * r / n)
            c = b * m - a * s / n
            for i in range(n):
                by_x[ch, i] = g[ch, i] * a - x[ch, i] * b + c
    return by_x, by_weight, by_bias


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("has_weight", [True, False])
def test_batch_norm_in_training(has_weight: bool, mask: tuple[bool, bool, bool]) -> None:
    x, g, weight = counting.array(3, 8), counting.array(3, 8, seed=1), counting.array(3, seed=2)
    plain = counting.values(x).astype(float)
    mean, invstd = saved(plain.mean(1)), saved(1 / np.sqrt(plain.var(1) + EPS))
    with counting.counting() as tally:
        found = batch_norm_backward(g, x, weight if has_weight else None, mean, invstd, mask)
    w, b = tensor(weight).requires_grad_(), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    operand = tensor(x).T.contiguous().requires_grad_()
    out = F.batch_norm(operand, None, None, w if has_weight else None, b if has_weight else None, True, eps=EPS)
    leaves = [operand, w, b] if has_weight else [operand]
    expected = list(torch.autograd.grad(out, leaves, tensor(g).T))
    expected[0] = expected[0].T
    for index, (mine, theirs) in enumerate(zip(found, expected, strict=False)):
        assert not mask[index] or close(mine, theirs)

    x_, d = f32(2, 3, 4), f32(3)  # 8 elements a channel
    arguments = {"grad_out": x_, "input": x_, "weight": d if has_weight else None, "save_mean": d, "save_invstd": d}
    cost = cost_of("aten.native_batch_norm_backward", {**arguments, "train": True, "output_mask": list(mask)}, x_)
    assert cost is not None
    assert cost.vector_flops == tally.flops
    assert cost.bytes_written == 4 * (24 * mask[0] + 3 * mask[1] + 3 * mask[2])


def test_batch_norm_with_fixed_statistics_is_a_scale() -> None:
    x, g, weight = counting.array(3, 8), counting.array(3, 8, seed=1), counting.array(3, seed=2)
    mean, var = counting.array(3, seed=3), counting.array(3, seed=4, low=0.5)
    by_x, by_weight, by_bias = np.empty_like(x), np.empty(3, dtype=object), np.empty(3, dtype=object)
    with counting.counting() as tally:
        for ch in range(3):
            r = rsqrt(var[ch] + EPS)
            a = r * weight[ch]
            by_bias[ch] = total(g[ch])
            by_weight[ch] = total(g[ch, i] * (x[ch, i] - mean[ch]) for i in range(8)) * r
            for i in range(8):
                by_x[ch, i] = g[ch, i] * a
    operand, w = tensor(x).T.contiguous().requires_grad_(), tensor(weight).requires_grad_()
    b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    out = F.batch_norm(operand, tensor(mean), tensor(var), w, b, False, eps=EPS)
    expected = torch.autograd.grad(out, [operand, w, b], tensor(g).T)
    assert close(by_x.T, expected[0])
    assert close(by_weight, expected[1])
    assert close(by_bias, expected[2])
    x_, d = f32(2, 3, 4), f32(3)
    arguments = {"grad_out": x_, "input": x_, "weight": d, "running_mean": d, "running_var": d, "train": False}
    cost = cost_of("aten.native_batch_norm_backward", arguments, (x_, d, d))
    assert cost is not None
    assert cost.vector_flops == tally.flops


def test_a_bias_alone_reads_the_gradient_alone() -> None:
    x, d = f32(2, 3, 4, 4), f32(3)
    statistics = {"weight": d, "save_mean": d, "save_invstd": d}
    asked = {"train": True, "output_mask": [False, False, True]}
    cost = cost_of("aten.native_batch_norm_backward", {"grad_out": x, "input": x, **statistics, **asked}, (d,))
    assert cost is not None
    assert (cost.bytes_read, cost.bytes_written, cost.vector_flops) == (96 * 4, 3 * 4, 96 - 3)


@pytest.mark.parametrize("name", ["cudnn_batch_norm_backward", "miopen_batch_norm_backward", "batch_norm_backward"])
def test_other_names_of_batch_norm_cost_the_same(name: str) -> None:
    x, d = f32(2, 3, 4, 4), f32(3)
    native = cost_of(
        "aten.native_batch_norm_backward",
        {"grad_out": x, "input": x, "weight": d, "save_mean": d, "save_invstd": d, "train": True},
        (x, d, d),
    )
    by_name = {"grad_out": x, "grad_output": x, "input": x, "weight": d, "save_mean": d, "save_var": d, "update": True}
    assert cost_of(f"aten.{name}", by_name, (x, d, d)) == native


# -- layer and RMS norm ----------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("has_weight", [True, False])
def test_layer_norm(has_weight: bool, mask: tuple[bool, bool, bool]) -> None:
    rows, n = 4, 6
    x, g, weight = counting.array(rows, n), counting.array(rows, n, seed=1), counting.array(n, seed=2)
    plain = counting.values(x).astype(float)
    mean, rstd = saved(plain.mean(1)), saved(1 / np.sqrt(plain.var(1) + EPS))
    by_x, by_weight, by_bias = np.empty_like(x), [None] * n, [None] * n
    with counting.counting() as tally:
        if mask[0] or mask[1]:
            xhat = np.array([[(x[i, j] - mean[i]) * rstd[i] for j in range(n)] for i in range(rows)], dtype=object)
        if mask[0]:
            for i in range(rows):
                gw = [g[i, j] * weight[j] for j in range(n)] if has_weight else list(g[i])
                s, d = total(gw) / n, total(gw[j] * xhat[i, j] for j in range(n)) / n
                for j in range(n):
                    by_x[i, j] = rstd[i] * (gw[j] - s - xhat[i, j] * d)
        if mask[1]:
            by_weight = [total(g[i, j] * xhat[i, j] for i in range(rows)) for j in range(n)]
        if mask[2]:
            by_bias = [total(g[:, j]) for j in range(n)]
    operand, w = tensor(x).requires_grad_(), tensor(weight).requires_grad_()
    b = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    out = F.layer_norm(operand, (n,), w if has_weight else None, b if has_weight else None, EPS)
    leaves = [operand, w, b] if has_weight else [operand]
    found = (by_x, by_weight, by_bias)
    for index, theirs in enumerate(torch.autograd.grad(out, leaves, tensor(g))):
        assert not mask[index] or close(found[index], theirs)
    arguments = {
        "grad_out": f32(rows, n), "input": f32(rows, n), "normalized_shape": [n], "mean": f32(rows, 1),
        "rstd": f32(rows, 1), "weight": f32(n) if has_weight else None, "output_mask": list(mask),
    }  # fmt: skip
    cost = cost_of("aten.native_layer_norm_backward", arguments, f32(rows, n))
    assert cost is not None
    assert cost.vector_flops == tally.flops
    assert cost.bytes_written == 4 * (rows * n * mask[0] + n * mask[1] + n * mask[2])


@pytest.mark.parametrize("mask", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("has_weight", [True, False])
def test_rms_norm(has_weight: bool, mask: tuple[bool, bool]) -> None:
    rows, n = 4, 6
    x, g, weight = counting.array(rows, n), counting.array(rows, n, seed=1), counting.array(n, seed=2)
    plain = counting.values(x).astype(float)
    rstd = saved(1 / np.sqrt((plain**2).mean(1) + EPS))
    by_x, by_weight = np.empty_like(x), [None] * n
    with counting.counting() as tally:
        xhat = np.array([[x[i, j] * rstd[i] for j in range(n)] for i in range(rows)], dtype=object)
        if mask[0]:
            for i in range(rows):
                gw = [g[i, j] * weight[j] for j in range(n)] if has_weight else list(g[i])
                d = total(gw[j] * xhat[i, j] for j in range(n)) / n
                for j in range(n):
                    by_x[i, j] = rstd[i] * (gw[j] - xhat[i, j] * d)
        if mask[1]:
            by_weight = [total(g[i, j] * xhat[i, j] for i in range(rows)) for j in range(n)]
    operand, w = tensor(x).requires_grad_(), tensor(weight).requires_grad_()
    out = F.rms_norm(operand, (n,), w if has_weight else None, EPS)
    found = (by_x, by_weight)
    for index, theirs in enumerate(torch.autograd.grad(out, [operand, w] if has_weight else [operand], tensor(g))):
        assert not mask[index] or close(found[index], theirs)
    arguments = {
        "grad_out": f32(rows, n), "input": f32(rows, n), "normalized_shape": [n], "rstd": f32(rows, 1),
        "weight": f32(n) if has_weight else None, "output_mask": list(mask),
    }  # fmt: skip
    cost = cost_of("aten._fused_rms_norm_backward", arguments, f32(rows, n))
    assert cost is not None
    assert cost.vector_flops == tally.flops


# -- group and weight norm -------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("has_weight", [True, False])
def test_group_norm(has_weight: bool, mask: tuple[bool, bool, bool]) -> None:
    images, channels, positions, groups = 2, 6, 5, 3
    width = channels // groups
    x, g = counting.array(images, channels, positions), counting.array(images, channels, positions, seed=1)
    weight = counting.array(channels, seed=2)
    plain = counting.values(x).astype(float).reshape(images, groups, -1)
    mean, rstd = saved(plain.mean(2)), saved(1 / np.sqrt(plain.var(2) + EPS))
    n = width * positions
    by_x, by_weight, by_bias = np.empty_like(x), [None] * channels, [None] * channels
    group_of = [c // width for c in range(channels)]
    with counting.counting() as tally:
        planes = [(i, c) for i in range(images) for c in range(channels)]
        s = {p: total(g[p]) for p in planes}
        if mask[0] or mask[1]:
            d = {p: total(g[p][j] * x[p][j] for j in range(positions)) for p in planes}
        if mask[0]:
            for i in range(images):
                for k in range(groups):
                    inside = [c for c in range(channels) if group_of[c] == k]
                    weighted = [
                        total(by[i, c] * weight[c] if has_weight else by[i, c] for c in inside) for by in (s, d)
                    ]
                    m, r = mean[i, k], rstd[i, k]
                    b = (weighted[1] - weighted[0] * m) * r * r * r / n
                    shift = b * m - weighted[0] * r / n
                    for c in inside:
                        a = r * weight[c] if has_weight else r
                        for j in range(positions):
                            by_x[i, c, j] = g[i, c, j] * a - x[i, c, j] * b + shift
        if mask[1]:
            by_weight = [
                total((d[i, c] - s[i, c] * mean[i, group_of[c]]) * rstd[i, group_of[c]] for i in range(images))
                for c in range(channels)
            ]
        if mask[2]:
            by_bias = [total(s[i, c] for i in range(images)) for c in range(channels)]
    operand, w = tensor(x).requires_grad_(), tensor(weight).requires_grad_()
    bias = torch.zeros(channels, dtype=torch.float64, requires_grad=True)
    out = F.group_norm(operand, groups, w if has_weight else None, bias if has_weight else None, EPS)
    leaves = [operand, w, bias] if has_weight else [operand]
    found = (by_x, by_weight, by_bias)
    for index, theirs in enumerate(torch.autograd.grad(out, leaves, tensor(g))):
        assert not mask[index] or close(found[index], theirs)
    spec = f32(images, channels, positions)
    arguments = {
        "grad_out": spec, "input": spec, "mean": f32(images, groups), "rstd": f32(images, groups),
        "weight": f32(channels) if has_weight else None, "N": images, "C": channels, "HxW": positions,
        "group": groups, "output_mask": list(mask),
    }  # fmt: skip
    cost = cost_of("aten.native_group_norm_backward", arguments, spec)
    assert cost is not None
    assert cost.vector_flops == tally.flops


def test_weight_norm() -> None:
    v, g, grad = counting.array(4, 6), counting.array(4, seed=1), counting.array(4, 6, seed=2)
    norms = saved(np.linalg.norm(counting.values(v).astype(float), axis=1))
    by_v, by_g = np.empty_like(v), np.empty(4, dtype=object)
    with counting.counting() as tally:
        for i in range(4):
            by_g[i] = total(grad[i, j] * v[i, j] for j in range(6)) / norms[i]
            c, k = by_g[i] / norms[i], g[i] / norms[i]
            for j in range(6):
                by_v[i, j] = (grad[i, j] - v[i, j] * c) * k
    operands = [tensor(v).requires_grad_(), tensor(g)[:, None].requires_grad_()]
    expected = torch.autograd.grad(torch._weight_norm(*operands, 0), operands, tensor(grad))
    assert close(by_v, expected[0])
    assert close(by_g, expected[1][:, 0])
    specs = {"grad_w": f32(4, 6), "saved_v": f32(4, 6), "saved_g": f32(4, 1), "saved_norms": f32(4, 1)}
    cost = cost_of("aten._weight_norm_interface_backward", specs, (f32(4, 6), f32(4, 1)))
    assert cost is not None
    assert cost.vector_flops == tally.flops


def test_symbolic_is_concrete() -> None:
    d = f32(6)

    def batch(n: Any) -> tuple[dict[str, Any], Any]:
        x = TensorSpec((n, 6, 5, 5))
        norm = {"weight": d, "save_mean": d, "save_invstd": d, "train": True, "output_mask": [True, True, True]}
        return {"grad_out": x, "input": x, **norm}, (x, d, d)

    def group(n: Any) -> tuple[dict[str, Any], Any]:
        x, m = TensorSpec((n, 6, 25)), TensorSpec((n, 3))
        norm = {"mean": m, "rstd": m, "weight": d, "N": n, "C": 6, "HxW": 25, "group": 3}
        return {"grad_out": x, "input": x, **norm}, (x, d, d)

    check_symbolic("aten.native_batch_norm_backward", batch, (1, 3, 8))
    check_symbolic("aten.native_group_norm_backward", group, (1, 3, 8))
