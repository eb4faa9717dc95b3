"""What the sheets of contractions share: the bytes of operands, and the form of a contraction's cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from costmodel.cost import Cost, total
from costmodel.symbols import Dim
from costmodel.tensor import TensorSpec

__all__ = ["Specs", "contraction_cost", "fused_cost", "halved", "nbytes", "spec_of"]

#: What an operator takes or gives: a spec, none, a plain value, or a list of these.
Specs: TypeAlias = "TensorSpec | Sequence[Any] | None"


def nbytes(*values: Any) -> Dim:
    """Bytes of all tensor specs in ``values``, each once, in their own dtype; anything else is ignored.

    >>> nbytes(TensorSpec((2, 3)), None, [TensorSpec((4,), "float16"), TensorSpec((), "int64")], 7)
    40
    """
    size: Dim = 0
    for value in values:
        if isinstance(value, TensorSpec):
            size = size + value.nbytes
        elif isinstance(value, (list, tuple)):
            size = size + nbytes(*value)
    return size


def spec_of(out: Any) -> TensorSpec:
    """The first result of an operator: the tensor itself, also where statistics come with it.

    >>> spec_of((TensorSpec((2, 3)), TensorSpec((2,)))).shape
    (2, 3)
    """
    return out if isinstance(out, TensorSpec) else spec_of(out[0])


def halved(even: Dim) -> Dim:
    """Half of a size that is known to be even, exact for integers and for symbols.

    >>> halved(6)
    3
    """
    return even // 2 if isinstance(even, int) else even / 2


def contraction_cost(
    macs: Dim,
    *operands: Specs,
    out: Specs,
    vector_flops: Dim = 0,
    workspace_bytes: Dim = 0,
    activations: Dim | None = None,
) -> Cost:
    """Cost of one contraction: 2 FLOP per MAC, operands once read, results once written, one launch.

    ``activations`` defaults to the elements of the (first) result.

    >>> contraction_cost(2 * 3 * 5, TensorSpec((2, 5)), TensorSpec((5, 3)), out=TensorSpec((2, 3))).matrix_flops
    60
    """
    return Cost(
        2 * macs,
        vector_flops,
        nbytes(*operands),
        nbytes(out),
        1,
        spec_of(out).numel if activations is None else activations,
        workspace_bytes,
    )


def fused_cost(parts: Iterable[Cost], *operands: Specs, out: Specs) -> Cost:
    """One operator that does the work of several: their FLOPs and launches, but only its own traffic.

    >>> whole = fused_cost([Cost(2, 1, 8, 4, 1), Cost(4, 0, 8, 4, 1)], TensorSpec((2,)), out=TensorSpec((1,)))
    >>> whole.matrix_flops, whole.bytes_read, whole.bytes_written, whole.launches
    (6, 8, 4, 2)
    """
    work = total(parts)
    return replace(work, bytes_read=nbytes(*operands), bytes_written=nbytes(out))
