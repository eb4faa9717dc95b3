"""The backward of operators that move elements: what was taken out is put back, onto zeros.

A view of part of a tensor (``slice``, ``select``, ``diagonal``) gives back a tensor of zeros with the gradient in its
place: everything is written once, in two launches. What was fetched more than once (a row of an embedding, a pixel
reflected into a border) has its gradients added: 1 FLOP each, onto zeros, as in every scatter.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.elements import aten, cost
from costmodel.formulas.operands import nbytes
from costmodel.formulas.registry import formula
from costmodel.tensor import TensorSpec

__all__ = ["embedding_dense_backward", "part_backward"]


@formula(*aten("slice_backward select_backward diagonal_backward"))
def part_backward(grad_output: TensorSpec, *, out: TensorSpec) -> Cost:
    """Zeros as large as the operand was, and the gradient put where it came from.

    >>> from costmodel.tensor import f32
    >>> cost = part_backward(f32(2, 8), out=f32(2, 197, 8))              # the class token's: 196 of 197 rows are zeros
    >>> cost.bytes_read, cost.bytes_written, cost.flops, cost.launches
    (64, 12608, 0, 2)
    """
    return Cost(bytes_read=grad_output.nbytes, bytes_written=nbytes(out), launches=2)


@formula("aten.embedding_dense_backward")
def embedding_dense_backward(
    grad_output: TensorSpec, indices: TensorSpec, scale_grad_by_freq: bool = False, *, out: TensorSpec
) -> Cost:
    """out[indices[*], D] += grad_output[*, D], onto zeros: the whole table is written, whatever rows were used.

    ``scale_grad_by_freq`` counts the indices (1 FLOP each) and divides their rows.

    >>> from costmodel.tensor import f32
    >>> cost = embedding_dense_backward(f32(1, 128, 768), TensorSpec((1, 128), "int64"), out=f32(30522, 768))
    >>> cost.vector_flops == 128 * 768, cost.bytes_written == 30522 * 768 * 4
    (True, True)
    """
    by_frequency = indices.numel + grad_output.numel if scale_grad_by_freq else 0
    return cost(grad_output.numel + by_frequency, (grad_output, indices), out)


@formula("aten._embedding_bag_backward", "aten._embedding_bag_dense_backward")
def embedding_bag_backward(
    grad: TensorSpec,
    indices: TensorSpec,
    offset2bag: TensorSpec,
    bag_size: Any = None,
    maximum_indices: Any = None,
    mode: int = 0,
    per_sample_weights: Any = None,
    *,
    out: TensorSpec,
) -> Cost:
    """A bag's gradient is added to each of its rows; a mean (mode 1) divides it, a weight multiplies it, first.

    Of a maximum (mode 2) one row gets each element.
    """
    if mode == 2:
        return cost(grad.numel, (grad, maximum_indices), out)
    spread = indices.numel * grad.shape[-1]
    weighted = isinstance(per_sample_weights, TensorSpec)
    flops = spread * (1 + weighted) + (grad.numel if mode == 1 else 0)
    read = (grad, indices, offset2bag, per_sample_weights, bag_size if mode == 1 else None)
    return cost(flops, read, out)


@formula("aten._embedding_bag_per_sample_weights_backward")
def embedding_bag_weights_backward(
    grad: TensorSpec, weight: TensorSpec, indices: TensorSpec, offset2bag: TensorSpec, *, out: TensorSpec
) -> Cost:
    """The gradient of a sample's weight is the dot product of its row and its bag's gradient: 2 D - 1 FLOP."""
    width = grad.shape[-1]
    fetched = indices.numel * width * weight.itemsize
    return cost((2 * width - 1) * indices.numel, (grad, indices, offset2bag), out, read_also=fetched)


@formula(
    *aten(
        """
        reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
        replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward
        """
    )
)
def pad_backward(grad_output: TensorSpec, *, out: TensorSpec) -> Cost:
    """Adds every padded element to the one that it repeats: 1 FLOP each."""
    return cost(grad_output.numel, (grad_output,), out)
