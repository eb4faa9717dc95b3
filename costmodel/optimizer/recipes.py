"""What ``torch.optim`` calls in one step, as data: each algorithm for lists of tensors, fused, and tensor by tensor.

A :class:`Line` is one call; its operands name what each parameter has: ``param``, ``grad``, its states by torch's
names, and what lines before have made. The lines are those of torch 2.13: ``_multi_tensor_sgd``, ``_single_tensor_sgd``
and ``_fused_sgd`` in torch/optim/sgd.py; ``_multi_tensor_adam``, ``_single_tensor_adam`` and ``_fused_adam`` in
torch/optim/adam.py, which AdamW shares; without ``amsgrad``, ``maximize``, ``capturable`` and ``differentiable``, from
the second step on, when states are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from costmodel.execution import Optimizer

__all__ = ["COUNTER", "MOMENTUM", "Line", "counts_steps", "for_each", "for_lists", "fused"]

#: Number of steps of each parameter: a tensor of one element.
COUNTER = "step"

#: torch's defaults, and 0.9 and 1e-4 where they are asked for but have none: costs depend on which of them are 1 or 0.
_LR, MOMENTUM, _BETA1, _BETA2, _EPS = 1e-3, 0.9, 0.9, 0.999, 1e-8
_DECAY = {"adamw": 1e-2}
_OTHER_DECAY = 1e-4


@dataclass(frozen=True, slots=True)
class Line:
    """One call of an operator for every parameter of a list, or for one parameter.

    ``op``       without ``aten.`` and without the ``_foreach_`` of lists
    ``tensors``  argument's name -> what it is of each parameter; the first is the one that a call in place writes
    ``plain``    the other arguments
    ``scalars``  a number of which each tensor of the list has its own; None where the operator takes no such list
    ``makes``    what the result is called where the call makes new tensors; "" where it writes in place
    """

    op: str
    tensors: Mapping[str, str]
    plain: Mapping[str, Any] = field(default_factory=dict)
    makes: str = ""
    scalars: float | None = None


def counts_steps(optimizer: Optimizer) -> bool:
    """Whether the algorithm counts the steps of each parameter."""
    return optimizer.algorithm in ("adam", "adamw")


def _decay(optimizer: Optimizer) -> float:
    return _DECAY.get(optimizer.algorithm, _OTHER_DECAY) if optimizer.decays else 0.0


def for_lists(optimizer: Optimizer) -> list[Line]:
    """Calls of ``aten._foreach_*``, each for all parameters of a group.

    >>> [line.op for line in for_lists(Optimizer(algorithm="momentum"))]
    ['mul', 'add', 'add']
    """
    return _adam(optimizer, lists=True) if counts_steps(optimizer) else _sgd(optimizer, lists=True)


def for_each(optimizer: Optimizer) -> list[Line]:
    """Calls for one parameter, where torch goes through them one by one.

    >>> [line.op for line in for_each(Optimizer(algorithm="adam"))]
    ['add', 'lerp', 'mul', 'addcmul', 'sqrt', 'div', 'add', 'addcdiv']
    """
    return _adam(optimizer, lists=False) if counts_steps(optimizer) else _sgd(optimizer, lists=False)


def _sgd(optimizer: Optimizer, lists: bool) -> list[Line]:
    """Lists: Nesterov's correction is added to the gradients themselves, or to the copy that decay has made of them."""
    decay, factor = _decay(optimizer), "scalar" if lists else "other"
    found, grad = [], "grad"
    if decay:
        found.append(Line("add", {"input": grad, "other": "param"}, {"alpha": decay}, makes="decayed"))
        grad = "decayed"
    if optimizer.states:
        found.append(Line("mul", {"input": "momentum_buffer"}, {factor: MOMENTUM}))
        found.append(Line("add", {"input": "momentum_buffer", "other": grad}, {"alpha": 1}))
        if optimizer.algorithm == "nesterov":
            ahead = "" if lists else "ahead"
            corrected = {"input": grad, "other": "momentum_buffer"}
            found.append(Line("add", corrected, {"alpha": MOMENTUM}, makes=ahead))
            grad = ahead or grad
        else:
            grad = "momentum_buffer"
    found.append(Line("add", {"input": "param", "other": grad}, {"alpha": -_LR}))
    return found


def _adam(optimizer: Optimizer, lists: bool) -> list[Line]:
    decay, factor = _decay(optimizer), "scalar" if lists else "other"
    found, grad = [Line("add", {"input": COUNTER}, {"other": 1})], "grad"
    if decay and optimizer.algorithm == "adamw":
        found.append(Line("mul", {"input": "param"}, {factor: 1 - _LR * decay}))
    elif decay:
        found.append(Line("add", {"input": grad, "other": "param"}, {"alpha": decay}, makes="decayed"))
        grad = "decayed"
    tensors = ("tensors1", "tensor1", "tensor2") if lists else ("end", "tensor1", "tensor2")
    found += [
        Line("lerp", {"input": "exp_avg", tensors[0]: grad}, {"weight": 1 - _BETA1}),
        Line("mul", {"input": "exp_avg_sq"}, {factor: _BETA2}),
        Line("addcmul", {"input": "exp_avg_sq", tensors[1]: grad, tensors[2]: grad}, {"value": 1 - _BETA2}),
        Line("sqrt", {"input": "exp_avg_sq"}, makes="root"),
    ]
    step = {"input": "param", tensors[1]: "exp_avg", tensors[2]: "denominator"}
    if lists:  # each tensor has corrections of its own, from its own count of steps
        step = {**step, tensors[2]: "root"}
        found.append(Line("div", {"input": "root"}, scalars=_BETA2))
        found.append(Line("add", {"input": "root"}, {"scalar": _EPS}))
        found.append(Line("addcdiv", step, scalars=_LR))
    else:
        found.append(Line("div", {"input": "root"}, {"other": 1 - _BETA2}, makes="denominator"))
        found.append(Line("add", {"input": "denominator"}, {"other": _EPS}))
        found.append(Line("addcdiv", step, {"value": -_LR}))
    return found


def fused(optimizer: Optimizer) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The fused operator: its name without underscores, argument -> list of tensors, and its numbers.

    >>> fused(Optimizer(algorithm="adamw"))[0]
    'fused_adamw'
    """
    if counts_steps(optimizer):
        lists = {"input": "param", "grads": "grad", "exp_avgs": "exp_avg", "exp_avg_sqs": "exp_avg_sq"}
        numbers = {"lr": _LR, "beta1": _BETA1, "beta2": _BETA2, "weight_decay": _decay(optimizer), "eps": _EPS}
        flags = {"amsgrad": False, "maximize": False}
        lists |= {"max_exp_avg_sqs": "", "state_steps": COUNTER}
        return f"fused_{optimizer.algorithm}", lists, {**numbers, **flags}
    lists = {"input": "param", "grads": "grad", "momentum_buffer_list": "momentum_buffer" if optimizer.states else ""}
    numbers = {"weight_decay": _decay(optimizer), "momentum": MOMENTUM if optimizer.states else 0.0, "lr": _LR}
    flags = {"nesterov": optimizer.algorithm == "nesterov", "maximize": False, "is_first_step": False}
    return "fused_sgd", lists, {**numbers, "dampening": 0.0, **flags}
