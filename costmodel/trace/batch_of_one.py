"""Whether a batch of one could be special to a model that was run at a large prime batch.

What torch does depends on the batch in few ways, and only a size of 1 is apart from all others: a dimension of one
element has no stride to speak of, so that a tensor which is permuted at batch 8 may lie dense in memory at batch 1, and
``reshape`` or ``contiguous`` then copy nothing; the stride that a view gives to a batch of one can hide from a
convolution that its channels come last; and ``squeeze`` takes dimensions of size 1 away. All of it can be read off a
run at another batch. Where they do not occur, that run stands for a batch of one as well; where they do, a run at a
batch of one must decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from costmodel.trace.raw import RawNode, RawTensor, RawTrace, TensorIndex

__all__ = ["makes_constants_of_the_batch", "may_differ_at_one", "viewable"]

_COPIES = {"aten.clone", "aten._to_copy", "aten.contiguous"}
_VIEWS = {"aten.view", "aten._unsafe_view"}
_SQUEEZES = {"aten.squeeze", "aten.squeeze_copy"}


def may_differ_at_one(run: RawTrace, prime: int) -> bool:
    """Whether a run at batch 1 could make other calls than this run at batch ``prime``."""
    targets = _reshape_targets(run)
    for position, node in enumerate(run.nodes):
        if node.op in _COPIES and _copies_only_in_a_batch(run, node, targets.get(position), prime):
            return True
        if node.op in _VIEWS and _images_without_a_batch_stride(run, node, prime):
            return True
        if node.op in _SQUEEZES and _squeezes_a_batch(run, node, prime):
            return True
    return False


def makes_constants_of_the_batch(run: RawTrace, prime: int) -> bool:
    """Whether the model makes tensors of the batch's size out of nothing. At a prime they are too large to be made in
    the host's memory, and moving them to the device, which is a copy at an ordinary batch, does not show."""
    made: set[int] = {
        i for i, tensor in enumerate(run.tensors) if tensor.role == "constant" and tensor.producer is None
    }
    for node in run.nodes:
        if all(operand.index in made for operand in _references(list(node.arguments.values()))):
            made.update(result.index for result in node.outputs)
            if any(size and size % prime == 0 for result in node.outputs for size in run.tensors[result.index].shape):
                return True
    return False


def _reshape_targets(run: RawTrace) -> dict[int, tuple[int, ...]]:
    """For each copy that a ``reshape`` made: the shape that it was made for."""
    return {
        producer: run.tensors[node.outputs[0].index].shape
        for node in run.nodes
        if node.op == "aten._unsafe_view" and (producer := _input(run, node).producer) is not None
    }


def _copies_only_in_a_batch(run: RawTrace, node: RawNode, target: tuple[int, ...] | None, prime: int) -> bool:
    order = node.arguments.get("memory_format")
    if node.op == "aten.clone" and order in (None, "torch.preserve_format") and target is None:
        return False  # a copy that was asked for
    tensor = _input(run, node)
    if not tensor.strides:
        return False
    shape = tuple(_at_one(size, prime) for size in tensor.shape)
    strides = tuple(_at_one(stride, prime) for stride in tensor.strides)
    if target is not None:
        return viewable(shape, strides, tuple(_at_one(size, prime) for size in target))
    if order == "torch.channels_last" and len(shape) == 4:
        return _dense(shape, strides, (0, 2, 3, 1))
    return _dense(shape, strides, range(len(shape)))


def _images_without_a_batch_stride(run: RawTrace, node: RawNode, prime: int) -> bool:
    """Whether a view makes images of one sample out of a tensor that is not dense, where torch invents a stride."""
    tensor, images = _input(run, node), run.tensors[node.outputs[0].index]
    if len(images.shape) != 4 or not tensor.strides or images.shape[0] == 1 or _at_one(images.shape[0], prime) != 1:
        return False
    return not _dense(tensor.shape, tensor.strides, range(len(tensor.shape)))


def _squeezes_a_batch(run: RawTrace, node: RawNode, prime: int) -> bool:
    shape = _input(run, node).shape
    dims = node.arguments.get("dim")
    chosen = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else list(dims)
    return any(shape[d] != 1 and _at_one(shape[d], prime) == 1 for d in chosen)


def _input(run: RawTrace, node: RawNode) -> RawTensor:
    first = next(_references(list(node.arguments.values())))
    return run.tensors[first.index]


def _references(value: Any) -> Iterator[TensorIndex]:
    if isinstance(value, TensorIndex):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _at_one(size: int, prime: int) -> int:
    """A size or stride of the run as it would be at batch 1."""
    while size and size % prime == 0:
        size //= prime
    return size


def _dense(shape: Sequence[int], strides: Sequence[int], order: Sequence[int]) -> bool:
    """Whether the elements lie one after the other with ``order`` from the slowest to the fastest dimension."""
    step = 1
    for d in reversed(order):
        if shape[d] != 1 and strides[d] != step:
            return False
        step *= shape[d]
    return True


def viewable(shape: Sequence[int], strides: Sequence[int], target: Sequence[int]) -> bool:
    """Whether a tensor can be seen in another shape without a copy, as ``at::detail::computeStride`` decides it.

    Dimensions that lie dense behind one another form chunks; the target may cut chunks, but not join them.

    >>> viewable((1, 8, 4), (32, 1, 8), (8, 4)), viewable((2, 8, 4), (32, 1, 8), (16, 4))
    (True, False)
    """
    chunks = _chunks(shape, strides)
    rest = [size for size in target if size != 1]
    for chunk in chunks:
        while chunk > 1 and rest and chunk % rest[-1] == 0:
            chunk //= rest.pop()
        if chunk != 1:
            return False
    return not rest


def _chunks(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Elements of each run of dimensions that lie dense behind one another, the last first."""
    chunks: list[int] = []
    expected = None
    for size, stride in reversed([(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]):
        if stride == expected:
            chunks[-1] *= size
        else:
            chunks.append(size)
        expected = size * stride
    return chunks
