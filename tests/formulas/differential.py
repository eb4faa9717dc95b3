"""Run one operator through torch on the meta device and through its formula, with the same arguments.

``ran("linear", meta(4, 5), meta(6, 5))`` calls ``torch.ops.aten.linear``, names the arguments as its schema does
(``self`` is called ``input``), turns tensors into specs and returns the formula's Cost beside the FLOP that
``torch.utils.flop_counter.FlopCounterMode`` counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from costmodel.cost import Cost
from costmodel.formulas.registry import cost_of
from costmodel.symbols import symbol
from costmodel.tensor import TensorSpec


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor without values."""
    return torch.empty(shape, dtype=dtype, device="meta")


def specs(value: Any) -> Any:
    """Specs in place of tensors, inside lists and tuples too."""
    if isinstance(value, torch.Tensor):
        return TensorSpec(tuple(value.shape), str(value.dtype).removeprefix("torch."))
    return [specs(v) for v in value] if isinstance(value, (list, tuple)) else value


def flops_by_torch(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """What torch's own counter counts in a call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*args, **kwargs)
    return counter.get_total_flops()


def _called(packet: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The first overload that takes these arguments, and its result."""
    errors = []
    for overload in packet.overloads():
        try:
            return getattr(packet, overload), getattr(packet, overload)(*args, **kwargs)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            errors.append(f"{overload}: {error}")
    raise AssertionError("\n".join(errors))


def ran(operator: str, *args: Any, **kwargs: Any) -> tuple[Cost, int]:
    """(Cost by the formula, FLOP by torch) of one call of ``aten.<operator>`` on meta tensors."""
    packet = getattr(torch.ops.aten, operator)
    with torch.no_grad():
        overload, result = _called(packet, args, kwargs)
    names = [a.name for a in overload._schema.arguments]
    arguments = {**dict(zip(names, args, strict=False)), **kwargs}
    named = {("input" if name == "self" else name): specs(value) for name, value in arguments.items()}
    cost = cost_of(f"aten.{operator}", named, specs(result))
    assert cost is not None, f"aten.{operator} has no formula"
    return cost, flops_by_torch(overload, *args, **kwargs)


def check_symbolic(operator: str, build: Callable[[Any], tuple[dict[str, Any], Any]], sizes: Sequence[int]) -> None:
    """The formula at a symbol n, bound to each size, is the formula at that size: every quantity, exactly.

    ``build(n)`` gives the arguments and the result's spec for any n, number or symbol.
    """
    arguments, out = build(symbol("n"))
    symbolic = cost_of(operator, arguments, out)
    assert symbolic is not None
    assert symbolic.is_symbolic
    for size in sizes:
        arguments, out = build(size)
        assert symbolic.bind({"n": size}) == cost_of(operator, arguments, out), size
