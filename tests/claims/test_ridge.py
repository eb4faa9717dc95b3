"""Where a layer crosses a machine's ridge point: solved in symbols, checked on both sides in numbers."""

from __future__ import annotations

import pytest
import sympy

from costmodel.api import analyze
from costmodel.claims import conv, intensity, maps, node_crossing, ridge_crossing
from costmodel.claims.layers import depthwise
from costmodel.hardware import load
from costmodel.symbols import symbol

I = sympy.Symbol("I", positive=True)  # noqa: E741 - the roofline model's own letter


def flops_per_byte(channels: int, side: int, batch: int) -> float:
    """1x1 convolution, C to C, fp32: 2*N*H*W*C² FLOP over 4 B for each of N*H*W*C in, as many out, and C² weights."""
    positions = batch * side * side
    return 2 * positions * channels**2 / (4 * (2 * positions * channels + channels**2))


def test_channels_of_a_1x1_convolution_in_closed_form() -> None:
    """2*P*C²/(4*(2*P*C + C²)) = I has the solution C = 4*I*P/(P - 2*I)."""
    p = 56 * 56
    crossing = ridge_crossing(conv(symbol("C"), 1)(maps("C", 56, 56)).cost, "C", ridge=200.0)
    assert sympy.simplify(crossing.expression - 4 * I * p / (p - 2 * I)) == 0
    assert crossing.limit == p // 2
    assert flops_per_byte(crossing.value, 56, 1) >= 200 > flops_per_byte(crossing.value - 1, 56, 1)


@pytest.mark.parametrize(("machine", "dtype"), [("a100", "fp32"), ("t4", "fp32"), ("v100-sxm-16gb", "fp32")])
def test_batch_at_which_a_layer_becomes_compute_bound(machine: str, dtype: str) -> None:
    ridge = load(machine).ridge_point("vector", dtype)
    crossing = ridge_crossing(conv(512, 1)(maps(512, 7, 7, batch=symbol("N"))).cost, "N", ridge)
    assert crossing.value is not None
    assert flops_per_byte(512, 7, crossing.value) >= ridge
    assert crossing.value == 1 or flops_per_byte(512, 7, crossing.value - 1) < ridge


def test_depthwise_never_gets_there() -> None:
    """2*K² FLOP for 8 B moved an element: a depthwise 3x3 stays below 2.25 FLOP/B at any batch and width."""
    for name, layer in (
        ("N", depthwise(3)(maps(64, 56, 56, batch=symbol("N")))),
        ("C", depthwise(3)(maps("C", 56, 56))),
    ):
        crossing = ridge_crossing(layer.cost, name, ridge=load("a100").ridge_point("vector", "fp32"))
        assert crossing.value is None
        assert float(crossing.limit) <= 18 / 8


def test_intensity_where_other_sizes_stay_open() -> None:
    n, c = symbol("N"), symbol("C")
    crossing = ridge_crossing(conv(c, 1)(maps("C", "H", "W", batch=n)).cost, "N", ridge=100.0)
    assert crossing.value is None and c in crossing.expression.free_symbols
    assert crossing.limit == c / 4


def test_a_node_of_a_traced_network() -> None:
    analysis = analyze("zoo:nin", hw="a100")
    index, node = next((i, n) for i, n in enumerate(analysis.record.nodes) if n.op == "aten.conv2d" and i > 2)
    crossing = node_crossing(analysis.costs, index, ridge=20.0)
    at = {b: analysis.at(batch=b).node_costs.of_node(index) for b in (crossing.value - 1, crossing.value) if b}
    reached = {b: cost.flops / cost.bytes >= 20.0 for b, cost in at.items()}
    assert reached[crossing.value], node.name
    assert not reached.get(crossing.value - 1, False)
    assert intensity(analysis.costs.of_node(index)).free_symbols == {symbol("batch")}
