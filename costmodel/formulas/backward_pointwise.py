"""The backward of operators that treat every element alone: activations, dropout, losses of one element.

As in the forward's sheet, the textbook expression of one element of the gradient *is* the formula, in g, the gradient
of the output, and x, y: what the forward saved, its operand or (tanh, sigmoid) its result. Operations are counted as
written, with what is used twice made once; the tests evaluate the same text on numbers that count and compare its
values with torch's.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import aten, cost, elementwise, expression_flops
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim
from costmodel.tensor import TensorSpec

__all__ = ["BACKWARD_EXPRESSIONS"]

#: Operators (of ``aten``) by the expression of one element of the gradient.
BACKWARD_EXPRESSIONS: dict[str, str] = {
    "select(x > threshold, g, 0)": "threshold_backward",
    "select((x > lo) & (x < hi), g, 0)": "hardtanh_backward",
    "select((x > -3) & (x < 3), g / 6, 0)": "hardsigmoid_backward",
    "select(x <= -3, 0, select(x < 3, g * (x / 3 + 0.5), g))": "hardswish_backward",
    "select(x > 0, g, g * slope)": "leaky_relu_backward",
    "select((x >= -lambd) & (x <= lambd), 0, g)": "hardshrink_backward softshrink_backward",
    "g * (1 - x) * x": "sigmoid_backward",
    "g * (1 - x * x)": "tanh_backward",
    "g * (s := 1 / (1 + exp(-x))) * (1 + x * (1 - s))": "silu_backward",
    "g * ((t := tanh(log1p(exp(x)))) + x / (1 + exp(-x)) * (1 - t * t))": "mish_backward",
    "select(c, g * scale, 0)": "native_dropout_backward",
    # losses: g is the gradient of the loss, one number where it was summed or averaged; x the input, y the target
    "norm * (x - y) * g": "mse_loss_backward",
    "select((z := x - y) <= -delta, -(s := (t := norm * g) * delta), select(z >= delta, s, z * t))":
    "huber_loss_backward",
    "select((z := x - y) <= -beta, -(t := norm * g), select(z >= beta, t, z * t / beta))": "smooth_l1_loss_backward",
    "-norm * g * y * (t := exp(-y * x)) / (1 + t)": "soft_margin_loss_backward",
}  # fmt: skip


def _register(expression: str, operators: str) -> None:
    @formula(*aten(operators))
    def each_element(*, out: Any, **arguments: Any) -> Cost:
        return elementwise(expression, arguments.values(), out)

    each_element.__doc__ = f"``{expression}`` for every element."


for _expression, _operators in BACKWARD_EXPRESSIONS.items():
    _register(_expression, _operators)


@formula("aten.gelu_backward")
def gelu_backward(grad_output: TensorSpec, input: TensorSpec, approximate: str = "none", *, out: TensorSpec) -> Cost:
    """g times the derivative of x * Phi(x): Phi(x) + x * phi(x); or that of the form by tanh.

    >>> from costmodel.tensor import f32
    >>> gelu_backward(f32(4, 5), f32(4, 5), out=f32(4, 5)).vector_flops // 20
    11
    >>> gelu_backward(f32(4, 5), f32(4, 5), "tanh", out=f32(4, 5)).vector_flops // 20
    18
    """
    return elementwise(GELU_BY_TANH if approximate == "tanh" else GELU_EXACT, (grad_output, input), out)


GELU_EXACT = "g * (0.5 * (1 + erf(x * sqrt(0.5))) + x * (exp(-0.5 * (x * x)) * (1 / sqrt(2 * pi))))"
GELU_BY_TANH = (
    "g * (0.5 * (1 + (t := tanh(sqrt(2 / pi) * (x + 0.044715 * (s := x * x) * x))))"
    " + 0.5 * x * (1 - t * t) * (sqrt(2 / pi) * (1 + 3 * 0.044715 * s)))"
)


@formula("aten.elu_backward")
def elu_backward(
    grad_output: TensorSpec,
    alpha: Any = 1,
    scale: Any = 1,
    input_scale: Any = 1,
    is_result: bool = False,
    self_or_result: TensorSpec | None = None,
    *,
    out: TensorSpec,
) -> Cost:
    """``g * scale`` above 0, below ``g * (alpha * scale * input_scale) * exp(x * input_scale)``.

    From the result y of an operator in place, ``g * input_scale * (y + alpha * scale)``. Factors of 1 are not
    multiplied by.

    >>> from costmodel.tensor import f32
    >>> elu_backward(f32(4, 5), 1, 1, 1, False, f32(4, 5), out=f32(4, 5)).vector_flops // 20    # compare, exp, multiply
    3
    """
    factors = (scale != 1) + (input_scale != 1)
    if not is_result:
        factors += alpha * scale * input_scale != 1
    return cost((3 + factors) * out.numel, (grad_output, self_or_result), out)


@formula("aten.softplus_backward")
def softplus_backward(grad_output: TensorSpec, input: TensorSpec, beta: Any = 1, *, out: TensorSpec) -> Cost:
    """``g * z / (z + 1)`` with ``z = exp(x * beta)``, or g where ``x * beta > threshold``."""
    return cost((5 if beta == 1 else 6) * out.numel, (grad_output, input), out)


@formula("aten.log_sigmoid_backward")
def log_sigmoid_backward(grad_output: TensorSpec, input: TensorSpec, *, out: TensorSpec) -> Cost:
    """``g / (1 + exp(x))``. The buffer that the CPU's kernel keeps is empty on a GPU, and not counted."""
    return elementwise("g / (1 + exp(x))", (grad_output, input), out)


@formula("aten.glu_backward")
def glu_backward(grad_output: TensorSpec, input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Of the input's halves x and y: ``t = g * s`` and ``t * (1 - s) * x`` with ``s = 1 / (1 + exp(-y))``."""
    pair = expression_flops("(t := g * (s := 1 / (1 + exp(-y)))) * (1 - s) * x")
    return cost(pair * grad_output.numel, (grad_output, input), out)


@formula("aten._prelu_kernel_backward")
def prelu_backward(
    grad_output: TensorSpec, input: TensorSpec, weight: TensorSpec, *, out: tuple[TensorSpec, ...]
) -> Cost:
    """``select(x > 0, g, w * g)`` and, for the weight, ``select(x > 0, 0, x * g)``, which others sum."""
    per_element = expression_flops("select(s := x > 0, g, y * g)") + expression_flops("select(s, 0, x * g)")
    return cost(per_element * grad_output.numel, (grad_output, input, weight), out)


@formula("aten.rrelu_with_noise_backward")
def rrelu_backward(
    grad_output: TensorSpec, input: TensorSpec, noise: TensorSpec, training: bool = True, *, out: TensorSpec
) -> Cost:
    """``g * noise`` in training, where the noise holds the slopes that were drawn; else as a leaky relu."""
    if training:
        return elementwise("g * z", (grad_output, noise), out)
    return elementwise("select(x > 0, g, g * slope)", (grad_output, input), out)


@formula("aten.logit_backward")
def logit_backward(grad_output: TensorSpec, input: TensorSpec, eps: Any = None, *, out: TensorSpec) -> Cost:
    """``g / (x * (1 - x))``, and 0 outside [eps, 1 - eps] where an eps is given."""
    inside = "select((x < lo) | (x > hi), 0, g / (x * (1 - x)))"
    return elementwise("g / (x * (1 - x))" if eps is None else inside, (grad_output, input), out)


@formula("aten.binary_cross_entropy_backward")
def binary_cross_entropy_backward(
    grad_output: TensorSpec,
    input: TensorSpec,
    target: TensorSpec,
    weight: Any = None,
    reduction: int = 1,
    *,
    out: TensorSpec,
) -> Cost:
    """``g * (x - y) / max((1 - x) * x, eps)``; a weight multiplies once more, and a mean divides."""
    per_element: Dim = expression_flops("g * (x - y) / max((1 - x) * x, eps)")
    per_element = per_element + isinstance(weight, TensorSpec) + (reduction == 1)
    return cost(per_element * out.numel, (grad_output, input, target, weight), out)
