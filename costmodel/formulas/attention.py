"""Attention: scaled dot products under all their names, and the fused modules made of them.

Conventions

* Two contractions: L * S * E MACs for the scores and L * S * E_v for their product with the values, per image and
  head. Their elements put out count as ``activations``, scores included.
* Vector work per row of S scores: S to scale, S to add a mask of numbers (a boolean or causal mask selects, which
  is no arithmetic), 5 S - 2 for the softmax (S - 1 comparisons, S differences, S exponentials, S - 1 additions,
  S divisions), and 2 S for dropout in training.
* Traffic is what no algorithm can avoid: queries, keys, values and mask read once, the output written once. That the
  scores pass through memory is a property of an algorithm (the unfused one), not of the operator.
* Causal attention is counted in full, as ``torch.utils.flop_counter`` does: :func:`causal_counted` switches to
  counting only the pairs of query and key that the mask lets through (half of them, nearly).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Literal

from costmodel.cost import Cost
from costmodel.formulas.contraction import activation_flops, linear
from costmodel.formulas.normalization import layer_norm
from costmodel.formulas.operands import Specs, fused_cost, halved, nbytes, spec_of
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, maximum, product
from costmodel.tensor import TensorSpec

__all__ = [
    "CausalConvention",
    "attention",
    "attention_with_bias",
    "causal_convention",
    "causal_counted",
    "counted_pairs",
    "efficient_attention",
    "flash_attention",
    "flex_attention",
    "multi_head_attention",
    "packed_sizes",
    "transform_bias_rescale_qkv",
    "transformer_encoder_layer",
]

CausalConvention = Literal["full", "half"]

#: How causal attention is counted: every pair of query and key, or only those that the mask lets through.
_CAUSAL: ContextVar[CausalConvention] = ContextVar("causal", default="full")


def causal_convention() -> CausalConvention:
    """The convention in force, "full" unless :func:`causal_counted` says otherwise.

    >>> causal_convention()
    'full'
    """
    return _CAUSAL.get()


@contextmanager
def causal_counted(convention: CausalConvention) -> Iterator[None]:
    """Count causal attention in "full" or in "half" within this block.

    >>> from costmodel.tensor import f32
    >>> q = f32(1, 1, 4, 8)
    >>> with causal_counted("half"):                                # 4*(4+1)/2 pairs, 8 + 8 MACs each
    ...     attention(q, q, q, is_causal=True, out=q).macs
    160
    """
    token = _CAUSAL.set(convention)
    try:
        yield
    finally:
        _CAUSAL.reset(token)


def counted_pairs(queries: Dim, keys: Dim, is_causal: bool) -> Dim:
    """Pairs of query and key that are counted; query i sees keys 0..i (the mask's corner is at the top left)."""
    if not is_causal or _CAUSAL.get() == "full":
        return queries * keys
    corner = queries + keys - maximum(queries, keys)
    return halved(corner * (corner + 1)) + (queries - corner) * keys


def _work(
    heads: Dim, queries: Dim, keys: Dim, width: Dim, value_width: Dim, vector_flops_per_score: int, is_causal: bool
) -> Cost:
    """FLOP and activations of ``heads`` (images times heads) attentions; no traffic."""
    scores = heads * counted_pairs(queries, keys, is_causal)
    return Cost(
        matrix_flops=2 * scores * (width + value_width),
        vector_flops=scores * vector_flops_per_score - 2 * heads * queries,
        launches=1,
        activations=scores + heads * queries * value_width,
    )


def _flops_per_score(mask: TensorSpec | None, dropout_p: float) -> int:
    """Scale 1, softmax 5 (less 2 a row), a mask of numbers 1, dropout a comparison and a product."""
    return 6 + (mask is not None and mask.dtype != "bool") + (2 if dropout_p else 0)


@formula(
    "aten.scaled_dot_product_attention",
    "aten._scaled_dot_product_attention_math",
    "aten._scaled_dot_product_attention_math_for_mps",
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
)
def attention(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    attn_mask: TensorSpec | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    head_width: Dim | None = None,
    *,
    out: Specs,
) -> Cost:
    """out[*, H, L, E_v] = softmax(query[*, H, L, E] @ key[*, H, S, E].T * scale + mask) @ value[*, H, S, E_v]

    Keys and values may have fewer heads than queries, which then share them (grouped-query attention): the work
    is the same, fewer bytes are read. (Vaswani et al. 2017, arXiv:1706.03762, equation 1.) ``head_width`` is that of
    heads whose operands a kernel's caller has padded with zeros: products with these are no work that the model asks.

    >>> from costmodel.tensor import f32
    >>> q, kv = f32(1, 4, 5, 8), f32(1, 2, 7, 8)
    >>> cost = attention(q, kv, kv, out=q)
    >>> cost.macs                                       # 4 heads, 5*7 scores, 8 + 8 MACs each
    2240
    >>> cost.vector_flops                               # 4 heads * 5 rows * (7 to scale + 5*7 - 2)
    800
    >>> cost.bytes_read                                 # 4 B * (4*5*8 + 2*2*7*8)
    1536
    """
    *heads, queries, value_width = spec_of(out).shape
    keys, width = key.shape[-2:]
    if head_width is not None:
        width = value_width = head_width
    per_score = _flops_per_score(attn_mask, dropout_p)
    work = _work(product(heads), queries, keys, width, value_width, per_score, is_causal)
    return replace(work, bytes_read=nbytes(query, key, value, attn_mask), bytes_written=nbytes(out))


@formula(
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_fused_attention_overrideable",
)
def attention_with_bias(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    attn_bias: TensorSpec | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    out: Specs,
) -> Cost:
    """:func:`attention` under the names whose mask is called ``attn_bias``.

    >>> from costmodel.tensor import f32
    >>> attention_with_bias(f32(1, 4, 5, 8), f32(1, 4, 7, 8), f32(1, 4, 7, 8), f32(5, 7), out=f32(1, 4, 5, 8)).macs
    2240
    """
    return attention(query, key, value, attn_bias, dropout_p, is_causal, out=out)


def packed_sizes(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    starts: TensorSpec | None,
    longest_query: Dim | None,
    longest_key: Dim | None,
) -> tuple[Dim, Dim, Dim, Dim, Dim]:
    """(images * heads, L, S, E, E_v) of tensors [N, L, H, E].

    Packed tensors ([1, sum of L, H, E] or [sum of L, H, E], ``starts`` saying where each sequence begins and the last
    ends) count every sequence at the longest length: an upper bound.
    """
    heads, width = query.shape[-2:]
    if starts is None or longest_query is None or longest_key is None:
        return query.shape[0] * heads, query.shape[-3], key.shape[-3], width, value.shape[-1]
    return (starts.shape[0] - 1) * heads, longest_query, longest_key, width, value.shape[-1]


@formula("aten._flash_attention_forward")
def flash_attention(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    cum_seq_q: TensorSpec | None = None,
    cum_seq_k: TensorSpec | None = None,
    max_q: Dim | None = None,
    max_k: Dim | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    out: Specs,
) -> Cost:
    """:func:`attention` of tensors laid out [N, L, H, E], or packed; of packed ones the count is an upper bound.

    >>> from costmodel.tensor import f32
    >>> flash_attention(f32(1, 5, 4, 8), f32(1, 7, 4, 8), f32(1, 7, 4, 8), out=f32(1, 5, 4, 8)).macs      # 4*5*7*(8+8)
    2240
    """
    sizes = packed_sizes(query, key, value, cum_seq_q, max_q, max_k)
    # Here the causal mask's corner is at the bottom right: only square ones are known to be halved.
    work = _work(*sizes, _flops_per_score(None, dropout_p), is_causal and sizes[1] == sizes[2])
    return replace(work, bytes_read=nbytes(query, key, value, cum_seq_q, cum_seq_k), bytes_written=nbytes(out))


@formula("aten._efficient_attention_forward")
def efficient_attention(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    bias: TensorSpec | None = None,
    cu_seqlens_q: TensorSpec | None = None,
    cu_seqlens_k: TensorSpec | None = None,
    max_seqlen_q: Dim | None = None,
    max_seqlen_k: Dim | None = None,
    dropout_p: float = 0.0,
    custom_mask_type: int = 0,
    *,
    out: Specs,
) -> Cost:
    """:func:`flash_attention` with a bias; ``custom_mask_type`` other than 0 is causal.

    >>> from costmodel.tensor import f32
    >>> efficient_attention(f32(1, 5, 4, 8), f32(1, 7, 4, 8), f32(1, 7, 4, 8), out=f32(1, 5, 4, 8)).macs  # 4*5*7*(8+8)
    2240
    """
    sizes = packed_sizes(query, key, value, cu_seqlens_q, max_seqlen_q, max_seqlen_k)
    work = _work(*sizes, _flops_per_score(bias, dropout_p), custom_mask_type != 0 and sizes[1] == sizes[2])
    read = nbytes(query, key, value, bias, cu_seqlens_q, cu_seqlens_k)
    return replace(work, bytes_read=read, bytes_written=nbytes(out))


@formula("aten._transform_bias_rescale_qkv")
def transform_bias_rescale_qkv(qkv: TensorSpec, qkv_bias: TensorSpec, *, out: Specs) -> Cost:
    """qkv[N, L, 3 E] + qkv_bias[3 E], queries divided by sqrt(E / heads), cut into three [N, heads, L, E / heads].

    >>> from costmodel.tensor import f32
    >>> transform_bias_rescale_qkv(f32(2, 5, 24), f32(24), out=(f32(2, 2, 5, 4),) * 3).vector_flops   # 240 + 240/3
    320
    """
    vector_flops = qkv.numel + product(qkv.shape[:-1]) * spec_of(out).shape[1] * spec_of(out).shape[3]
    return Cost(vector_flops=vector_flops, bytes_read=nbytes(qkv, qkv_bias), bytes_written=nbytes(out), launches=1)


def _projected_attention(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    width: int,
    heads: int,
    mask: TensorSpec | None,
) -> list[Cost]:
    """The parts of a multi-head attention: three projections with their biases, attention, a fourth projection."""
    weight, bias = TensorSpec((width, width), query.dtype), TensorSpec((width,), query.dtype)

    def projected(tokens: TensorSpec) -> Cost:
        return linear(tokens, weight, bias, out=TensorSpec((*tokens.shape[:-1], width), tokens.dtype))

    images, queries = query.shape[0], query.shape[1]
    head_width = width // heads
    per_score = _flops_per_score(mask, 0.0)
    core = _work(images * heads, queries, key.shape[1], head_width, head_width, per_score, False)
    return [projected(query), projected(key), projected(value), core, projected(query)]


@formula("aten._native_multi_head_attention")
def multi_head_attention(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    embed_dim: int,
    num_head: int,
    qkv_weight: TensorSpec,
    qkv_bias: TensorSpec,
    proj_weight: TensorSpec,
    proj_bias: TensorSpec,
    mask: TensorSpec | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    *,
    out: Specs,
) -> Cost:
    """The fast path of ``nn.MultiheadAttention``: four linear layers of width E around an :func:`attention`.

    Weights that are asked for are averaged over the heads: a FLOP per score.

    >>> from costmodel.tensor import f32
    >>> x = f32(1, 5, 8)
    >>> weights = f32(24, 8), f32(24), f32(8, 8), f32(8)
    >>> multi_head_attention(x, x, x, 8, 2, *weights, need_weights=False, out=(x, None)).macs   # 4*5*8*8 + 2*5*5*(4+4)
    1680
    """
    parts = _projected_attention(query, key, value, embed_dim, num_head, mask)
    if need_weights and average_attn_weights:
        parts.append(Cost(vector_flops=query.shape[0] * num_head * query.shape[1] * key.shape[1], launches=1))
    operands = (query, key, value, qkv_weight, qkv_bias, proj_weight, proj_bias, mask)
    return fused_cost(parts, *operands, out=out)


@formula("aten._transformer_encoder_layer_fwd")
def transformer_encoder_layer(
    src: TensorSpec,
    embed_dim: int,
    num_heads: int,
    qkv_weight: TensorSpec,
    qkv_bias: TensorSpec,
    proj_weight: TensorSpec,
    proj_bias: TensorSpec,
    use_gelu: bool,
    norm_weight_1: TensorSpec,
    norm_bias_1: TensorSpec,
    norm_weight_2: TensorSpec,
    norm_bias_2: TensorSpec,
    ffn_weight_1: TensorSpec,
    ffn_bias_1: TensorSpec,
    ffn_weight_2: TensorSpec,
    ffn_bias_2: TensorSpec,
    mask: TensorSpec | None = None,
    *,
    out: TensorSpec,
) -> Cost:
    """The fast path of ``nn.TransformerEncoderLayer``: attention and two linear layers, with norms and shortcuts.

    >>> from costmodel.tensor import f32
    >>> x, d = f32(1, 5, 8), f32(8)
    >>> attention_weights, norms = (f32(24, 8), f32(24), f32(8, 8), d), (d, d, d, d)
    >>> ffn = (f32(32, 8), f32(32), f32(8, 32), d)
    >>> transformer_encoder_layer(x, 8, 2, *attention_weights, False, *norms, *ffn, out=x).macs     # 1680 + 2*5*8*32
    4240
    """
    hidden = TensorSpec((*src.shape[:-1], ffn_weight_1.shape[0]), src.dtype)
    norm = layer_norm(src, [embed_dim], norm_weight_1, norm_bias_1, out=out)
    shortcut = Cost(vector_flops=src.numel, launches=1)
    parts = [
        *_projected_attention(src, src, src, embed_dim, num_heads, mask),
        linear(src, ffn_weight_1, ffn_bias_1, out=hidden),
        Cost(vector_flops=activation_flops(hidden, "gelu" if use_gelu else "relu"), launches=1),
        linear(hidden, ffn_weight_2, ffn_bias_2, out=out),
        *(norm, shortcut, norm, shortcut),
    ]
    weights: Sequence[TensorSpec] = (
        qkv_weight, qkv_bias, proj_weight, proj_bias, norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2,
        ffn_weight_1, ffn_bias_1, ffn_weight_2, ffn_bias_2,
    )  # fmt: skip
    return fused_cost(parts, src, weights, mask, out=out)


@formula("higher_order.flex_attention")
def flex_attention(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    pairs: Dim | None = None,
    mask_heads: Dim = 1,
    score_flops: int = 0,
    *,
    out: Specs,
) -> Cost:
    """:func:`attention` over the blocks that a block mask lets through, with ``score_flops`` more for each score.

    ``pairs`` are the pairs of query and key in those blocks, summed over the ``mask_heads`` images and heads that the
    mask tells apart; None: all. Whatever lies in a visited block is counted, as it is computed.
    (Dong et al. 2024, arXiv:2412.05496.)

    >>> from costmodel.tensor import f32
    >>> q = f32(2, 4, 8, 16)
    >>> flex_attention(q, q, q, out=q).macs                                         # 2*4 heads, 8*8 pairs, 16 + 16 MACs
    16384
    >>> flex_attention(q, q, q, 48, 1, out=q).macs                                  # 48 of the 64 pairs
    12288
    """
    *heads, queries, value_width = spec_of(out).shape
    rows = product(heads)
    scores = rows * queries * key.shape[-2] if pairs is None else floor_div(rows, mask_heads) * pairs
    return Cost(
        matrix_flops=2 * scores * (key.shape[-1] + value_width),
        vector_flops=scores * (_flops_per_score(None, 0.0) + score_flops) - 2 * rows * queries,
        bytes_read=nbytes(query, key, value),
        bytes_written=nbytes(out),
        launches=1,
        activations=scores + rows * queries * value_width,
    )
