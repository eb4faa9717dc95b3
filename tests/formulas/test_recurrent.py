"""Recurrent networks against counting loops over cells, torch's counter on the modules, and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from costmodel.cost import Cost
from costmodel.formulas.contraction import linear
from costmodel.formulas.recurrent import CELL_FLOPS
from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from .counting import Counted, array, counting, exp, max_, tanh, values
from .differential import check_symbolic, flops_by_torch, meta, ran, specs

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + exp(-x))


def product(weight: Any, x: Any, bias: Any) -> list[Any]:
    """weight @ x + bias, every product accumulated from zero."""
    out = []
    for row, b in zip(weight, bias if bias is not None else [None] * len(weight), strict=True):
        dot = Counted(0.0)
        for w, v in zip(row, x, strict=True):
            dot = dot + w * v
        out.append(dot if b is None else dot + b)
    return out


def cell_by_loops(kind: str, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> tuple[Any, Any]:
    """One token of one layer, as the documentation of torch.nn writes it."""
    size = len(h)
    a, b = product(w_ih, x, b_ih), product(w_hh, h, b_hh)
    if kind == "gru":
        new = []
        for j in range(size):
            r, z = sigmoid(a[j] + b[j]), sigmoid(a[size + j] + b[size + j])
            n = tanh(a[2 * size + j] + r * b[2 * size + j])
            new.append(n + z * (h[j] - n))
        return new, None
    gates = [u + v for u, v in zip(a, b, strict=True)]
    if kind != "lstm":
        return [tanh(g) if kind == "rnn_tanh" else max_(g, 0) for g in gates], None
    i, f, g, o = (gates[k * size : (k + 1) * size] for k in range(4))
    cell = [sigmoid(f[j]) * c[j] + sigmoid(i[j]) * tanh(g[j]) for j in range(size)]
    return [sigmoid(o[j]) * tanh(cell[j]) for j in range(size)], cell


def float_tensor(a: Any) -> Any:
    return None if a is None else torch.tensor(values(a).astype(float))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("has_biases", [True, False])
def test_cells_count_what_loops_count(kind, has_biases):
    batch, width, size = 2, 3, 4
    rows = GATES[kind] * size
    x, h, c = array(batch, width), array(batch, size, seed=1), array(batch, size, seed=2)
    weights = array(rows, width, seed=3), array(rows, size, seed=4)
    biases = (array(rows, seed=5), array(rows, seed=6)) if has_biases else (None, None)
    with counting() as tally:
        out = [cell_by_loops(kind, x[n], h[n], c[n], *weights, *biases) for n in range(batch)]
    state = [float_tensor(h), float_tensor(c)] if kind == "lstm" else float_tensor(h)
    reference = getattr(torch, f"{kind}_cell")(float_tensor(x), state, *map(float_tensor, (*weights, *biases)))
    hidden = reference[0] if kind == "lstm" else reference
    assert np.allclose([[float(v) for v in row] for row, _ in out], hidden.numpy())

    arguments = {
        "input": f32(batch, width), "hx": [f32(batch, size)] * 2 if kind == "lstm" else f32(batch, size),
        "w_ih": f32(rows, width), "w_hh": f32(rows, size),
        **({"b_ih": f32(rows), "b_hh": f32(rows)} if has_biases else {}),
    }  # fmt: skip
    cost = cost_of(f"aten.{kind}_cell", arguments, f32(batch, size))
    assert cost.flops == tally.flops
    assert cost.macs == batch * (weights[0].size + weights[1].size)
    assert cost.activations == batch * 2 * rows


CASES = [
    # layers, bidirectional, biases, batch_first
    (1, False, True, False),
    (1, False, False, True),
    (2, False, True, True),
    (3, True, True, False),
    (2, True, False, False),
]
MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn_tanh": torch.nn.RNN, "rnn_relu": torch.nn.RNN}


def called(kind: str, module: torch.nn.RNNBase, x: torch.Tensor, train: bool = False) -> Cost:
    """Cost of the operator that a recurrent module calls on a padded batch."""
    directions = 2 if module.bidirectional else 1
    batch = x.shape[0 if module.batch_first else 1]
    states = meta(directions * module.num_layers, batch, module.proj_size or module.hidden_size)
    cells = meta(directions * module.num_layers, batch, module.hidden_size)
    hx = [states, cells] if kind == "lstm" else states
    flags = module.bias, module.num_layers, module.dropout, train, module.bidirectional, module.batch_first
    return ran(kind, x, hx, list(module._flat_weights), *flags)[0]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(("layers", "bidirectional", "biases", "batch_first"), CASES)
def test_networks_as_torch_counts(kind, layers, bidirectional, biases, batch_first):
    options: dict[str, Any] = {"nonlinearity": kind.removeprefix("rnn_")} if kind.startswith("rnn") else {}
    options |= {"bias": biases, "bidirectional": bidirectional, "batch_first": batch_first}
    module = MODULES[kind](5, 7, layers, device="meta", **options)
    x = meta(3, 2, 5)
    cost = called(kind, module, x)
    assert cost.matrix_flops == flops_by_torch(module, x) > 0
    parameters = sum(p.numel() for p in module.parameters())
    directions, state_tensors = 1 + bidirectional, 2 if kind == "lstm" else 1
    batch = 3 if batch_first else 2
    states = state_tensors * layers * directions * batch * 7
    assert cost.bytes_read == 4 * (x.numel() + parameters + states)
    assert cost.bytes_written == 4 * (3 * 2 * directions * 7 + states)
    steps = 2 if batch_first else 3
    assert cost.launches == layers * directions * (1 + 2 * steps)


@pytest.mark.parametrize(("layers", "bidirectional", "width"), [(1, False, 5), (2, True, 5), (2, False, 28)])
def test_lstm_with_projections_as_torch_counts(layers, bidirectional, width):
    module = torch.nn.LSTM(width, 7, layers, bidirectional=bidirectional, proj_size=4, device="meta")
    cost = called("lstm", module, meta(3, 2, width))
    assert cost.matrix_flops == flops_by_torch(module, meta(3, 2, width))
    unprojected = torch.nn.LSTM(width, 7, layers, bidirectional=bidirectional, device="meta")
    plain = called("lstm", unprojected, meta(3, 2, width))
    assert cost.vector_flops == plain.vector_flops  # a projection is a matrix product without bias
    assert cost.launches - plain.launches == 3 * layers * (1 + bidirectional)


def test_an_lstm_is_four_linear_layers_of_input_and_state_and_its_cells():
    width, size, steps, batch = 5, 7, 3, 2
    cost = called("lstm", torch.nn.LSTM(width, size, device="meta"), meta(steps, batch, width))
    tokens = steps * batch
    gate = [
        linear(f32(tokens, width), f32(size, width), f32(size), out=f32(tokens, size)),
        linear(f32(tokens, size), f32(size, size), f32(size), out=f32(tokens, size)),
    ]
    assert cost.matrix_flops == 4 * sum(g.matrix_flops for g in gate)
    assert cost.activations == 4 * sum(g.activations for g in gate)
    cells = cost_of(
        "aten._thnn_fused_lstm_cell",
        {"input_gates": f32(tokens, 4 * size), "hidden_gates": f32(tokens, 4 * size), "cx": f32(tokens, size)},
        f32(tokens, size),
    )
    assert cost.vector_flops == 4 * sum(g.vector_flops for g in gate) + cells.vector_flops


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_network_is_its_cells_step_by_step(kind):
    rows = GATES[kind] * 7
    module = MODULES[kind](5, 7, device="meta")
    hx: Any = [f32(2, 7), f32(2, 7)] if kind == "lstm" else f32(2, 7)
    params = {"w_ih": f32(rows, 5), "w_hh": f32(rows, 7), "b_ih": f32(rows), "b_hh": f32(rows)}
    arguments = {"input": f32(2, 5), "hx": hx, **params}
    cell = cost_of(f"aten.{kind}_cell", arguments, f32(2, 7))
    network = called(kind, module, meta(6, 2, 5))
    assert (network.matrix_flops, network.vector_flops) == (6 * cell.matrix_flops, 6 * cell.vector_flops)
    assert network.activations == 6 * cell.activations


def test_both_directions_are_twice_one():
    one = called("gru", torch.nn.GRU(5, 7, device="meta"), meta(3, 2, 5))
    both = called("gru", torch.nn.GRU(5, 7, bidirectional=True, device="meta"), meta(3, 2, 5))
    assert (both.flops, both.launches, both.activations) == (2 * one.flops, 2 * one.launches, 2 * one.activations)


def test_layers_add_up():
    """Two layers are a layer on the input and a layer on the states of the first."""
    both = called("lstm", torch.nn.LSTM(5, 7, 2, device="meta"), meta(3, 2, 5))
    first = called("lstm", torch.nn.LSTM(5, 7, device="meta"), meta(3, 2, 5))
    second = called("lstm", torch.nn.LSTM(7, 7, device="meta"), meta(3, 2, 7))
    assert both.flops == first.flops + second.flops
    assert both.launches == first.launches + second.launches


@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_acts_between_layers_in_training_only(bidirectional):
    module = torch.nn.LSTM(5, 7, 3, dropout=0.5, bidirectional=bidirectional, device="meta")
    x = meta(3, 2, 5)
    between = 2 * (3 * 2) * 7 * (1 + bidirectional)  # two gaps of tokens * states
    assert called("lstm", module, x, train=True).flops - called("lstm", module, x).flops == 2 * between


def test_packed_sequences_count_their_tokens():
    """Sequences of 3, 2 and 1 tokens: 6 tokens in 3 steps, as a padded batch of 2 x 3."""
    params = [f32(28, 5), f32(28, 7), f32(28), f32(28)]
    arguments = {"params": params, "has_biases": True, "num_layers": 1}
    packed = {"data": f32(6, 5), "batch_sizes": TensorSpec((3,), "int64"), "hx": [f32(1, 3, 7)] * 2, **arguments}
    padded = {"input": f32(3, 2, 5), "hx": [f32(1, 3, 7)] * 2, **arguments}
    out = f32(6, 7)
    assert cost_of("aten.lstm", packed, out) == cost_of("aten.lstm", padded, out) + Cost(bytes_read=3 * 8)


@pytest.mark.parametrize(("mode", "kind"), [(0, "rnn_relu"), (1, "rnn_tanh"), (2, "lstm"), (3, "gru")])
def test_cudnn_and_onednn_do_the_same_work(mode, kind):
    rows = GATES[kind] * 7
    params = [f32(rows, 5), f32(rows, 7), f32(rows), f32(rows)]
    states: Any = [f32(1, 2, 7)] * 2
    out = f32(3, 2, 7)
    plain = cost_of(f"aten.{kind}", {"input": f32(3, 2, 5), "hx": states, "params": params}, out)
    cudnn = {"input": f32(3, 2, 5), "weight": params, "hx": states[0], "cx": states[1], "mode": mode}
    assert cost_of("aten._cudnn_rnn", cudnn, out) == plain
    onednn = {"input": f32(3, 2, 5), "hx_": states[0], "cx_": states[1], "mode": mode}
    onednn |= {f"weight{i}": p for i, p in enumerate(params)}
    assert cost_of("aten.mkldnn_rnn_layer", onednn, out) == plain


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_fused_cells_complete_the_products(kind):
    rows = GATES[kind] * 7
    gates, state, bias = f32(2, rows), f32(2, 7), f32(rows)
    fused = {"input_gates": gates, "hidden_gates": gates, ("cx" if kind == "lstm" else "hx"): state}
    biased = {**fused, "input_bias": bias, "hidden_bias": bias}
    cost = cost_of(f"aten._thnn_fused_{kind}_cell", biased, state)
    params = {"w_ih": f32(rows, 5), "w_hh": f32(rows, 7), "b_ih": bias, "b_hh": bias}
    arguments = {"input": f32(2, 5), "hx": [state, state], **params}
    assert cost.vector_flops == cost_of(f"aten.{kind}_cell", arguments, state).vector_flops
    assert cost.vector_flops == cost_of(f"aten._thnn_fused_{kind}_cell", fused, state).vector_flops + 2 * 2 * rows
    assert cost.bytes_read == 4 * (2 * 2 * rows + 2 * 7 + 2 * rows)


def test_neither_input_nor_data_is_an_error_that_names_the_operator():
    from costmodel.errors import FormulaError

    with pytest.raises(FormulaError, match=r"aten\.lstm failed.*needs input or data"):
        cost_of("aten.lstm", {"params": [f32(28, 5), f32(28, 7)]}, f32(3, 2, 7))


def test_symbolic_batch_and_length():
    def build(n):
        params = specs([meta(28, 5), meta(28, 7), meta(28), meta(28)])
        return {"input": f32(2 * n, n, 5), "hx": [f32(1, n, 7)] * 2, "params": params}, f32(2 * n, n, 7)

    check_symbolic("aten.lstm", build, (1, 2, 35))
    assert set(CELL_FLOPS) == {"rnn", "lstm", "gru"}
