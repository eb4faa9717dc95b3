"""What a training step asks of the host, counted by hand from the table's parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

import costmodel
from costmodel.execution import NodePhase
from costmodel.formulas import is_free, known_operators, lookup
from costmodel.host.costs import MODERN, class_of
from costmodel.host.issue import node_us

C, T, A = MODERN.classes, MODERN.training, MODERN.allocation


def base(analysis, phase):
    """µs on the reference core of each node of a phase, by name."""
    costs = zip(analysis.bound.nodes, node_us(analysis.bound, MODERN), strict=True)
    return {node.name: us for node, us in costs if node.phase is phase}


@pytest.fixture(scope="module")
def two_layers():
    """Two linear layers without bias and a relu: cross entropy, four functions of autograd before it."""
    module = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False))
    return costmodel.analyze(module, torch.zeros(3, 6), hw="a100", phase="training", optimizer="sgd")


def test_forward_pays_for_autograds_notes_and_views_of_weights_are_cheap(two_layers):
    """linear is a module call, the view of its weight inside C++ and the product."""
    found = list(base(two_layers, NodePhase.FORWARD).values())[:5]
    view, product = T.view + T.differentiated, C["product"] + A + T.differentiated
    relu = MODERN.module + C["pointwise"] + A + T.differentiated
    assert found == pytest.approx([MODERN.module + view, product, relu, MODERN.module + view, product])


def test_backward_pays_for_functions_and_kept_gradients_but_for_no_module(two_layers):
    """Of the first layer only the weight has a gradient: mm and its views are one function, t the next, which keeps."""
    nodes = [n for n in two_layers.bound.nodes if n.phase is NodePhase.BACKWARD]
    functions = 1 + sum(a.forward != b.forward for a, b in pairwise(nodes))
    by_class = sum(T.view if is_free(n.op) else C[class_of(n.op)] + A - MODERN.python for n in nodes)
    first = nodes[0].forward is None
    expected = by_class + T.function * (functions - first) + T.begun + 2 * T.accumulated
    assert sum(base(two_layers, NodePhase.BACKWARD).values()) == pytest.approx(expected)


def test_a_convolution_backward_is_a_call_for_each_gradient():
    module = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    analysis = costmodel.analyze(module, torch.zeros(2, 8, 9, 9), hw="a100", phase="training")
    found = {n.module: us for n, us in zip(analysis.bound.nodes, node_us(analysis.bound, MODERN), strict=True)
             if n.op == "aten.convolution_backward"}  # fmt: skip
    assert found["1"] - found["0"] == pytest.approx(C["convolution"])


@pytest.mark.parametrize(("optimizer", "each"), [
    ("sgd", T.parameter + 2 * T.listed),
    ("momentum", T.parameter + T.state + (1 + 2 + 2) * T.listed),
    ("adam", T.parameter + 2 * T.state + T.counted + (1 + 2 + 1 + 3 + 1 + 1 + 1 + 3) * T.listed + A),
])  # fmt: skip
def test_a_step_grows_with_its_parameters(optimizer, each):
    """Lists of each call: counts 1, lerp 2, mul 1, addcmul 3, sqrt 1 and a new tensor, div 1, add 1, addcdiv 3."""

    def step(layers):
        module = nn.Sequential(*[nn.Linear(8, 8, bias=False) for _ in range(layers)])
        given = costmodel.analyze(module, torch.zeros(2, 8), hw="a100", phase="training", optimizer=optimizer)
        return sum(base(given, NodePhase.OPTIMIZER).values())

    assert step(7) - step(3) == pytest.approx(4 * each)


def test_a_fused_step_asks_less_than_lists():
    module = nn.Sequential(*[nn.Linear(8, 8) for _ in range(20)])
    lists = costmodel.analyze(module, torch.zeros(2, 8), hw="a100", phase="training", optimizer="adam")
    fused = lists.at(fused_optimizer=True)
    assert sum(base(fused, NodePhase.OPTIMIZER).values()) < 0.7 * sum(base(lists, NodePhase.OPTIMIZER).values())
    assert fused.latency < lists.latency < lists.at(host="server-2019").latency


def test_every_operator_that_autograd_runs_has_a_class_of_its_sheet():
    sheets = {op: lookup(op).__module__.rpartition(".")[2] for op in known_operators() if lookup(op) is not None}
    backward = {op: sheet for op, sheet in sheets.items() if sheet.startswith("backward_")}
    assert len(backward) > 50
    for op, sheet in backward.items():
        assert class_of(op) == sheet.removeprefix("backward_"), op


def test_filling_a_tensor_is_no_dearer_than_an_addition():
    """zero_grad of PyTorch 1 fills a tensor for each parameter; nothing is read and nothing made."""
    for op in ("aten.zero", "aten.fill", "aten.ones_like"):
        assert class_of(op) == class_of("aten.add") == "pointwise"
