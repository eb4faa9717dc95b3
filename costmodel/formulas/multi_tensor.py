"""Operators over lists of tensors: ``aten._foreach_*``, the fused optimizers, GradScaler's look through gradients.

Each treats every element of every tensor alike, so that its cost is one textbook expression times all elements
(:func:`~costmodel.formulas.elements.expression_flops`), every operand once read and every result once written. Numbers
that a list gives each tensor for itself (``scalars``) are known ahead and cost nothing. What lies in the host's memory
(:attr:`~costmodel.tensor.Role.HOST`: counts of steps) asks nothing of the device: such a call costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import aten, cost, expression_flops
from costmodel.formulas.pointwise import EXPRESSION_OF
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim
from costmodel.tensor import Role, TensorSpec, tensors_in

__all__ = ["EXPRESSIONS", "FUSED_ADAM", "FUSED_SGD"]

#: Operators of lists by the expression of one element; x, y, z are elements, everything else numbers.
EXPRESSIONS: dict[str, str] = {
    **{
        f"_foreach_{name}": EXPRESSION_OF[name]
        for name in """neg reciprocal exp expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh
        tanh erf erfc lgamma floor ceil trunc sign sigmoid frac maximum minimum pow lerp""".split()
    },
    "_foreach_abs": "abs_(x)",
    "_foreach_round": "round_(x)",
    "_foreach_mul": "x * y",
    "_foreach_div": "x / y",
    "_foreach_clamp_min": "max(x, y)",
    "_foreach_clamp_max": "min(x, y)",
    "_foreach_copy": "x",
    "_foreach_zero": "0",
}
#: One element of Adam with its gradient g = x, its moments m = y and v = z, and its parameter as another x. ADAM_MODE's
#: two ways to let weights decay; ``adam_math`` in native/cuda/fused_adam_utils.cuh.
FUSED_ADAM: dict[str, str] = {
    "scale": "x / scale",
    "_fused_adam decay": "x + x * weight_decay",
    "_fused_adamw decay": "x - lr_times_decay * x",
    "first moment": "beta1 * y + (x - beta1 * x)",
    "second moment": "beta2 * z + (x * x - beta2 * (x * x))",
    "update": "x - step_size * y / (sqrt(z) / correction + eps)",
}
#: The same of SGD with its momentum y: ``sgd_math`` in native/cuda/FusedSgdKernel.cu.
FUSED_SGD: dict[str, str] = {
    "scale": "x / scale",
    "decay": "x + weight_decay * x",
    "momentum": "momentum * y + x",
    "dampened momentum": "momentum * y + (1 - dampening) * x",
    "nesterov": "x + momentum * y",
    "update": "x - lr * y",
}


def _of_device(values: Iterable[Any]) -> list[TensorSpec]:
    return [t for t in tensors_in(list(values)) if t.role is not Role.HOST]


def _for_all(flops: int, input: Any, operands: Iterable[Any], out: Any) -> Cost:
    """``flops`` for each element of the tensors of ``input``; nothing where they are the host's."""
    lists = _of_device([input])
    if not lists:
        return Cost()
    return cost(flops * _elements(lists), _of_device(operands), _of_device([out]))


def _elements(tensors: Iterable[TensorSpec]) -> Dim:
    return sum((t.numel for t in tensors), start=0)


def _register(expression: str, operator: str) -> None:
    @formula(*aten(operator))
    def each_element(*, out: Any, **arguments: Any) -> Cost:
        return _for_all(expression_flops(expression), out, arguments.values(), out)

    each_element.__doc__ = f"``{expression}`` for every element of every tensor."


for _operator, _expression in EXPRESSIONS.items():
    _register(_expression, _operator)


@formula("aten._foreach_add", "aten._foreach_sub")
def foreach_add(input: Any, other: Any = None, alpha: Any = 1, *, out: Any) -> Cost:
    """``x + y``, or ``x + alpha * y`` where alpha is not 1.

    >>> from costmodel.tensor import f32
    >>> lists = [f32(4, 5), f32(3)]
    >>> foreach_add(lists, lists, out=lists).vector_flops, foreach_add(lists, lists, alpha=-0.1, out=lists).vector_flops
    (23, 46)
    """
    return _for_all(1 if alpha == 1 else 2, out, (input, other), out)


@formula("aten._foreach_addcmul", "aten._foreach_addcdiv")
def foreach_addcmul(input: Any, tensor1: Any, tensor2: Any, value: Any = 1, scalars: Any = None, *, out: Any) -> Cost:
    """``x + value * y * z`` (``y / z``); by a value that is 1 nothing is multiplied."""
    expression = "x + y * z" if value == 1 and scalars is None else "x + value * y * z"
    return _for_all(expression_flops(expression), out, (input, tensor1, tensor2), out)


@formula("aten._foreach_norm")
def foreach_norm(input: Any, ord: Any = 2, *, out: Any) -> Cost:
    """Norm of each tensor: a square and an addition an element, a root a tensor."""
    tensors = _of_device([input])
    return cost(2 * _elements(tensors) + len(tensors), tensors, _of_device([out]))


@formula("aten._fused_adam", "aten._fused_adamw")
def fused_adam(
    input: Any, grads: Any, exp_avgs: Any, exp_avg_sqs: Any, max_exp_avg_sqs: Any, state_steps: Any, weight_decay: Any,
    amsgrad: Any = False, maximize: Any = False, grad_scale: Any = None, found_inf: Any = None, *, out: Any,
) -> Cost:  # fmt: skip
    """Adam and AdamW (``FUSED_ADAM``), parameter and moments read and written; scaled gradients are written too.

    The two differ only in how weights decay, which takes two operations either way. ``amsgrad`` keeps a maximum.

    >>> from costmodel.tensor import f32
    >>> p = [f32(10)]
    >>> fused_adam(p, p, p, p, [], [f32()], 0.01, out=[*p, *p, *p]).bytes        # 4 + 3 times 40 B, and the step
    284
    """
    parts = ["first moment", "second moment", "update"] + ["_fused_adamw decay"] * (weight_decay != 0)
    parts += ["scale"] * (grad_scale is not None)
    flops = sum(expression_flops(FUSED_ADAM[part]) for part in parts) + bool(amsgrad) + bool(maximize)
    lists = (input, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps, grad_scale, found_inf)
    return _for_all(flops, input, lists, out)


@formula("aten._fused_sgd")
def fused_sgd(
    input: Any, grads: Any, momentum_buffer_list: Any, weight_decay: Any, momentum: Any, dampening: Any, nesterov: Any,
    maximize: Any = False, grad_scale: Any = None, found_inf: Any = None, *, out: Any,
) -> Cost:  # fmt: skip
    """SGD (``FUSED_SGD``), with momentum where there are buffers for it; scaled gradients are written too."""
    parts = ["update"] + ["decay"] * (weight_decay != 0) + ["scale"] * (grad_scale is not None)
    if momentum:
        parts += ["momentum" if dampening == 0 else "dampened momentum"] + ["nesterov"] * bool(nesterov)
    flops = sum(expression_flops(FUSED_SGD[part]) for part in parts) + bool(maximize)
    return _for_all(flops, input, (input, grads, momentum_buffer_list, grad_scale, found_inf), out)


@formula("bitsandbytes.adam_blockwise")
def adam_blockwise(
    input: Any, grad: Any, state1: Any, state2: Any, absmax1: Any = None, absmax2: Any = None, *, out: Any
) -> Cost:
    """Adam with moments as bytes: each is read with its block's scale, updated in fp32, and quantized again.

    Besides Adam's own operations a product on the way in, and on the way out a maximum of the block and a division,
    for both moments.

    >>> from costmodel.tensor import TensorSpec, f32
    >>> p, s, b = f32(4096), TensorSpec((4096,), "uint8"), f32(16)
    >>> adam_blockwise(p, p, s, s, b, b, out=[p, s, s, b, b]).bytes    # 3 * 4 B and 4 * 1 B an element, scales twice
    65792
    """
    flops = sum(expression_flops(FUSED_ADAM[part]) for part in ("first moment", "second moment", "update"))
    states = 0 if absmax1 is None else 6
    return _for_all(flops + states, [input], [input, grad, state1, state2, absmax1, absmax2], out)


@formula("aten._amp_foreach_non_finite_check_and_unscale")
def unscale(input: Any, found_inf: Any, inv_scale: Any, *, out: Any) -> Cost:
    """``x * inv_scale`` of each gradient, which is asked whether it is finite: an absolute value and a comparison."""
    flops = expression_flops("x * inv_scale") + expression_flops("abs_(x) != inf")
    return _for_all(flops, input, (input, inv_scale), out)


@formula("aten._amp_update_scale")
def update_scale(input: TensorSpec, growth_tracker: TensorSpec, found_inf: TensorSpec, *, out: Any) -> Cost:
    """One number: ``found ? scale * backoff : (steps + 1 == interval ? scale * growth : scale)``."""
    flops = expression_flops("select(c, x * backoff, select(y + 1 == interval, x * growth, x))")
    return cost(flops, (input, growth_tracker, found_inf), out)
