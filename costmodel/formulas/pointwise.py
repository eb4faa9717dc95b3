"""Operators that treat every element alone: the expression *is* the formula.

Each operator is written as the textbook expression of one output element in its operands' elements
x, y, z; its FLOP are the operations in that expression, one each, negation included
(:func:`~costmodel.formulas.elements.expression_flops`). The tests evaluate the same text on numbers that
count, and compare its values with torch's. Every operand is read once (broadcast ones in their own size),
every result written once; an operator in place reads and writes the same way. Multiplications by a
parameter that is 1 are not done and not counted. Casts inside an operator (type promotion) are 0 FLOP.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import aten, cost, elementwise, expression_flops
from costmodel.formulas.registry import formula
from costmodel.tensor import TensorSpec

__all__ = ["EXPRESSIONS", "EXPRESSION_OF"]

#: Operators (of ``aten``) by the expression of one output element.
EXPRESSIONS: dict[str, str] = {
    # one operation or elementary function of one element
    "-x": "neg negative",
    "1 / x": "reciprocal",
    "exp(x)": "exp",
    "exp2(x)": "exp2 special_exp2",
    "expm1(x)": "expm1 special_expm1",
    "log(x)": "log",
    "log2(x)": "log2",
    "log10(x)": "log10",
    "log1p(x)": "log1p special_log1p",
    "sqrt(x)": "sqrt",
    "rsqrt(x)": "rsqrt",
    "sin(x)": "sin",
    "cos(x)": "cos",
    "tan(x)": "tan",
    "asin(x)": "asin arcsin",
    "acos(x)": "acos arccos",
    "atan(x)": "atan arctan",
    "sinh(x)": "sinh",
    "cosh(x)": "cosh",
    "tanh(x)": "tanh",
    "asinh(x)": "asinh arcsinh",
    "acosh(x)": "acosh arccosh",
    "atanh(x)": "atanh arctanh",
    "erf(x)": "erf special_erf",
    "erfc(x)": "erfc special_erfc",
    "erfinv(x)": "erfinv special_erfinv",
    "lgamma(x)": "lgamma special_gammaln",
    "digamma(x)": "digamma special_digamma special_psi",
    "floor(x)": "floor",
    "ceil(x)": "ceil",
    "trunc(x)": "trunc fix",
    "round_(x)": "special_round",
    "sign(x)": "sign sgn",
    "signbit(x)": "signbit",
    "special(x)": "i0 special_i0 special_i0e special_i1 special_i1e special_bessel_j0 special_bessel_j1"
    " special_bessel_y0 special_bessel_y1 special_modified_bessel_i0 special_modified_bessel_i1"
    " special_modified_bessel_k0 special_modified_bessel_k1 special_scaled_modified_bessel_k0"
    " special_scaled_modified_bessel_k1 special_spherical_bessel_j0 special_airy_ai special_erfcx"
    " special_ndtri special_ndtr special_log_ndtr",
    "x != x": "isnan",
    "x == inf": "isposinf",
    "x == -inf": "isneginf",
    "abs_(x) == inf": "isinf",
    "abs_(x) != inf": "isfinite",
    "~x": "bitwise_not",
    "x == 0": "logical_not",
    "x * (pi / 180)": "deg2rad",
    "x * (180 / pi)": "rad2deg",
    "x * x": "square",
    "x - trunc(x)": "frac",
    "-x * log(x)": "special_entr",
    "sin(pi * x) / (pi * x)": "sinc special_sinc",
    # two operands (the second may be a number)
    "x // y": "floor_divide",
    "x % y": "remainder fmod",
    "power(x, y)": "pow float_power",
    "max(x, y)": "maximum fmax",
    "min(x, y)": "minimum fmin",
    "atan2(x, y)": "atan2 arctan2",
    "x == y": "eq",
    "x != y": "ne not_equal",
    "x < y": "lt less",
    "x <= y": "le less_equal",
    "x > y": "gt greater",
    "x >= y": "ge greater_equal",
    "x & y": "bitwise_and __and__",
    "x | y": "bitwise_or __or__",
    "x ^ y": "bitwise_xor __xor__",
    "both(x, y)": "logical_and",
    "either(x, y)": "logical_or",
    "one_of(x, y)": "logical_xor",
    "x << y": "bitwise_left_shift __lshift__",
    "x >> y": "bitwise_right_shift __rshift__",
    "copysign(x, y)": "copysign",
    "gcd(x, y)": "gcd",
    "special(x, y)": "nextafter lcm igamma igammac special_gammainc special_gammaincc polygamma special_polygamma"
    " special_zeta",
    "sqrt(x * x + y * y)": "hypot",
    "x * exp2(y)": "ldexp",
    "x * log(y)": "xlogy special_xlogy",
    "x * log1p(y)": "special_xlog1py",
    "select(x == 0, y, select(x > 0, 1, 0))": "heaviside",
    "log(exp(x) + exp(y))": "logaddexp",
    "log2(exp2(x) + exp2(y))": "logaddexp2",
    "abs_(x - y) <= atol + rtol * abs_(y)": "isclose",
    # a condition and two values; a mask and a value
    "select(c, x, y)": "where",
    "select(c, value, x)": "masked_fill",
    "x + z * (y - x)": "lerp",
    # activations
    "max(x, 0)": "relu",
    "min(max(x, 0), 6)": "relu6",
    "min(max(x, lo), hi)": "hardtanh",
    "1 / (1 + exp(-x))": "sigmoid special_expit",
    "x / (1 + exp(-x))": "silu",
    "-log1p(exp(-x))": "log_sigmoid log_sigmoid_forward",
    "x * tanh(log1p(exp(x)))": "mish",
    "min(max(x + 3, 0), 6) / 6": "hardsigmoid",
    "x * min(max(x + 3, 0), 6) / 6": "hardswish",
    "select(x > 0, x, slope * x)": "leaky_relu",
    "select(x > 0, x, y * x)": "prelu _prelu_kernel",
    "select(x > threshold, x, value)": "threshold",
    "select(abs_(x) > lambd, x, 0)": "hardshrink",
    "select(x > lambd, x - lambd, select(x < -lambd, x + lambd, 0))": "softshrink",
    # quantisation, simulated and real
    "(min(max(round_(x / scale) + zero_point, lo), hi) - zero_point) * scale": "fake_quantize_per_tensor_affine"
    " fake_quantize_per_channel_affine _fake_quantize_learnable_per_tensor_affine"
    " _fake_quantize_learnable_per_channel_affine",
    "min(max(round_(x / scale) + zero_point, lo), hi)": "quantize_per_tensor quantize_per_channel"
    " quantize_per_tensor_dynamic",
    "(x - zero_point) * scale": "dequantize",
    # random numbers, from bits whose making (integer arithmetic of the generator) is not counted: x, y uniform
    "x < p": "bernoulli",
    "-log(x) / rate": "exponential",
    "location + scale * tan(pi * (x - 0.5))": "cauchy",
}

#: The same, read the other way round: the expression of an operator.
EXPRESSION_OF: dict[str, str] = {o: e for e, operators in EXPRESSIONS.items() for o in operators.split()}


def _register(expression: str, operators: str) -> None:
    @formula(*aten(operators))
    def each_element(*, out: Any, **arguments: Any) -> Cost:
        return elementwise(expression, arguments.values(), out)

    each_element.__doc__ = f"``{expression}`` for every output element."


for _expression, _operators in EXPRESSIONS.items():
    _register(_expression, _operators)


def _is_complex(value: Any) -> bool:
    return value.dtype.startswith("complex") if isinstance(value, TensorSpec) else isinstance(value, complex)


def _arithmetic(expression: str, complex_flops: tuple[int, int], input: Any, other: Any, out: TensorSpec) -> Cost:
    """A binary operation; for complex elements ``complex_flops`` with (a complex, a real) second operand."""
    if not _is_complex(out):
        return elementwise(expression, (input, other), out)
    both = _is_complex(input) and _is_complex(other)
    return cost(complex_flops[0 if both else 1] * out.numel, (input, other), out)


@formula("aten.add", "aten.sub", "aten.subtract", "aten.rsub")
def add(input: Any, other: Any, alpha: Any = 1, *, out: TensorSpec) -> Cost:
    """``x + y``, or ``x + alpha * y``; complex: real and imaginary part.

    >>> from costmodel.tensor import f32
    >>> add(f32(4, 5), f32(5), out=f32(4, 5)).vector_flops, add(f32(4, 5), f32(5), alpha=2, out=f32(4, 5)).vector_flops
    (20, 40)
    """
    if alpha == 1:
        return _arithmetic("x + y", (2, 1), input, other, out)
    return _arithmetic("x + alpha * y", (4, 3), input, other, out)


@formula("aten.mul", "aten.multiply")
def mul(input: Any, other: Any, *, out: TensorSpec) -> Cost:
    """``x * y``; complex (a + bi)(c + di) = (ac - bd) + (ad + bc)i: 4 multiplications and 2 additions; by a real: 2."""
    return _arithmetic("x * y", (6, 2), input, other, out)


@formula("aten.div", "aten.divide", "aten.true_divide")
def div(input: Any, other: Any, rounding_mode: str | None = None, *, out: TensorSpec) -> Cost:
    """``x / y``, rounded if asked: ``floor(x / y)``, ``trunc(x / y)``.

    Complex: (ac + bd, bc - ad) / (cc + dd) is 6 multiplications, 3 additions and 2 divisions; by a real: 2.
    """
    return _arithmetic("floor(x / y)" if rounding_mode else "x / y", (11, 2), input, other, out)


@formula("aten.abs", "aten.absolute")
def absolute(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """``abs(x)``; complex ``sqrt(x * x + y * y)`` of real and imaginary part."""
    return elementwise("sqrt(x * x + y * y)" if _is_complex(input) else "abs_(x)", (input,), out)


@formula("aten.conj_physical", "aten._conj_physical")
def conj_physical(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Negates the imaginary part; real numbers are copied."""
    return cost(out.numel if _is_complex(input) else 0, (input,), out)


@formula("aten.round")
def round_(input: TensorSpec, decimals: int = 0, *, out: TensorSpec) -> Cost:
    """``round(x)``, or ``round(x * 10**decimals) / 10**decimals``."""
    return elementwise("round_(x * 10**decimals) / 10**decimals" if decimals else "round_(x)", (input,), out)


@formula("aten.clamp", "aten.clip")
def clamp(input: TensorSpec, min: Any = None, max: Any = None, *, out: TensorSpec) -> Cost:
    """``min(max(x, lo), hi)``: one comparison for each bound that is given.

    >>> from costmodel.tensor import f32
    >>> clamp(f32(4, 5), min=0, out=f32(4, 5)).vector_flops, clamp(f32(4, 5), 0, 1, out=f32(4, 5)).vector_flops
    (20, 40)
    """
    bounds = (min is not None) + (max is not None)
    return elementwise(("x", "max(x, lo)", "min(max(x, lo), hi)")[bounds], (input, min, max), out)


@formula("aten.clamp_min", "aten.clamp_max")
def clamp_one(input: TensorSpec, min: Any = None, max: Any = None, *, out: TensorSpec) -> Cost:
    """``max(x, lo)`` or ``min(x, hi)``."""
    return elementwise("max(x, lo)", (input, min, max), out)


@formula("aten.addcmul", "aten.addcdiv")
def addcmul(input: TensorSpec, tensor1: TensorSpec, tensor2: TensorSpec, value: Any = 1, *, out: TensorSpec) -> Cost:
    """``x + value * y * z`` (``y / z``)."""
    return elementwise("x + y * z" if value == 1 else "x + value * y * z", (input, tensor1, tensor2), out)


@formula("aten.nan_to_num")
def nan_to_num(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """Three comparisons choose the replacements of nan, inf and -inf."""
    return elementwise("select(x != x, nan, select(x == inf, posinf, select(x == -inf, neginf, x)))", (input,), out)


@formula("aten.gelu")
def gelu(input: TensorSpec, approximate: str = "none", *, out: TensorSpec) -> Cost:
    """Gaussian error linear unit, exact or by tanh (Hendrycks and Gimpel 2016, section 2).

    >>> from costmodel.tensor import f32
    >>> gelu(f32(4, 5), out=f32(4, 5)).vector_flops // 20               # mul, mul, erf, add, mul
    5
    >>> gelu(f32(4, 5), "tanh", out=f32(4, 5)).vector_flops // 20       # mul, pow, mul, add, mul, tanh, add, mul
    8
    """
    exact = "0.5 * x * (1 + erf(x * sqrt(0.5)))"
    by_tanh = "0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * power(x, 3))))"
    return elementwise(by_tanh if approximate == "tanh" else exact, (input,), out)


@formula("aten.glu")
def glu(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """``x / (1 + exp(-y))`` of the two halves x and y of the input: half as many results as operands."""
    return elementwise("x / (1 + exp(-y))", (input,), out)


@formula("aten.elu", "aten.celu", "aten.selu")
def elu(input: TensorSpec, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1, *, out: TensorSpec) -> Cost:
    """``scale * (x if x > 0 else alpha * (exp(x * input_scale) - 1))``, where factors of 1 are not multiplied by."""
    factors = (alpha != 1) + (scale != 1) + (input_scale != 1)
    return cost((3 + factors) * out.numel, (input,), out)


@formula("aten.softplus")
def softplus(input: TensorSpec, beta: Any = 1, *, out: TensorSpec) -> Cost:
    """``log1p(exp(beta * x)) / beta``, or x where ``beta * x > threshold``: 3 FLOP, and 2 for a beta other than 1."""
    return cost((3 if beta == 1 else 5) * out.numel, (input,), out)


@formula("aten.rrelu_with_noise", "aten.rrelu")
def rrelu(input: TensorSpec, *, out: TensorSpec) -> Cost:
    """In inference a leaky relu with the mean slope; the noise is not read."""
    return elementwise("select(x > 0, x, slope * x)", (input,), out)


@formula("aten.logit", "aten.special_logit")
def logit(input: TensorSpec, eps: Any = None, *, out: TensorSpec) -> Cost:
    """``log(x / (1 - x))``, after clamping to [eps, 1 - eps] where an eps is given."""
    clamped = "log(min(max(x, eps), 1 - eps) / (1 - x))"
    return elementwise("log(x / (1 - x))" if eps is None else clamped, (input,), out)


@formula("aten.fake_quantize_per_tensor_affine_cachemask", "aten.fake_quantize_per_channel_affine_cachemask",
         "aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams")  # fmt: skip
def fake_quantize_cachemask(
    input: Any, scale: Any = None, zero_point: Any = None, *, out: tuple[TensorSpec, ...]
) -> Cost:
    """Simulated quantisation that also writes the mask of elements inside the range."""
    mask = "(x >= lo) & (x <= hi)"
    per_element = expression_flops(EXPRESSION_OF["fake_quantize_per_tensor_affine"]) + expression_flops(mask)
    return cost(per_element * out[0].numel, (input, scale, zero_point), out)


@formula("aten.dropout")
def dropout(input: TensorSpec, p: float = 0.5, train: bool = True, *, out: TensorSpec) -> Cost:
    """Nothing in inference; in training ``select(z < p, 0, x * (1 / (1 - p)))`` with z a random number."""
    if not train:
        return Cost()
    return elementwise("select(z < p, 0, x * scale)", (input,), out)


@formula("aten.native_dropout", "aten._fused_dropout")
def native_dropout(
    input: TensorSpec, p: float = 0.5, train: bool | None = True, *, out: tuple[TensorSpec, ...]
) -> Cost:
    """Dropout that keeps its mask: result and mask are written; a copy where it does not train."""
    return elementwise("select(z < p, 0, x * scale)" if train is not False else "x", (input,), out)


@formula("aten.randn", "aten.randn_like", "aten.normal", "aten.log_normal", "aten.normal_functional")
def randn(mean: Any = 0, std: Any = 1, *, out: TensorSpec) -> Cost:
    """Box and Muller (1958): r = sqrt(-2 log u), r cos(2 pi v) and r sin(2 pi v): 8 operations for 2 numbers.

    A mean and a standard deviation other than 0 and 1 add one operation each. Only the result is written.
    """
    per_element = 4 + (mean != 0) + (std != 1)
    return cost(per_element * out.numel, (mean, std), out)
