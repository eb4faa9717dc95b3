"""The backward of attention under all its names: four products where the forward has two.

With P = softmax(Q K^T * scale) and the gradient dO of the output O = P V:

    dV = P^T dO        L * S * E_v MACs a head        dP = dO V^T        L * S * E_v
    dQ = dS K          L * S * E                      dK = dS^T Q        L * S * E

where dS = P * (dP - rowsum(dP * P)) * scale. These four are what the model asks, and what autograd runs where attention
is made of matrix products, as on the meta device (``torch.utils.flop_counter`` counts them there). Flash and
memory-efficient kernels do not keep P and compute Q K^T a second time (Dao et al. 2022, arXiv:2205.14135, algorithm 4;
the same counter gives them five products): that is work that an algorithm executes, which kernels know; the operator's
FLOP are those of the four.

Vector work per row of S scores: 4 S - 1 for the softmax's backward, S to scale, and S for dropout where there was any.
The output and log-sum-exp of the forward are read again, queries, keys, values and mask as well. Causal attention
follows :func:`~costmodel.formulas.attention.causal_counted`.
"""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.cost import Cost
from costmodel.formulas.attention import counted_pairs, packed_sizes
from costmodel.formulas.operands import Specs, nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, product
from costmodel.tensor import TensorSpec

__all__ = [
    "attention_backward",
    "cudnn_attention_backward",
    "efficient_attention_backward",
    "flash_attention_backward",
    "masked_attention_backward",
]


def _cost(
    sizes: tuple[Dim, Dim, Dim, Dim, Dim],
    is_causal: bool,
    dropout_p: float,
    grad_out: TensorSpec,
    operands: Sequence[TensorSpec],
    others: Specs,
    out: Specs,
) -> Cost:
    """Of ``sizes`` (images * heads, L, S, E, E_v) and ``operands`` Q, K, V; the saved output is as large as dO."""
    heads, queries, keys, width, value_width = sizes
    scores = heads * counted_pairs(queries, keys, is_causal)
    saved_output = TensorSpec(grad_out.shape, operands[0].dtype)
    return Cost(
        matrix_flops=4 * scores * (width + value_width),
        vector_flops=scores * (6 if dropout_p else 5) - heads * queries,
        bytes_read=nbytes(grad_out, operands, saved_output, others),
        bytes_written=nbytes(out),
        launches=1,
        activations=scores + sum(operand.numel for operand in operands),
    )


def _sizes(grad_out: TensorSpec, key: TensorSpec) -> tuple[Dim, Dim, Dim, Dim, Dim]:
    """(images * heads, L, S, E, E_v) where heads stand before the sequence, [*, H, L, E]."""
    *heads, queries, value_width = grad_out.shape
    keys, width = key.shape[-2:]
    return product(heads), queries, keys, width, value_width


@formula(
    "aten._scaled_dot_product_flash_attention_backward",
    "aten._scaled_dot_product_flash_attention_for_cpu_backward",
)
def attention_backward(
    grad_out: TensorSpec,
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    logsumexp: TensorSpec,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    attn_mask: TensorSpec | None = None,
    head_width: Dim | None = None,
    *,
    out: Specs,
) -> Cost:
    """(dQ, dK, dV) of :func:`~costmodel.formulas.attention.attention`, whose MACs these are twice.

    Keys and values with fewer heads than queries sum their gradients over the heads that share them, in the product.
    ``head_width`` as there: of heads that were padded.

    >>> from costmodel.tensor import f32
    >>> q, kv = f32(1, 4, 5, 8), f32(1, 2, 7, 8)
    >>> cost = attention_backward(q, q, kv, kv, f32(1, 4, 5), out=(q, kv, kv))
    >>> cost.macs                                       # 4 heads, 5*7 scores, 2 * (8 + 8) MACs each
    4480
    >>> cost.vector_flops                               # 4 heads * 5 rows * (4*7 - 1 for the softmax, 7 to scale)
    680
    >>> cost.bytes_read                                 # 4 B * (dO, Q, O: 3*4*5*8; K, V: 2*2*7*8; log-sum-exp: 4*5)
    2896
    """
    saved = (logsumexp, attn_mask)
    heads, queries, keys, width, value_width = _sizes(grad_out, key)
    if head_width is not None:
        width = value_width = head_width
    sizes = heads, queries, keys, width, value_width
    return _cost(sizes, is_causal, dropout_p, grad_out, (query, key, value), saved, out)


@formula(
    "aten._scaled_dot_product_cudnn_attention_backward",
    "aten._scaled_dot_product_fused_attention_overrideable_backward",
)
def cudnn_attention_backward(
    grad_out: TensorSpec,
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    logsumexp: TensorSpec,
    attn_bias: TensorSpec | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    out: Specs,
) -> Cost:
    """:func:`attention_backward` under the names whose mask is called ``attn_bias``.

    >>> from costmodel.tensor import f32
    >>> q = f32(1, 4, 5, 8)
    >>> cudnn_attention_backward(q, q, q, q, f32(1, 4, 5), f32(5, 5), out=(q, q, q)).macs      # 4*5*5 * 2*(8+8)
    3200
    """
    saved = (logsumexp, attn_bias)
    return _cost(_sizes(grad_out, key), is_causal, dropout_p, grad_out, (query, key, value), saved, out)


@formula("aten._scaled_dot_product_efficient_attention_backward")
def masked_attention_backward(
    grad_out_: TensorSpec,
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    attn_bias: TensorSpec | None,
    logsumexp: TensorSpec,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    out: Specs,
) -> Cost:
    """:func:`attention_backward` with a mask, whose gradient, where asked for, is dS itself: only written.

    >>> from costmodel.tensor import f32
    >>> q, mask = f32(1, 4, 5, 8), f32(1, 4, 5, 5)
    >>> plain = masked_attention_backward(q, q, q, q, mask, f32(1, 4, 5), out=(q, q, q))
    >>> learnt = masked_attention_backward(q, q, q, q, mask, f32(1, 4, 5), out=(q, q, q, mask))
    >>> plain.flops == learnt.flops, learnt.bytes_written - plain.bytes_written           # 4*5*5 floats of 4 B
    (True, 400)
    """
    saved = (logsumexp, attn_bias)
    return _cost(_sizes(grad_out_, key), is_causal, dropout_p, grad_out_, (query, key, value), saved, out)


@formula("aten._flash_attention_backward")
def flash_attention_backward(
    grad_out: TensorSpec,
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    logsumexp: TensorSpec,
    cum_seq_q: TensorSpec | None = None,
    cum_seq_k: TensorSpec | None = None,
    max_q: Dim | None = None,
    max_k: Dim | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    out: Specs,
) -> Cost:
    """:func:`attention_backward` of tensors [N, L, H, E], or packed; of packed ones the count is an upper bound.

    >>> from costmodel.tensor import f32
    >>> q = f32(1, 5, 4, 8)
    >>> flash_attention_backward(q, q, q, q, f32(1, 4, 5), out=(q, q, q)).macs              # 4*5*5 * 2*(8+8)
    3200
    """
    sizes = packed_sizes(query, key, value, cum_seq_q, max_q, max_k)
    # Here the causal mask's corner is at the bottom right: only square ones are known to be halved.
    halves = is_causal and sizes[1] == sizes[2]
    saved = (logsumexp, cum_seq_q, cum_seq_k)
    return _cost(sizes, halves, dropout_p, grad_out, (query, key, value), saved, out)


@formula("aten._efficient_attention_backward")
def efficient_attention_backward(
    grad_out_: TensorSpec,
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    bias: TensorSpec | None,
    cu_seqlens_q: TensorSpec | None = None,
    cu_seqlens_k: TensorSpec | None = None,
    max_seqlen_q: Dim | None = None,
    max_seqlen_k: Dim | None = None,
    logsumexp: TensorSpec | None = None,
    dropout_p: float = 0.0,
    custom_mask_type: int = 0,
    *,
    out: Specs,
) -> Cost:
    """:func:`flash_attention_backward` with a bias; ``custom_mask_type`` other than 0 is causal.

    >>> from costmodel.tensor import f32
    >>> q = f32(1, 5, 4, 8)
    >>> efficient_attention_backward(q, q, q, q, None, out=(q, q, q)).macs                  # 4*5*5 * 2*(8+8)
    3200
    """
    sizes = packed_sizes(query, key, value, cu_seqlens_q, max_seqlen_q, max_seqlen_k)
    halves = custom_mask_type != 0 and sizes[1] == sizes[2]
    saved = (bias, cu_seqlens_q, cu_seqlens_k, logsumexp)
    return _cost(sizes, halves, dropout_p, grad_out_, (query, key, value), saved, out)
