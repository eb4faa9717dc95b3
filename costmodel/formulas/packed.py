"""What libraries run that serve language models: packed weights, projections in one product, caches in place.

Conventions: weights may be stored in fewer bits than they are multiplied in. A MAC is a MAC in whatever format.
Widening a weight is a product with its scale, and a difference where it has a zero point, once for each element in a
call; where activations are narrowed instead, a comparison and a product for each of them and a product for each result.
Bytes are those of what is stored: weights, scales, zero points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.experts import expected_experts
from costmodel.formulas.operands import nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, product
from costmodel.tensor import TensorSpec

__all__ = ["cache_write", "latent_attention", "merged_linear", "packed_grouped_product", "packed_linear"]


def _work(macs: Any, rows: Dim, inner: Dim, columns: Dim, widened: Any, narrows: bool, zeros: Any) -> Cost:
    vector = 2 * rows * inner + rows * columns if narrows else widened * (1 if zeros is None else 2)
    return Cost(matrix_flops=2 * macs, vector_flops=vector, launches=1, activations=rows * columns)


@formula("costmodel.packed_linear", "costmodel.exllama_linear", "costmodel.autogptq_linear", "costmodel.autoawq_linear")
def packed_linear(
    input: TensorSpec,
    weight: TensorSpec,
    scales: TensorSpec,
    zeros: TensorSpec | None = None,
    bias: TensorSpec | None = None,
    narrows: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """out[*, N] = input[*, K] @ widened(weight)[N, K].T + bias[N]; ``narrows``: both are multiplied in 8 bits.

    >>> from costmodel.tensor import f32
    >>> cost = packed_linear(f32(4, 64), TensorSpec((8 * 32,), "uint8"), f32(8), out=f32(4, 8))   # 4 bits each
    >>> cost.macs, cost.vector_flops                                    # 4*64*8; 8*64 weights widened
    (2048, 512)
    >>> cost.bytes_read                                                 # 4 B * (4*64 + 8) + 8*32 B
    1312
    """
    inner, columns = input.shape[-1], out.shape[-1]
    rows = floor_div(out.numel, columns)  # type: ignore[arg-type]
    work = _work(rows * inner * columns, rows, inner, columns, inner * columns, narrows, zeros)
    more = Cost(vector_flops=0 if bias is None else out.numel)
    read = nbytes(input, weight, scales, zeros, bias)
    return work + more + Cost(bytes_read=read, bytes_written=out.nbytes)


@formula("costmodel.packed_grouped_mm")
def packed_grouped_product(
    input: TensorSpec,
    weight: TensorSpec,
    scales: TensorSpec,
    offs: TensorSpec,
    chosen: int,
    experts: int,
    zeros: TensorSpec | None = None,
    narrows: bool = False,
    *,
    out: TensorSpec,
) -> Cost:
    """The grouped product of experts (:func:`~costmodel.formulas.experts.grouped_product`) with packed weights.

    >>> from costmodel.tensor import f32
    >>> weight, ends = TensorSpec((8 * 5 * 6,), "uint8"), TensorSpec((8,), "int32")                # one B a weight
    >>> packed_grouped_product(f32(4, 5), weight, f32(8), ends, 2, 8, out=f32(4, 6)).bytes_read  # 4 experts are met
    248
    """
    inner, columns, rows = input.shape[-1], out.shape[-1], input.shape[0]
    met = expected_experts(experts, chosen, floor_div(rows, chosen))
    work = _work(rows * inner * columns, rows, inner, columns, met * inner * columns, narrows, zeros)
    per_expert = floor_div(nbytes(weight, scales, zeros), experts)
    return work + Cost(bytes_read=nbytes(input, offs) + met * per_expert, bytes_written=out.nbytes)


@formula("costmodel.merged_linear")
def merged_linear(
    input: TensorSpec,
    weight: Sequence[TensorSpec],
    scales: Sequence[TensorSpec] = (),
    zeros: Sequence[TensorSpec] = (),
    bias: Sequence[TensorSpec] = (),
    narrows: bool = False,
    *,
    out: Sequence[TensorSpec],
) -> Cost:
    """Linear layers of the same input in one product: the input is read once. Packed where there are ``scales``.

    >>> from costmodel.tensor import f32
    >>> cost = merged_linear(f32(4, 5), (f32(6, 5), f32(2, 5)), out=(f32(4, 6), f32(4, 2)))
    >>> cost.macs, cost.bytes_read, cost.launches                       # 4*5*(6+2); 4 B * (4*5 + 8*5)
    (160, 240, 1)
    """
    inner = input.shape[-1]
    columns: Any = sum(part.shape[-1] for part in out)
    rows = floor_div(out[0].numel, out[0].shape[-1])  # type: ignore[arg-type]
    widened = inner * columns if scales else 0
    work = _work(rows * inner * columns, rows, inner, columns, widened, narrows, zeros or None)
    biases: Any = sum(part.numel for one, part in zip(bias, out, strict=False) if one is not None)
    read = nbytes(input, *weight, *scales, *zeros, *bias)
    return work + Cost(vector_flops=biases, bytes_read=read, bytes_written=nbytes(*out))


@formula("costmodel.cache_write")
def cache_write(cache: TensorSpec, new: TensorSpec, *, out: TensorSpec) -> Cost:
    """Keys or values of new tokens [N, H, L, E] put behind those of a cache, which stay where they are.

    >>> from costmodel.tensor import f32
    >>> cache_write(f32(1, 2, 100, 8), f32(1, 2, 1, 8), out=f32(1, 2, 101, 8)).bytes_written         # 4 B * 2*8
    64
    """
    return Cost(bytes_read=new.nbytes, bytes_written=new.nbytes, launches=1)


@formula("costmodel.latent_attention")
def latent_attention(query: TensorSpec, latent: TensorSpec, rotary: TensorSpec, *, out: TensorSpec) -> Cost:
    """All heads [N, H, L, C + R] against a latent vector and a rotary part of each token [N, 1, S, C], [N, 1, S, R].

    out[N, H, L, C] = softmax(query @ (latent, rotary).T * scale) @ latent: keys that are values too are read once.
    Vector work as in :mod:`~costmodel.formulas.attention`. (DeepSeek-V2, arXiv:2405.04434, section 2.1.)

    >>> from costmodel.tensor import f32
    >>> cost = latent_attention(f32(1, 4, 1, 28), f32(1, 1, 7, 20), f32(1, 1, 7, 8), out=f32(1, 4, 1, 20))
    >>> cost.macs, cost.bytes_read                      # 4 heads * 7 keys * (28 + 20); 4 B * (4*28 + 7*28)
    (1344, 1232)
    """
    *rows, width = out.shape
    keys = latent.shape[-2]
    scores = product(rows) * keys
    return Cost(
        matrix_flops=2 * scores * (query.shape[-1] + width),
        vector_flops=6 * scores - 2 * product(rows),
        bytes_read=nbytes(query, latent, rotary),
        bytes_written=out.nbytes,
        launches=1,
        activations=scores + out.numel,
    )
