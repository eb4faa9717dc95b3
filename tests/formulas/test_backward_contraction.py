"""The backward of contractions: loops that count multiplications, autograd's values, torch's own counter on meta."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from costmodel.formulas.attention import causal_counted
from costmodel.formulas.registry import cost_of
from costmodel.symbols import symbol
from costmodel.tensor import TensorSpec, f32

from . import counting
from .differential import meta, specs

torch = pytest.importorskip("torch")
F = torch.nn.functional
FlopCounterMode = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode


def backward_flops_by_torch(build: Any) -> int:
    """What torch's counter counts in the backward of ``build()`` on the meta device, its forward not among it."""
    result = build()
    with FlopCounterMode(display=False) as counter:
        result.sum().backward()
    return counter.get_total_flops()


# -- convolution -----------------------------------------------------------------------------------


def wgrad_by_loops(x: Any, g: Any, weight_shape: tuple[int, ...], stride: int, dilation: int) -> tuple[Any, int]:
    """grad_weight[O, C/groups, K, K] of an x[N, C, *] that is padded already, and how many products it takes."""
    images, outputs = g.shape[:2]
    per_group_out = outputs * weight_shape[1] // x.shape[1]
    result, products = np.zeros(weight_shape), 0
    for o, c, i, j in itertools.product(*map(range, weight_shape)):
        channel = o // per_group_out * weight_shape[1] + c
        for n, p, q in itertools.product(range(images), *map(range, g.shape[2:])):
            result[o, c, i, j] += g[n, o, p, q] * x[n, channel, p * stride + i * dilation, q * stride + j * dilation]
            products += 1
    return result, products


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "dilation", "padding"), [(1, 1, 0), (2, 1, 1), (1, 2, 2)])
def test_wgrad_has_the_macs_that_the_loop_counts(groups: int, stride: int, dilation: int, padding: int) -> None:
    """Grouped and depthwise convolutions too."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(8, 4 // groups, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    out = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    g = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    (expected,) = torch.autograd.grad(out, weight, g)
    padded = F.pad(x, [padding] * 4).numpy()
    found, products = wgrad_by_loops(padded, g.numpy(), tuple(weight.shape), stride, dilation)
    assert np.allclose(found, expected.numpy())
    arguments = {
        "grad_output": f32(*g.shape), "input": f32(*x.shape), "weight": f32(*weight.shape), "stride": [stride] * 2,
        "padding": [padding] * 2, "dilation": [dilation] * 2, "groups": groups, "output_mask": [False, True, False],
    }  # fmt: skip
    cost = cost_of("aten.convolution_backward", arguments, f32(*weight.shape))
    assert cost is not None
    assert cost.macs == products
    assert (cost.bytes_read, cost.bytes_written) == (4 * (g.numel() + x.numel()), 4 * weight.numel())


CONVOLUTIONS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("conv2d", (2, 3, 9, 9), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    ("conv2d", (2, 3, 9, 9), (4, 3, 1, 1), {}),
    ("conv1d", (2, 3, 9), (4, 3, 3), {"dilation": 2}),
    ("conv3d", (1, 3, 5, 6, 7), (4, 3, 3, 3, 3), {"padding": 1}),
    ("conv_transpose2d", (2, 3, 4, 4), (3, 5, 2, 2), {"stride": 2}),
    ("conv_transpose1d", (2, 3, 4), (3, 5, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
]


@pytest.mark.parametrize(("name", "x_shape", "w_shape", "parameters"), CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("needs_input", [True, False])
@pytest.mark.parametrize("needs_weight", [True, False])
def test_convolution_backward_is_torchs_count(
    name: str, x_shape: Any, w_shape: Any, parameters: dict[str, Any], needs_input: bool, needs_weight: bool
) -> None:
    if not (needs_input or needs_weight):
        return
    x, w = meta(*x_shape).requires_grad_(needs_input), meta(*w_shape).requires_grad_(needs_weight)
    out = getattr(F, name)(x, w, **parameters)
    by_torch = backward_flops_by_torch(lambda: getattr(F, name)(x, w, **parameters))
    mask = [needs_input, needs_weight, False]
    named = {"grad_output": specs(out), "input": specs(x), "weight": specs(w), "transposed": "transpose" in name}
    results = tuple(specs(t) for t, asked in zip((x, w), mask, strict=False) if asked)
    cost = cost_of("aten.convolution_backward", {**named, **parameters, "output_mask": mask}, results)
    assert cost is not None
    assert cost.matrix_flops == by_torch
    assert cost.bytes_written == 4 * sum(t.numel() for t, asked in zip((x, w), mask, strict=False) if asked)


@pytest.mark.parametrize("channels", [(4, 8), (4, 4)], ids=str)
def test_a_grouped_convolution_costs_what_its_groups_cost_apart(channels: tuple[int, int]) -> None:
    """The law that decides where torch's counter takes ``groups`` times the products for a grouped wgrad."""
    inputs, outputs = channels
    for groups in (2, 4):
        x, w = f32(2, inputs, 6, 6), f32(outputs, inputs // groups, 3, 3)
        one = [f32(2, inputs // groups, 6, 6), f32(outputs // groups, inputs // groups, 3, 3)]
        whole = cost_of("aten.convolution_backward", {"grad_output": f32(2, outputs, 4, 4), "input": x, "weight": w}, x)
        part = cost_of(
            "aten.convolution_backward",
            {"grad_output": f32(2, outputs // groups, 4, 4), "input": one[0], "weight": one[1]},
            x,
        )
        assert whole is not None
        assert part is not None
        assert whole.macs == groups * part.macs


def test_the_bias_is_a_sum_and_the_workspace_the_forwards() -> None:
    x, w, g = f32(2, 3, 9, 9), f32(4, 3, 3, 3), f32(2, 4, 7, 7)
    forward = cost_of("aten.convolution", {"input": x, "weight": w, "stride": [1, 1], "padding": [0, 0]}, g)
    arguments = {"grad_output": g, "input": x, "weight": w, "bias_sizes": [4], "output_mask": [True, True, True]}
    cost = cost_of("aten.convolution_backward", arguments, (x, w, f32(4)))
    bias = cost_of("aten.convolution_backward", {**arguments, "output_mask": [False, False, True]}, f32(4))
    assert forward is not None
    assert cost is not None
    assert bias is not None
    assert cost.workspace_bytes == forward.workspace_bytes == 4 * (3 * 9) * (2 * 7 * 7)
    assert (cost.launches, cost.activations) == (3, 2 * 3 * 81 + 4 * 27)
    with counting.counting() as tally:
        for channel in counting.array(4, 2 * 7 * 7):
            counting.total(channel)
    assert (bias.vector_flops, bias.matrix_flops, bias.workspace_bytes) == (tally.flops, 0, 0)
    assert bias.bytes_read == 4 * 2 * 4 * 49


def test_convolution_backward_is_symbolic() -> None:
    def at(n: Any) -> Any:
        x, w, g = TensorSpec((n, 3, 2 * n + 2, 9)), f32(4, 3, 3, 3), TensorSpec((n, 4, 2 * n, 7))
        arguments = {"grad_output": g, "input": x, "weight": w, "output_mask": [True, True, True]}
        return cost_of("aten.convolution_backward", arguments, (x, w, f32(4)))

    symbolic = at(symbol("n"))
    for n in (1, 3, 8):
        assert symbolic.bind({"n": n}) == at(n)


# -- attention -------------------------------------------------------------------------------------

SHAPES = [((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8)), ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6))]


def attention_by_hand(q: Any, k: Any, v: Any) -> Any:
    return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1) @ v


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "_scaled_dot_product_flash_attention_backward",
        "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_cudnn_attention_backward",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ],
)
def test_attention_backward_is_the_four_products_of_autograd(name: str, shapes: Any) -> None:
    q, k, v = (meta(*shape).requires_grad_() for shape in shapes)
    by_torch = backward_flops_by_torch(lambda: attention_by_hand(q, k, v))
    grad = f32(*shapes[0][:-1], shapes[2][-1])
    lse = f32(*shapes[0][:-1])
    arguments = {"grad_out": grad, "grad_out_": grad, "query": specs(q), "key": specs(k), "value": specs(v)}
    cost = cost_of(f"aten.{name}", {**arguments, "attn_bias": None, "logsumexp": lse}, (specs(q), specs(k), specs(v)))
    assert cost is not None
    assert cost.matrix_flops == by_torch
    forward = cost_of(
        "aten.scaled_dot_product_attention", {k: v for k, v in arguments.items() if "grad" not in k}, grad
    )
    assert forward is not None
    assert cost.macs == 2 * forward.macs
    assert cost.bytes_read == 4 * (2 * grad.numel + lse.numel + q.numel() + k.numel() + v.numel())


def test_what_torch_counts_besides_is_one_recomputed_product() -> None:
    """The counter knows flash attention's backward as a kernel, with the scores made again."""
    from torch.utils.flop_counter import sdpa_backward_flop_count

    q, kv = (2, 4, 5, 8), (2, 4, 7, 8)
    arguments = {"grad_out": f32(*q), "query": f32(*q), "key": f32(*kv), "value": f32(*kv), "logsumexp": f32(2, 4, 5)}
    cost = cost_of("aten._scaled_dot_product_flash_attention_backward", arguments, (f32(*q), f32(*kv), f32(*kv)))
    assert cost is not None
    assert sdpa_backward_flop_count(q, q, kv, kv) - cost.matrix_flops == 2 * (2 * 4) * 5 * 7 * 8


def test_attention_backward_costs_what_doing_it_counts() -> None:
    """One head by loops: dP, dS and the sums; products of matrices are not vector work."""
    rows, keys = 3, 5
    p, dp = counting.array(rows, keys), counting.array(rows, keys, seed=1)
    with counting.counting() as tally:
        for i in range(rows):
            inner = counting.total(p[i, j] * dp[i, j] for j in range(keys))
            for j in range(keys):
                (dp[i, j] - inner) * p[i, j] * 0.35
    q, kv = f32(1, 1, rows, 8), f32(1, 1, keys, 8)
    arguments = {"grad_out": q, "query": q, "key": kv, "value": kv, "logsumexp": f32(1, 1, rows)}
    name = "aten._scaled_dot_product_flash_attention_backward"
    cost, dropped = (cost_of(name, {**arguments, "dropout_p": p}, (q, kv, kv)) for p in (0.0, 0.1))
    assert cost is not None
    assert dropped is not None
    assert cost.vector_flops == tally.flops
    assert dropped.vector_flops - cost.vector_flops == rows * keys


def test_half_of_a_causal_backward_is_counted_when_asked() -> None:
    q = f32(1, 2, 6, 8)
    arguments = {"grad_out": q, "query": q, "key": q, "value": q, "logsumexp": f32(1, 2, 6), "is_causal": True}
    with causal_counted("half"):
        cost = cost_of("aten._scaled_dot_product_flash_attention_backward", arguments, (q, q, q))
    assert cost is not None
    assert cost.macs == 2 * sum(1 for i in range(6) for j in range(6) if j <= i) * 4 * 8


@pytest.mark.parametrize("name", ["_flash_attention_backward", "_efficient_attention_backward"])
def test_heads_after_the_sequence(name: str) -> None:
    q, starts = f32(1, 12, 4, 8), TensorSpec((4,), "int32")  # three sequences of at most 5, 12 tokens in all
    padded = f32(3, 5, 4, 8)
    arguments = {"grad_out": q, "grad_out_": q, "query": q, "key": q, "value": q, "bias": None, "logsumexp": f32(4, 12)}
    lengths = {"cum_seq_q": starts, "cum_seq_k": starts, "max_q": 5, "max_k": 5}
    lengths |= {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "max_seqlen_q": 5, "max_seqlen_k": 5}
    packed = cost_of(f"aten.{name}", {**arguments, **lengths}, (q, q, q))
    whole = cost_of(
        f"aten.{name}",
        {
            **dict.fromkeys(("grad_out", "grad_out_", "query", "key", "value"), padded),
            "bias": None,
            "logsumexp": f32(3, 4, 5),
        },
        (padded,) * 3,
    )
    assert packed is not None
    assert whole is not None
    assert packed.macs == whole.macs == 3 * 4 * 5 * 5 * 4 * 8


# -- recurrent networks ----------------------------------------------------------------------------


def lstm_by_hand(x: Any, h: Any, c: Any, params: Any) -> Any:
    """One layer with all inputs' products at once, as cuDNN has it; the last state is put out too."""
    w_ih, w_hh, outputs = params[0], params[1], []
    gates_of = x.reshape(-1, x.shape[-1]) @ w_ih.t()
    for step in gates_of.reshape(*x.shape[:-1], -1):
        i, f, g, o = (step + h @ w_hh.t()).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("needs_input", [True, False])
def test_lstm_backward_is_what_torch_counts_step_by_step(needs_input: bool) -> None:
    x, params = meta(6, 2, 5).requires_grad_(needs_input), [meta(28, 5).requires_grad_(), meta(28, 7).requires_grad_()]
    h, c = meta(2, 7).requires_grad_(), meta(2, 7).requires_grad_()
    by_torch = backward_flops_by_torch(lambda: lstm_by_hand(x, h, c, params))
    arguments = {
        "input": f32(6, 2, 5), "weight": [f32(28, 5), f32(28, 7)], "hx": f32(1, 2, 7), "cx": f32(1, 2, 7),
        "output": f32(6, 2, 7), "grad_output": f32(6, 2, 7), "grad_hy": None, "grad_cy": None, "mode": 2,
        "output_mask": [needs_input, True, True, True],
    }  # fmt: skip
    cost = cost_of("aten._cudnn_rnn_backward", arguments, f32(6, 2, 5))
    assert cost is not None
    assert cost.matrix_flops == by_torch


def lstm_cell_backward(i: Any, f: Any, g: Any, o: Any, c_old: Any, c: Any, dh: Any, dc: Any) -> list[Any]:
    """Gradients of the four gates before their nonlinearities, and of the old state."""
    t = counting.tanh(c)
    do = dh * t
    dc = dc + dh * o * (1 - t * t)
    di, dg, df, before = dc * g, dc * i, dc * c_old, dc * f
    sigmoids = [d * (1 - s) * s for d, s in ((di, i), (df, f), (do, o))]
    return [sigmoids[0], sigmoids[1], dg * (1 - g * g), sigmoids[2], before]


def gru_cell_backward(r: Any, z: Any, n: Any, hidden: Any, h: Any, dh: Any) -> list[Any]:
    """Gradients of r, z and n before their nonlinearities, of the hidden state's part of n, and h's own way past."""
    dz, dn = dh * (h - n), dh * (1 - z)
    past = dh * z
    dn = dn * (1 - n * n)
    by_hidden, dr = dn * r, dn * hidden
    return [dr * (1 - r) * r, dz * (1 - z) * z, dn, by_hidden, past]


def _gradients_by_torch(cell: Any, values: list[float], grads: list[float]) -> list[float]:
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    out = cell(*leaves)
    found = torch.autograd.grad(out, leaves, [torch.tensor(g, dtype=torch.float64) for g in grads])
    return [float(v) for v in found]


def test_lstm_cell_backward_costs_what_doing_it_counts() -> None:
    def cell(i: Any, f: Any, g: Any, o: Any, c_old: Any) -> Any:
        c = f.sigmoid() * c_old + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    raw = [0.3, 0.6, -0.4, 0.7, 0.2]
    gates = [float(torch.sigmoid(torch.tensor(v).double())) for v in raw[:4]]
    gates[2] = float(np.tanh(raw[2]))
    c = gates[1] * raw[4] + gates[0] * gates[2]
    operands = [counting.Counted(v) for v in (*gates, raw[4], c, 0.9, -0.3)]
    with counting.counting() as tally:
        found = lstm_cell_backward(*operands)
    assert [float(v) for v in found] == pytest.approx(_gradients_by_torch(cell, raw, [0.9, -0.3]))
    state, four = f32(2, 7), f32(2, 28)
    arguments = {"grad_hy": state, "grad_cy": state, "cx": state, "cy": state, "workspace": four, "has_bias": False}
    cost = cost_of("aten._thnn_fused_lstm_cell_backward_impl", arguments, (four, state))
    assert cost is not None
    assert cost.vector_flops == 14 * tally.flops


def test_gru_cell_backward_costs_what_doing_it_counts() -> None:
    def cell(r: Any, z: Any, n: Any, hidden: Any, h: Any) -> Any:
        new = (n + r.sigmoid() * hidden).tanh()
        return (new + z.sigmoid() * (h - new),)

    raw = [0.3, 0.6, -0.4, 0.7, 0.2]
    r, z = (float(torch.sigmoid(torch.tensor(v).double())) for v in raw[:2])
    n = float(np.tanh(raw[2] + r * raw[3]))
    operands = [counting.Counted(v) for v in (r, z, n, raw[3], raw[4], 0.9)]
    with counting.counting() as tally:
        found = gru_cell_backward(*operands)
    assert [float(v) for v in found] == pytest.approx(_gradients_by_torch(cell, raw, [0.9]))
    state, three = f32(2, 7), f32(2, 21)
    arguments = {"grad_hy": state, "workspace": f32(2, 35), "has_bias": False}
    cost = cost_of("aten._thnn_fused_gru_cell_backward", arguments, (three, three, state))
    assert cost is not None
    assert cost.vector_flops == 14 * tally.flops


def test_a_whole_lstm_is_its_cells_and_sums() -> None:
    """Per token and unit a cell and the sum of h's two gradients; per bias a sum over all tokens."""
    arguments = {
        "input": f32(6, 2, 5), "weight": [f32(28, 5), f32(28, 7), f32(28), f32(28)], "hx": f32(1, 2, 7),
        "cx": f32(1, 2, 7), "output": f32(6, 2, 7), "grad_output": f32(6, 2, 7), "grad_hy": None, "grad_cy": None,
        "mode": 2, "output_mask": [True] * 4,
    }  # fmt: skip
    cost = cost_of("aten._cudnn_rnn_backward", arguments, f32(6, 2, 5))
    operands = [counting.Counted(v) for v in (0.3, 0.6, -0.4, 0.7, 0.2, 0.5, 0.9, -0.3)]
    with counting.counting() as cell:
        lstm_cell_backward(*operands)
    assert cost is not None
    assert cost.vector_flops == 12 * 7 * (cell.flops + 1) + 2 * 28 * (12 - 1)


def test_zeros_that_a_caller_pads_heads_with_are_no_work() -> None:
    q, narrow = f32(1, 4, 5, 24), f32(1, 4, 5, 20)
    names = "aten._scaled_dot_product_flash_attention", "aten._scaled_dot_product_flash_attention_backward"
    for name in names:
        arguments = {"grad_out": q, "query": q, "key": q, "value": q, "logsumexp": f32(1, 4, 5)}
        padded = cost_of(name, {**arguments, "head_width": 20}, (q, q, q))
        true = cost_of(name, dict.fromkeys(arguments, narrow) | {"logsumexp": f32(1, 4, 5)}, (narrow,) * 3)
        assert padded is not None
        assert true is not None
        assert (padded.macs, padded.vector_flops) == (true.macs, true.vector_flops)
        assert padded.bytes_read > true.bytes_read  # the zeros are read all the same
