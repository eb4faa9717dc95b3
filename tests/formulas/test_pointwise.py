"""Pointwise formulas: the textbook expression is evaluated on numbers that count, and its value is torch's."""

from __future__ import annotations

import math
import operator
from typing import Any

import pytest

from costmodel.formulas import pointwise  # noqa: F401 - registers the sheet
from costmodel.formulas.elements import expression_flops
from costmodel.formulas.pointwise import EXPRESSION_OF
from costmodel.formulas.registry import cost_of
from costmodel.symbols import symbol
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import Counted

torch = pytest.importorskip("torch")
F = torch.nn.functional

PARAMETERS = {
    "lo": -0.5, "hi": 0.6, "slope": 0.01, "threshold": 0.3, "value": 7.0, "lambd": 0.5, "scale": 0.1, "zero_point": 3,
    "inf": math.inf, "pi": math.pi, "atol": 1e-8, "rtol": 1e-5, "p": 0.5, "rate": 1.0, "location": 0.0,
}  # fmt: skip
VOCABULARY = {
    **{name: function for name, function in vars(counting).items() if callable(function)},
    "min": counting.min_,
    "max": counting.max_,
    "signbit": counting.elementary("signbit", lambda x: math.copysign(1, x) < 0),
    "copysign": counting.elementary("copysign", math.copysign),
    "gcd": counting.elementary("gcd", math.gcd),
    "special": counting.elementary("special", lambda x, y=0: x),
    "both": counting.elementary("both", lambda x, y: bool(x) and bool(y)),
    "either": counting.elementary("either", lambda x, y: bool(x) or bool(y)),
    "one_of": counting.elementary("one_of", lambda x, y: bool(x) != bool(y)),
    "select": lambda c, x, y: counting.select(c, x, y),
}
#: Drawn at random, or one special function: no value to compare.
WITHOUT_VALUE = {"bernoulli", "exponential", "cauchy"} | {
    o for o, e in EXPRESSION_OF.items() if e.startswith("special(")
}
INTEGER = {o for o in EXPRESSION_OF if o.startswith(("bitwise", "__"))} | {"gcd"}
#: Arguments after the elements x, y, z, where the operator wants more than its elements.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "hardtanh": (-0.5, 0.6), "threshold": (0.3, 7.0), "hardshrink": (0.5,), "softshrink": (0.5,), "leaky_relu": (0.01,),
    "fake_quantize_per_tensor_affine": (0.1, 3, 0, 6), "quantize_per_tensor": (0.1, 3, torch.quint8),
}  # fmt: skip
#: Parameters of single operators, where the table's common ones do not fit.
OWN_PARAMETERS = {"fake_quantize_per_tensor_affine": {"lo": 0, "hi": 6}}
QUANTIZED = {o for o, e in EXPRESSION_OF.items() if "zero_point" in e} - {"fake_quantize_per_tensor_affine"}


def evaluate(expression: str, **elements: Any) -> Any:
    return eval(expression, {"__builtins__": {}, **VOCABULARY, **PARAMETERS}, elements)  # noqa: S307 - our own table


@pytest.mark.parametrize("operator_name", sorted(EXPRESSION_OF))
def test_expression_costs_what_doing_it_counts(operator_name: str) -> None:
    expression = EXPRESSION_OF[operator_name]
    x, y, z, c = (6, 4, 1, 1) if operator_name in INTEGER else (0.7, 0.4, 0.3, 1.0)
    x = 1.7 if expression == "acosh(x)" else x
    with counting.counting() as tally:
        for _ in range(2 * 3):
            evaluate(expression, x=Counted(x), y=Counted(y), z=Counted(z), c=Counted(c))
    cost = cost_of(f"aten.{operator_name}", {"input": f32(2, 3), "other": f32(3)}, f32(2, 3))
    assert cost is not None
    assert cost.vector_flops == tally.flops
    assert (cost.bytes_read, cost.bytes_written) == ((6 + 3) * 4, 6 * 4)
    assert (cost.matrix_flops, cost.launches) == (0, 1)


def _samples(operator_name: str) -> list[tuple[Any, ...]]:
    if operator_name in INTEGER:
        return [(6, 4), (12, 3), (-8, 1)] if operator_name != "gcd" else [(6, 4), (12, 18)]
    if "acosh" in EXPRESSION_OF[operator_name]:
        return [(1.3, 0.0), (4.0, 0.0)]
    positive = [(0.3, 0.25), (0.75, 0.75), (0.9, 0.1)]
    signed = [(-0.7, 0.4), (-0.2, 0.3)]
    expression = EXPRESSION_OF[operator_name]
    domain_is_positive = any(f in expression for f in ("log(x)", "log2(x)", "log10(x)", "sqrt(x)", "power", "fmod"))
    return positive if domain_is_positive or operator_name == "fmod" else positive + signed


def _torch_value(operator_name: str, x: Any, y: Any) -> Any:
    expression = EXPRESSION_OF[operator_name]
    dtype = torch.int64 if operator_name in INTEGER else torch.float64
    if operator_name.startswith("fake"):
        dtype = torch.float32
    a, b = torch.tensor([x], dtype=dtype), torch.tensor([y], dtype=dtype)
    if operator_name == "where":
        return torch.where(torch.tensor([True]), a, b).item()
    if operator_name == "masked_fill":
        return torch.masked_fill(a, torch.tensor([True]), PARAMETERS["value"]).item()
    if operator_name == "lerp":
        return torch.lerp(a, b, torch.tensor([0.3], dtype=dtype)).item()
    if operator_name.endswith("prelu") or operator_name == "_prelu_kernel":
        return getattr(torch.ops.aten, operator_name)(a, b).item()
    operands = (a, b) if "y" in expression.replace("sqrt(x", "") else (a,)
    result = getattr(torch.ops.aten, operator_name)(*operands, *ARGUMENTS.get(operator_name, ()))
    return (result[0] if isinstance(result, tuple) else result).item()


@pytest.mark.parametrize("operator_name", sorted(set(EXPRESSION_OF) - WITHOUT_VALUE - QUANTIZED))
def test_expression_is_the_operator(operator_name: str) -> None:
    """The counted expression gives torch's own values, so what is counted is the operator."""
    for x, y in _samples(operator_name):
        parameters = OWN_PARAMETERS.get(operator_name, {})
        elements = {"x": Counted(x), "y": Counted(y), "z": Counted(0.3), "c": Counted(1), **parameters}
        found = float(evaluate(EXPRESSION_OF[operator_name], **elements))
        assert found == pytest.approx(float(_torch_value(operator_name, x, y)), rel=1e-6, abs=1e-6), (x, y)


def test_expression_flops_ignores_what_is_known_ahead() -> None:
    assert expression_flops("sqrt(2 / pi) + 1") == 0
    assert expression_flops("x") == 0
    assert expression_flops("select(x > 0, x, -x)") == 2  # the comparison and the negation, both branches done


# -- operators whose parameters decide what is done -------------------------------------------------


def _expected(reference: Any, *elements: float, times: int = 6) -> tuple[int, Any]:
    """FLOP of ``times`` elements, by doing one with counted numbers; and its value."""
    with counting.counting() as tally:
        result = reference(*map(Counted, elements))
    return tally.flops * times, getattr(result, "value", result)


def gelu_exact(x: Any) -> Any:
    return 0.5 * x * (1 + counting.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + counting.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * counting.power(x, 3))))


def elu(x: Any, alpha: float = 1.0, scale: float = 1.0) -> Any:
    below = counting.exp(x) - 1
    result = counting.select(x > 0, x, below if alpha == 1 else alpha * below)
    return result if scale == 1 else scale * result


def softplus(x: Any, beta: float = 1.0) -> Any:
    if beta == 1:
        return counting.select(x > 20, x, counting.log1p(counting.exp(x)))
    scaled = x * beta
    return counting.select(scaled > 20, x, counting.log1p(counting.exp(scaled)) / beta)


def div_floor(a: Any, b: Any) -> Any:
    return torch.div(a, b, rounding_mode="floor")


def clamp_both(x: Any) -> Any:
    return counting.min_(counting.max_(x, 0.1), 0.2)


def leaky(x: Any) -> Any:
    return counting.select(x > 0, x, (1 / 8 + 1 / 3) / 2 * x)  # the mean of rrelu's default slopes


CASES: list[tuple[str, dict[str, Any], Any, Any]] = [
    ("add", {}, lambda x, y: x + y, lambda a, b: a + b),
    ("add", {"alpha": 3}, lambda x, y: x + 3 * y, lambda a, b: torch.add(a, b, alpha=3)),
    ("sub", {"alpha": 3}, lambda x, y: x - 3 * y, lambda a, b: torch.sub(a, b, alpha=3)),
    ("rsub", {}, lambda x, y: y - x, torch.rsub),
    ("mul", {}, lambda x, y: x * y, torch.mul),
    ("div", {}, lambda x, y: x / y, torch.div),
    ("div", {"rounding_mode": "floor"}, lambda x, y: counting.floor(x / y), div_floor),
    ("abs", {}, lambda x, y: abs(x), lambda a, b: a.abs()),
    ("round", {}, lambda x, y: counting.round_(x), lambda a, b: a.round()),
    ("round", {"decimals": 1}, lambda x, y: counting.round_(x * 10) / 10, lambda a, b: a.round(decimals=1)),
    ("clamp", {"min": 0.1}, lambda x, y: counting.max_(x, 0.1), lambda a, b: a.clamp(min=0.1)),
    ("clamp", {"min": 0.1, "max": 0.2}, lambda x, y: clamp_both(x), lambda a, b: a.clamp(0.1, 0.2)),
    ("clamp_min", {"min": 0.1}, lambda x, y: counting.max_(x, 0.1), lambda a, b: a.clamp_min(0.1)),
    ("clamp_max", {"max": 0.1}, lambda x, y: counting.min_(x, 0.1), lambda a, b: a.clamp_max(0.1)),
    ("gelu", {}, lambda x, y: gelu_exact(x), lambda a, b: F.gelu(a)),
    ("gelu", {"approximate": "tanh"}, lambda x, y: gelu_tanh(x), lambda a, b: F.gelu(a, approximate="tanh")),
    ("elu", {}, lambda x, y: elu(x), lambda a, b: F.elu(a)),
    ("elu", {"alpha": 2.0}, lambda x, y: elu(x, 2.0), lambda a, b: F.elu(a, 2.0)),
    ("elu", {"alpha": 1.6732632423543772, "scale": 1.0507009873554805},
     lambda x, y: elu(x, 1.6732632423543772, 1.0507009873554805), lambda a, b: F.selu(a)),
    ("softplus", {}, lambda x, y: softplus(x), lambda a, b: F.softplus(a)),
    ("softplus", {"beta": 2}, lambda x, y: softplus(x, 2), lambda a, b: F.softplus(a, beta=2)),
    ("logit", {}, lambda x, y: counting.log(y / (1 - y)), lambda a, b: torch.logit(b)),
    ("addcmul", {}, lambda x, y: x + y * y, lambda a, b: torch.addcmul(a, b, b)),
    ("addcdiv", {"value": 2}, lambda x, y: x + 2 * y / x, lambda a, b: torch.addcdiv(a, b, a, value=2)),
    ("rrelu_with_noise", {}, lambda x, y: leaky(x), lambda a, b: torch.rrelu(a)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters", "reference", "in_torch"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
@pytest.mark.parametrize("x", [-0.7, 0.3])
def test_parameters_decide_what_is_counted(
    name: str, parameters: dict[str, Any], reference: Any, in_torch: Any, x: float
) -> None:
    expected, value = _expected(reference, x, 0.4)
    a, b = torch.tensor(x, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    assert value == pytest.approx(in_torch(a, b).item())
    arguments = {"input": f32(2, 3), "other": f32(3), "tensor1": f32(3), "tensor2": f32(3), **parameters}
    cost = cost_of(f"aten.{name}", arguments, f32(2, 3))
    assert cost is not None
    assert cost.vector_flops == expected


def test_glu_halves_the_input() -> None:
    expected, value = _expected(lambda x, y: x / (1 + counting.exp(-y)), 0.3, 0.4)
    assert value == pytest.approx(F.glu(torch.tensor([0.3, 0.4], dtype=torch.float64)).item())
    cost = cost_of("aten.glu", {"input": f32(2, 6), "dim": -1}, f32(2, 3))
    assert cost is not None
    assert (cost.vector_flops, cost.bytes_read, cost.bytes_written) == (expected, 12 * 4, 6 * 4)


def _complex_reference(name: str) -> Any:
    """The operation on two pairs of counted numbers; a real second operand has no second number."""

    def add(a: Any, b: Any, c: Any, d: Any = None) -> Any:
        return (a + c, b) if d is None else (a + c, b + d)

    def mul(a: Any, b: Any, c: Any, d: Any = None) -> Any:
        return (a * c, b * c) if d is None else (a * c - b * d, a * d + b * c)

    def div(a: Any, b: Any, c: Any, d: Any = None) -> Any:
        if d is None:
            return a / c, b / c
        square = c * c + d * d
        return (a * c + b * d) / square, (b * c - a * d) / square

    return {"add": add, "mul": mul, "div": div}[name]


@pytest.mark.parametrize("name", ["add", "mul", "div"])
@pytest.mark.parametrize("second", [(2.0, -1.0), (2.0,)])
def test_complex_arithmetic_is_that_of_its_parts(name: str, second: tuple[float, ...]) -> None:
    with counting.counting() as tally:
        real, imaginary = _complex_reference(name)(Counted(1.5), Counted(0.5), *map(Counted, second))
    assert complex(real.value, imaginary.value) == pytest.approx(
        getattr(operator, "truediv" if name == "div" else name)(1.5 + 0.5j, complex(*second))
    )
    first = TensorSpec((2, 3), "complex64")
    other = TensorSpec((2, 3), "complex64" if len(second) == 2 else "float32")
    cost = cost_of(f"aten.{name}", {"input": first, "other": other}, first)
    assert cost is not None
    assert cost.vector_flops == tally.flops * 6


def test_conjugate_negates_imaginary_parts_only() -> None:
    pair, real = TensorSpec((2, 3), "complex64"), f32(2, 3)
    conjugate, copied = (
        cost_of("aten._conj_physical", {"input": pair}, pair),
        cost_of("aten.conj_physical", {"input": real}, real),
    )
    assert conjugate is not None
    assert copied is not None
    assert (conjugate.vector_flops, copied.vector_flops) == (6, 0)


def test_absolute_of_complex_is_a_hypotenuse() -> None:
    expected, value = _expected(lambda x, y: counting.sqrt(x * x + y * y), 3.0, 4.0)
    assert value == 5.0
    cost = cost_of("aten.abs", {"input": TensorSpec((2, 3), "complex64")}, f32(2, 3))
    assert cost is not None
    assert cost.vector_flops == expected


def test_fake_quantize_with_mask_counts_the_mask() -> None:
    def reference(x: Any) -> Any:
        level = counting.round_(x / 0.1) + 3
        mask = counting.apply("and", operator.and_, level >= 0, level <= 6)
        kept = (counting.min_(counting.max_(level, 0), 6) - 3) * 0.1
        return kept, mask

    with counting.counting() as tally:
        reference(Counted(0.42))
    out = (f32(2, 3), TensorSpec((2, 3), "bool"))
    name = "aten.fake_quantize_per_tensor_affine_cachemask"
    cost = cost_of(name, {"input": f32(2, 3), "scale": 0.1, "zero_point": 3, "quant_min": 0, "quant_max": 6}, out)
    assert cost is not None
    assert (cost.vector_flops, cost.bytes_written) == (tally.flops * 6, 6 * 4 + 6)


def test_box_muller_makes_two_normal_numbers() -> None:
    def reference(u: Any, v: Any) -> Any:
        radius, angle = counting.sqrt(-2 * counting.log(u)), 2 * math.pi * v
        return radius * counting.cos(angle), radius * counting.sin(angle)

    with counting.counting() as tally:
        for _ in range(3):
            reference(Counted(0.3), Counted(0.6))
    cost = cost_of("aten.randn", {"size": [2, 3]}, f32(2, 3))
    assert cost is not None
    assert (cost.vector_flops, cost.bytes_read, cost.bytes_written) == (tally.flops, 0, 24)


def test_dropout_costs_only_in_training() -> None:
    expected, _ = _expected(lambda x, z: counting.select(z < 0.5, 0, x * 2.0), 0.3, 0.4)
    inference = cost_of("aten.dropout", {"input": f32(2, 3), "p": 0.5, "train": False}, f32(2, 3))
    training = cost_of("aten.dropout", {"input": f32(2, 3), "p": 0.5, "train": True}, f32(2, 3))
    assert inference is not None
    assert training is not None
    assert (inference.flops, inference.bytes, inference.launches) == (0, 0, 0)
    assert training.vector_flops == expected


def test_native_dropout_writes_its_mask() -> None:
    out = (f32(2, 3), TensorSpec((2, 3), "bool"))
    kept = cost_of("aten.native_dropout", {"input": f32(2, 3), "p": 0.5, "train": True}, out)
    copied = cost_of("aten.native_dropout", {"input": f32(2, 3), "p": 0.5, "train": False}, out)
    assert kept is not None
    assert copied is not None
    assert (kept.vector_flops, kept.bytes_written) == (12, 6 * 4 + 6)
    assert copied.vector_flops == 0


def test_a_mask_counts_its_own_bytes_and_nan_to_num_its_tests() -> None:
    fill = cost_of("aten.masked_fill", {"input": f32(4, 5), "mask": TensorSpec((5,), "bool"), "value": 0.0}, f32(4, 5))
    clean = cost_of("aten.nan_to_num", {"input": f32(4, 5)}, f32(4, 5))
    assert fill is not None
    assert clean is not None
    assert (fill.flops, fill.bytes_read) == (0, 20 * 4 + 5)
    assert clean.vector_flops == 3 * 20


def test_an_expanded_operand_is_read_once() -> None:
    expanded = TensorSpec((4, 5), strides=(0, 1))
    cost = cost_of("aten.mul", {"input": f32(4, 5), "other": expanded}, f32(4, 5))
    assert cost is not None
    assert cost.bytes_read == (20 + 5) * 4


@pytest.mark.parametrize("batch", [1, 4, 9])
def test_symbolic_and_numeric_agree(batch: int) -> None:
    n = symbol("batch")
    for name, arguments in [("sigmoid", {}), ("add", {"other": f32(7), "alpha": 2}), ("gelu", {"approximate": "tanh"})]:
        symbolic = cost_of(f"aten.{name}", {"input": f32(n, 7), **arguments}, f32(n, 7))
        numeric = cost_of(f"aten.{name}", {"input": f32(batch, 7), **arguments}, f32(batch, 7))
        assert symbolic is not None
        assert symbolic.bind({"batch": batch}) == numeric
