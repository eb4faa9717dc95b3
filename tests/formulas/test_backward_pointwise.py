"""The backward of pointwise operators: the expression is evaluated on numbers that count; its value is autograd's."""

from __future__ import annotations

import math
from typing import Any

import pytest

from costmodel.formulas.backward_pointwise import BACKWARD_EXPRESSIONS, GELU_BY_TANH, GELU_EXACT
from costmodel.formulas.elements import expression_flops
from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import Counted

torch = pytest.importorskip("torch")
F = torch.nn.functional

EXPRESSION_OF = {o: e for e, operators in BACKWARD_EXPRESSIONS.items() for o in operators.split()}
VOCABULARY = {
    **{name: function for name, function in vars(counting).items() if callable(function)},
    "min": counting.min_,
    "max": counting.max_,
    "select": lambda c, x, y: counting.select(c, x, y),
    "sqrt": lambda x: counting.sqrt(x) if isinstance(x, Counted) else math.sqrt(x),
    "pi": math.pi,
}  # fmt: skip
PARAMETERS = {"threshold": 0.3, "lo": -0.5, "hi": 0.6, "slope": 0.01, "lambd": 0.5, "scale": 2.0, "norm": 2.0}
G, Y = 0.7, 0.4


def evaluate(expression: str, **elements: Any) -> Any:
    return eval(expression, {"__builtins__": {}, **VOCABULARY, **PARAMETERS, **elements})  # noqa: S307 - our own table


def gradient(function: Any, x: float) -> float:
    """What autograd gives for G as the gradient of the function's result."""
    operand = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(function(operand), operand, torch.tensor([G], dtype=torch.float64))
    return float(found)


def soft_margin(x: Any) -> Any:
    return 2 * F.soft_margin_loss(x, torch.full_like(x, Y), reduction="none")


#: Forward whose gradient it is, by the operator; parameters of its own.
FORWARDS: dict[str, tuple[Any, dict[str, float]]] = {
    "threshold_backward": (lambda x: F.threshold(x, 0.3, 7.0), {}),
    "hardtanh_backward": (lambda x: F.hardtanh(x, -0.5, 0.6), {}),
    "hardsigmoid_backward": (F.hardsigmoid, {}),
    "hardswish_backward": (F.hardswish, {}),
    "leaky_relu_backward": (F.leaky_relu, {}),
    "hardshrink_backward": (F.hardshrink, {}),
    "softshrink_backward": (F.softshrink, {}),
    "silu_backward": (F.silu, {}),
    "mish_backward": (F.mish, {}),
    "mse_loss_backward": (lambda x: F.mse_loss(x, torch.full_like(x, Y), reduction="none"), {}),
    "huber_loss_backward": (
        lambda x: F.huber_loss(x, torch.full_like(x, Y), reduction="none", delta=0.5),
        {"norm": 1.0, "delta": 0.5},
    ),
    "smooth_l1_loss_backward": (
        lambda x: F.smooth_l1_loss(x, torch.full_like(x, Y), reduction="none", beta=0.5),
        {"norm": 1.0, "beta": 0.5},
    ),
    "soft_margin_loss_backward": (soft_margin, {}),
}


@pytest.mark.parametrize("operator_name", sorted(FORWARDS))
@pytest.mark.parametrize("x", [-3.5, -0.7, 0.2, 0.45, 3.5])
def test_expression_is_the_gradient(operator_name: str, x: float) -> None:
    forward, parameters = FORWARDS[operator_name]
    found = float(evaluate(EXPRESSION_OF[operator_name], x=Counted(x), y=Counted(Y), g=Counted(G), **parameters))
    assert found == pytest.approx(gradient(forward, x), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("operator_name", ["sigmoid", "tanh"])
@pytest.mark.parametrize("x", [-0.7, 0.2, 3.5])
def test_gradient_from_the_result(operator_name: str, x: float) -> None:
    result = float(getattr(torch, operator_name)(torch.tensor(x, dtype=torch.float64)))
    found = float(evaluate(EXPRESSION_OF[f"{operator_name}_backward"], x=Counted(result), g=Counted(G)))
    assert found == pytest.approx(gradient(getattr(torch, operator_name), x))


@pytest.mark.parametrize("operator_name", sorted(EXPRESSION_OF))
def test_expression_costs_what_doing_it_counts(operator_name: str) -> None:
    parameters = {"delta": 0.5, "beta": 0.5}
    with counting.counting() as tally:
        for _ in range(2 * 3):
            elements = {"x": Counted(0.2), "y": Counted(Y), "g": Counted(G), "c": Counted(1)}
            evaluate(EXPRESSION_OF[operator_name], **elements, **parameters)
    cost = cost_of(f"aten.{operator_name}", {"grad_output": f32(2, 3), "input": f32(2, 3)}, f32(2, 3))
    assert cost is not None
    assert cost.vector_flops == tally.flops
    assert (cost.bytes_read, cost.bytes_written) == (2 * 6 * 4, 6 * 4)
    assert (cost.matrix_flops, cost.launches) == (0, 1)


@pytest.mark.parametrize(("approximate", "expression"), [("none", GELU_EXACT), ("tanh", GELU_BY_TANH)])
@pytest.mark.parametrize("x", [-1.3, 0.2, 2.0])
def test_gelu(approximate: str, expression: str, x: float) -> None:
    with counting.counting() as tally:
        found = float(evaluate(expression, x=Counted(x), g=Counted(G)))
    assert found == pytest.approx(gradient(lambda v: F.gelu(v, approximate=approximate), x))
    arguments = {"grad_output": f32(2, 3), "input": f32(2, 3), "approximate": approximate}
    cost = cost_of("aten.gelu_backward", arguments, f32(2, 3))
    assert cost is not None
    assert cost.vector_flops == 6 * tally.flops


def elu_backward(g: Any, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    def times(value: Any, factor: float) -> Any:
        return value if factor == 1 else value * factor

    below = times(g * counting.exp(times(x, input_scale)), alpha * scale * input_scale)
    return counting.select(x <= 0, below, times(g, scale))


@pytest.mark.parametrize("parameters", [(1, 1, 1), (2.0, 1, 1), (1.673, 1.0507, 1), (0.5, 1, 2.0)], ids=str)
@pytest.mark.parametrize("x", [-0.7, 0.3])
def test_elu_multiplies_by_no_factor_of_one(parameters: tuple[float, float, float], x: float) -> None:
    with counting.counting() as tally:
        found = float(elu_backward(Counted(G), Counted(x), *parameters))
    operand = torch.tensor([x], dtype=torch.float64)
    expected = torch.ops.aten.elu_backward(torch.tensor([G], dtype=torch.float64), *parameters, False, operand)
    assert found == pytest.approx(float(expected))
    names = ("alpha", "scale", "input_scale")
    arguments = dict(zip(names, parameters, strict=True), grad_output=f32(2, 3), self_or_result=f32(2, 3))
    cost = cost_of("aten.elu_backward", arguments, f32(2, 3))
    assert cost is not None
    assert cost.vector_flops == 6 * tally.flops


def softplus_backward(g: Any, x: Any, beta: float) -> Any:
    scaled = x if beta == 1 else x * beta
    z = counting.exp(scaled)
    return counting.select(scaled > 20, g, g * z / (z + 1))


def bce_backward(g: Any, x: Any) -> Any:
    return g * (x - Y) / counting.max_((1 - x) * x, 1e-12)


CASES: list[tuple[str, dict[str, Any], Any, Any]] = [
    ("softplus_backward", {"beta": 1}, lambda g, x: softplus_backward(g, x, 1), F.softplus),
    ("softplus_backward", {"beta": 2}, lambda g, x: softplus_backward(g, x, 2), lambda x: F.softplus(x, 2)),
    ("log_sigmoid_backward", {}, lambda g, x: g / (1 + counting.exp(x)), F.logsigmoid),
    ("logit_backward", {}, lambda g, x: g / (x * (1 - x)), torch.logit),
    ("binary_cross_entropy_backward", {"target": f32(2, 3), "reduction": 0}, bce_backward,
     lambda x: F.binary_cross_entropy(x, torch.full_like(x, Y), reduction="none")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters", "reference", "forward"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_parameters_decide_what_is_counted(name: str, parameters: dict[str, Any], reference: Any, forward: Any) -> None:
    with counting.counting() as tally:
        found = float(reference(Counted(G), Counted(0.3)))
    assert found == pytest.approx(gradient(forward, 0.3))
    targets = 6 if name.startswith("binary") else 0  # as a number the target is not counted: (x - y) is, either way
    cost = cost_of(f"aten.{name}", {"grad_output": f32(2, 3), "input": f32(2, 3), **parameters}, f32(2, 3))
    assert cost is not None
    assert cost.vector_flops == 6 * tally.flops
    assert cost.bytes_read == (2 * 6 + targets) * 4


def test_a_mean_of_cross_entropies_divides_and_a_weight_multiplies() -> None:
    arguments = {"grad_output": f32(), "input": f32(2, 3), "target": f32(2, 3)}
    plain, mean, weighted = (
        cost_of("aten.binary_cross_entropy_backward", {**arguments, **more}, f32(2, 3))
        for more in ({"reduction": 2}, {"reduction": 1}, {"reduction": 1, "weight": f32(3)})
    )
    assert plain is not None
    assert mean is not None
    assert weighted is not None
    assert mean.vector_flops - plain.vector_flops == weighted.vector_flops - mean.vector_flops == 6
    assert weighted.bytes_read - mean.bytes_read == 3 * 4


def test_glu() -> None:
    def reference(g: Any, x: Any, y: Any) -> tuple[Any, Any]:
        s = 1 / (1 + counting.exp(-y))
        by_x = g * s
        return by_x, by_x * (1 - s) * x

    with counting.counting() as tally:
        found = [float(v) for v in reference(Counted(G), Counted(0.3), Counted(-0.4))]
    operand = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(F.glu(operand), operand, torch.tensor([G], dtype=torch.float64))
    assert found == pytest.approx(expected.tolist())
    cost = cost_of("aten.glu_backward", {"grad_output": f32(2, 3), "input": f32(2, 6), "dim": -1}, f32(2, 6))
    assert cost is not None
    assert (cost.vector_flops, cost.bytes_read, cost.bytes_written) == (6 * tally.flops, 18 * 4, 12 * 4)


@pytest.mark.parametrize("x", [-0.7, 0.3])
def test_prelu(x: float) -> None:
    with counting.counting() as tally:
        g, value, w = Counted(G), Counted(x), Counted(0.25)
        is_positive = value > 0
        found = [counting.select(is_positive, g, w * g), counting.select(is_positive, Counted(0.0), value * g)]
    tensors = [torch.tensor([v], dtype=torch.float64) for v in (G, x, 0.25)]
    expected = torch.ops.aten._prelu_kernel_backward(*tensors)
    assert [float(v) for v in found] == pytest.approx([float(v) for v in expected])
    arguments = {"grad_output": f32(2, 3), "input": f32(2, 3), "weight": f32(3)}
    cost = cost_of("aten._prelu_kernel_backward", arguments, (f32(2, 3), f32(2, 3)))
    assert cost is not None
    assert cost.vector_flops == 6 * tally.flops


def test_rrelu_multiplies_by_the_slopes_that_were_drawn() -> None:
    arguments = {"grad_output": f32(2, 3), "input": f32(2, 3), "noise": f32(2, 3)}
    trained = cost_of("aten.rrelu_with_noise_backward", {**arguments, "training": True}, f32(2, 3))
    fixed = cost_of("aten.rrelu_with_noise_backward", {**arguments, "training": False}, f32(2, 3))
    leaky = cost_of("aten.leaky_relu_backward", {"grad_output": f32(2, 3), "input": f32(2, 3)}, f32(2, 3))
    assert trained is not None
    assert (trained.vector_flops, trained.bytes_read) == (6, 2 * 6 * 4)
    assert fixed == leaky


def test_dropout_reads_its_mask_in_bytes() -> None:
    arguments = {"grad_output": f32(2, 3), "mask": TensorSpec((2, 3), "bool"), "scale": 2.0}
    cost = cost_of("aten.native_dropout_backward", arguments, f32(2, 3))
    assert cost is not None
    assert (cost.vector_flops, cost.bytes_read, cost.bytes_written) == (6, 6 * 4 + 6, 6 * 4)


def test_an_expanded_gradient_is_read_at_the_size_it_is_stored() -> None:
    summed = TensorSpec((8, 3), strides=(0, 0))
    cost = cost_of("aten.threshold_backward", {"grad_output": summed, "input": f32(8, 3)}, f32(8, 3))
    assert cost is not None
    assert (cost.bytes_read, cost.vector_flops) == (4 + 24 * 4, 24)


def test_what_is_named_is_made_once() -> None:
    assert expression_flops("(t := exp(x)) * t + t") == 3
