"""Operators over lists of tensors on a GPU: how many kernels ``multi_tensor_apply`` makes of one call.

A kernel takes lists of addresses among its arguments, so that it can hold only so many tensors and so many chunks of
them; a call starts as many as it needs. native/cuda/MultiTensorApply.cuh of torch 2.13; what a kernel can hold grew
eightfold with CUDA 13, for which torch is built by default since 2.11.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from costmodel.formulas.registry import known_operators
from costmodel.kernels.operator import Operator, rule
from costmodel.kernels.plan import Kernel
from costmodel.tensor import TensorSpec, tensors_in

__all__ = ["launches"]

#: Elements of a tensor that one block works through.
CHUNK = 65536
#: Tensors that one kernel can take, by the number of lists (1 to 5), and blocks: arguments of 4 kB, and of 32 kB.
_SMALL, _LARGE = ((110, 64, 48, 36, 30), 320), ((770, 448, 336, 252, 210), 2240)
#: The same for one list where each tensor has a number of its own.
_ONE_LIST_OF_SCALARS = {_SMALL: 96, _LARGE: 672}
#: The first release of torch whose default build is for CUDA 13.
_CUDA_13 = (2, 11)


def launches(elements: Sequence[int], most_tensors: int, most_blocks: int) -> Iterator[int]:
    """Elements of each kernel of one call over tensors of so many elements.

    >>> list(launches([65536] * 5, most_tensors=2, most_blocks=320))
    [131072, 131072, 65536]
    """
    tensors, blocks, held = 0, 0, 0
    for count in elements:
        if not count:
            continue
        tensors += 1
        for first in range(0, count, CHUNK):
            held += min(CHUNK, count - first)
            blocks += 1
            is_last = first + CHUNK >= count
            if blocks == most_blocks or (tensors == most_tensors and is_last):
                yield held
                tensors, blocks, held = 0 if is_last else 1, 0, 0
    if blocks:
        yield held


_OF_LISTS = ("aten._foreach_", "aten._fused_adam", "aten._fused_sgd", "aten._amp_foreach_")


@rule(*(op.removeprefix("aten.") for op in known_operators() if op.startswith(_OF_LISTS)))
def _for_lists(operator: Operator) -> Iterator[Kernel]:
    """One kernel as far as it reaches, then the next, each with its share of the work.

    A list that is given twice (the gradient that ``addcmul`` squares) comes from memory once. Tensors of more than one
    dtype would go the slow way, one by one; optimizers sort theirs before.
    """
    tensors: list[TensorSpec] = list(tensors_in(operator.arguments["input"]))
    limits = _LARGE if operator.execution.software.at_least_torch(*_CUDA_13) else _SMALL
    depth = _lists(operator)
    most = _ONE_LIST_OF_SCALARS[limits] if depth == 1 and "scalars" in operator.arguments else limits[0][depth - 1]
    sizes: list[int] = [t.numel for t in tensors]  # type: ignore[misc]
    cost, total, twice = operator.cost, sum(sizes), _read_twice(operator)
    for elements in launches(sizes, most, limits[1]):
        yield Kernel(
            operator.op,
            "multi_tensor",
            vector_flops=cost.vector_flops * elements // total,  # type: ignore[operator]
            bytes_read=(cost.bytes_read - twice) * elements // total,  # type: ignore[operator]
            bytes_written=cost.bytes_written * elements // total,  # type: ignore[operator]
            elements=elements,
        )


def _lists(operator: Operator) -> int:
    """How many lists of addresses a kernel takes: operands, and results where they are new. Counts of steps have
    a place of their own."""
    given = [v for name, v in operator.arguments.items() if name != "state_steps" and isinstance(v, list)]
    makes = operator.name.startswith("_foreach") and not operator.arguments.get("in_place")
    return min(sum(any(tensors_in(v)) for v in given) + makes, 5)


def _read_twice(operator: Operator) -> int:
    """B of the second of two equal operands of ``addcmul``."""
    first, second = operator.arguments.get("tensor1"), operator.arguments.get("tensor2")
    return sum(t.nbytes for t in tensors_in(second)) if first == second else 0  # type: ignore[misc]
