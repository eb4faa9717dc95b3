"""Compulsory traffic of an operator and the shape of a contraction's cost, shared by the sheets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from costmodel.cost import Cost
from costmodel.symbols import Dim
from costmodel.tensor import TensorSpec

__all__ = ["Specs", "contraction_cost", "halved", "nbytes", "spec_of"]

#: What an operator takes or gives: a spec, none, a plain value, or a list of these.
Specs: TypeAlias = "TensorSpec | None | Sequence[Any]"


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


def spec_of(out: Specs) -> TensorSpec:
    """The first result of an operator: the tensor itself, also where statistics come with it.

    >>> spec_of((TensorSpec((2, 3)), TensorSpec((2,)))).shape
    (2, 3)
    """
    if isinstance(out, TensorSpec):
        return out
    assert out is not None
    return spec_of(out[0])


def halved(even: Dim) -> Dim:
    """Half of a size that is known to be even, exact for integers and for symbols.

    >>> halved(6)
    3
    """
    return even // 2 if isinstance(even, int) else even / 2


def contraction_cost(
    macs: Dim, *operands: Specs, out: Specs, vector_flops: Dim = 0, workspace_bytes: Dim = 0, activations: Dim | None = None
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
