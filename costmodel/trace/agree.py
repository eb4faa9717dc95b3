"""Whether a graph that was lifted says what a run did: the same calls on tensors of the same sizes and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.graph import OpGraph
from costmodel.nodes import Call, DimCode, SpecRef
from costmodel.tensor import TensorSpec

__all__ = ["difference"]


def difference(bound: OpGraph, traced: OpGraph) -> str | None:
    """The first thing in which two graphs in numbers differ, as a phrase; None where they describe the same program.

    Some differences are none: strides of dimensions of size 1, which torch sets as it likes, floating-point
    arguments, which are values and not sizes, and the device that a constant is made on while tracing.
    """
    if bound.parameters != traced.parameters or bound.parameter_bytes_of != traced.parameter_bytes_of:
        return "the model has other weights there"
    if bound.buffer_bytes_of != traced.buffer_bytes_of:
        return "the model has other buffers there"
    alike = _Alike(bound, traced)
    for ours, theirs in zip(bound.nodes, traced.nodes, strict=False):
        if (ours.op, ours.module, ours.inputs, ours.outputs, ours.in_place, ours.after) != (
            theirs.op,
            theirs.module,
            theirs.inputs,
            theirs.outputs,
            theirs.in_place,
            theirs.after,
        ) or not alike.calls(ours.call, theirs.call):
            return f"{ours.name} is called in another way there"
    if len(bound.nodes) != len(traced.nodes):
        return f"{len(traced.nodes)} operators run there, not {len(bound.nodes)}"
    if (bound.inputs, bound.outputs) != (traced.inputs, traced.outputs) or len(bound.tensors) != len(traced.tensors):
        return "other tensors go in or come out there"
    for mine, other in zip(bound.tensors, traced.tensors, strict=True):
        same = (mine.storage, mine.producer) == (other.storage, other.producer)
        if not same or not alike.specs(mine.spec, other.spec):
            return f"a tensor of {alike.described(mine.spec)} is {alike.described_traced(other.spec)} there"
    if bound.storages != traced.storages:
        return "memory is shared in another way there"
    return None


#: Arguments that say where a tensor is made, which depends on how large it is while tracing.
_PLACES = {"device", "pin_memory"}


class _Alike:
    """Compares the entries of two graphs' tables, each pair once."""

    def __init__(self, bound: OpGraph, traced: OpGraph) -> None:
        self.bound, self.traced = bound, traced
        self._specs: dict[tuple[int, int], bool] = {}
        self._calls: dict[tuple[int, int], bool] = {}

    def specs(self, ours: int, theirs: int) -> bool:
        known = self._specs.get((ours, theirs))
        if known is None:
            left, right = _plain(self.bound.specs[ours]), _plain(self.traced.specs[theirs])
            known = self._specs[ours, theirs] = left == right
        return known

    def calls(self, ours: int, theirs: int) -> bool:
        known = self._calls.get((ours, theirs))
        if known is None:
            left, right = self.bound.calls[ours], self.traced.calls[theirs]
            known = self._calls[ours, theirs] = self._same_call(left, right)
        return known

    def _same_call(self, ours: Call, theirs: Call) -> bool:
        return (
            ours.op == theirs.op
            and [name for name, _ in ours.arguments] == [name for name, _ in theirs.arguments]
            and all(
                name in _PLACES or self._same(a, b)
                for (name, a), (_, b) in zip(ours.arguments, theirs.arguments, strict=True)
            )
            and self._same(ours.outputs, theirs.outputs)
        )

    def _same(self, ours: Any, theirs: Any) -> bool:
        ours = ours.dim if isinstance(ours, DimCode) else ours
        theirs = theirs.dim if isinstance(theirs, DimCode) else theirs
        if isinstance(ours, SpecRef) and isinstance(theirs, SpecRef):
            return self.specs(ours.spec, theirs.spec)
        if isinstance(ours, (tuple, list)) and isinstance(theirs, (tuple, list)):
            return len(ours) == len(theirs) and all(map(self._same, ours, theirs))
        if isinstance(ours, float) and isinstance(theirs, float):
            return True
        return type(ours) is type(theirs) and bool(ours == theirs)

    def described(self, spec: int) -> str:
        return _described(self.bound.specs[spec].shape)

    def described_traced(self, spec: int) -> str:
        return _described(self.traced.specs[spec].shape)


def _described(shape: Sequence[Any]) -> str:
    return "x".join(map(str, shape)) or "one element"


def _plain(spec: TensorSpec) -> tuple[Any, ...]:
    """What counts of a spec: its strides where it has more than one element along them, None where they are dense."""
    if spec.strides is None:
        return spec.shape, spec.dtype, spec.role, None
    along = [(size, stride) for size, stride in zip(spec.shape, spec.strides, strict=True) if size != 1]
    step, dense = 1, True
    for size, stride in reversed(along):
        dense = dense and stride == step
        step *= size
    return spec.shape, spec.dtype, spec.role, None if dense else tuple(stride for _, stride in along)
