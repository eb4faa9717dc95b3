"""One micro-benchmark: an operator call that can be timed, and the kernels that the time model sees in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from costmodel.execution import Execution
from costmodel.formulas import cost_of
from costmodel.kernels.cpu import cpu_kernels
from costmodel.kernels.operator import Operator
from costmodel.kernels.plan import Kernel
from costmodel.tensor import TensorSpec

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile

__all__ = ["Entry", "kernels_of", "spec_of"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A call of one aten operator on real tensors.

    ``arguments`` are by schema name, as in a traced graph; ``activations`` are the tensors that a producer would just
    have written (they are touched before each timed call; weights are not). ``tiny`` entries move next to nothing:
    their time is the fixed time of their kind.
    """

    name: str
    op: str  # aten.conv2d
    arguments: Mapping[str, Any]
    call: Callable[[], Any]
    activations: tuple[torch.Tensor, ...]
    in_place: bool = False
    tiny: bool = False
    host: str = ""  # what the host does that starts no kernel: view

    def touch(self) -> None:
        """Write the activations, so that they are as warm as a producer leaves them."""
        for tensor in self.activations:
            if self.in_place:  # a value that stays what it is: repeated in-place calls would run off to 0 or infinity
                tensor.fill_(0.5)
            else:
                tensor.mul_(1)


def spec_of(value: Any) -> Any:
    """Tensors as specs, in whatever nesting.

    >>> spec_of([torch.zeros(2, 3), 1])[0].strides
    (3, 1)
    """
    if isinstance(value, torch.Tensor):
        return TensorSpec(tuple(value.shape), str(value.dtype).removeprefix("torch."), strides=tuple(value.stride()))
    if isinstance(value, Mapping):
        return {name: spec_of(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [spec_of(item) for item in value]
    return value


def kernels_of(entry: Entry, hardware: HardwareProfile) -> tuple[Kernel, ...]:
    """The kernels that ``entry`` starts on a CPU, by the rules that lower a model; runs the call once.

    Raises FormulaError where the operator has no formula.
    """
    arguments, results = spec_of(dict(entry.arguments)), spec_of(entry.call())
    cost = cost_of(entry.op, arguments, results)
    if cost is None:
        raise LookupError(f"{entry.op} has no formula")
    return cpu_kernels(Operator(entry.op, arguments, results, cost, Execution(), hardware))


def total_bytes(kernels: Iterable[Kernel]) -> int:
    """All bytes that kernels read and write."""
    return sum(kernel.bytes for kernel in kernels)
