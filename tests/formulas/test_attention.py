"""Attention against counting loops, torch's counter, laws, and the parts of the fused modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from costmodel.cost import Cost
from costmodel.formulas import pointwise, reduction  # noqa: F401 - GELU and softmax, parts of what is fused here
from costmodel.formulas.attention import attention, causal_convention, causal_counted, flex_attention
from costmodel.formulas.contraction import linear, mm
from costmodel.formulas.normalization import layer_norm
from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from .counting import Counted, Tally, array, counting, exp, max_, total, values
from .differential import check_symbolic, flops_by_torch, meta, ran


def attention_by_loops(q: Any, k: Any, v: Any, mask: Any, seen: Any) -> tuple[Any, Any, Any]:
    """[H, L, E] x [H, S, E] x [H, S, E_v]; query i attends to the keys in ``seen(i)``. With both tallies."""
    heads, queries, width = q.shape
    out = np.empty((heads, queries, v.shape[2]), dtype=object)
    matrix, vector = Tally(), Tally()
    for h, i in np.ndindex(heads, queries):
        keys = seen(i)
        with counting() as dots:
            scores = []
            for j in keys:
                dot = Counted(0.0)
                for e in range(width):
                    dot = dot + q[h, i, e] * k[h, j, e]
                scores.append(dot)
        with counting() as softmax:
            scores = [s * width**-0.5 for s in scores]
            if mask is not None:
                scores = [s + mask[i, j] for s, j in zip(scores, keys, strict=True)]
            top = scores[0]
            for s in scores[1:]:
                top = max_(top, s)
            powers = [exp(s - top) for s in scores]
            below = total(powers)
            shares = [p / below for p in powers]
        with counting() as sums:
            for e in range(v.shape[2]):
                value = Counted(0.0)
                for share, j in zip(shares, keys, strict=True):
                    value = value + share * v[h, j, e]
                out[h, i, e] = value
        matrix.update(dots)
        matrix.update(sums)
        vector.update(softmax)
    return out, matrix, vector


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "width", "value_width"), [(2, 3, 4, 5, 6), (1, 1, 7, 2, 2), (3, 4, 4, 3, 3)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_counts_what_loops_count(heads, queries, keys, width, value_width, masked):
    q, k, v = array(heads, queries, width), array(heads, keys, width, seed=1), array(heads, keys, value_width, seed=2)
    mask = array(queries, keys, seed=3) if masked else None
    out, matrix, vector = attention_by_loops(q, k, v, mask, lambda i: range(keys))
    tensors = [None if a is None else torch.tensor(values(a).astype(float)) for a in (q, k, v, mask)]
    assert np.allclose(values(out).astype(float), scaled_dot_product_attention(*tensors).numpy())
    operands = f32(*q.shape), f32(*k.shape), f32(*v.shape), f32(queries, keys) if masked else None
    cost = attention(*operands, out=f32(*out.shape))
    assert cost.matrix_flops == matrix.flops
    assert cost.vector_flops == vector.flops
    assert cost.bytes_read == sum(o.nbytes for o in operands if o)


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (1, 5), (3, 5), (5, 3)])
def test_causal_half_counts_what_the_mask_lets_through(queries, keys):
    q, k, v = array(2, queries, 3), array(2, keys, 3, seed=1), array(2, keys, 3, seed=2)
    out, matrix, vector = attention_by_loops(q, k, v, None, lambda i: range(min(i + 1, keys)))
    tensors = [torch.tensor(values(a).astype(float)) for a in (q, k, v)]
    assert np.allclose(values(out).astype(float), scaled_dot_product_attention(*tensors, is_causal=True).numpy())
    operands = f32(*q.shape), f32(*k.shape), f32(*v.shape)
    with causal_counted("half"):
        half = attention(*operands, is_causal=True, out=f32(*out.shape))
        assert attention(*operands, out=f32(*out.shape)).macs == 2 * queries * keys * 6  # not causal: all pairs
    assert (half.matrix_flops, half.vector_flops) == (matrix.flops, vector.flops)
    full = attention(*operands, is_causal=True, out=f32(*out.shape))
    assert causal_convention() == "full"
    assert full == attention(*operands, out=f32(*out.shape))


def test_flex_attention_counts_the_pairs_of_its_blocks():
    """Query i meets keys 0..3 in its first block of four, all eight in the second."""
    q, k, v = array(2, 8, 3), array(2, 8, 3, seed=1), array(2, 8, 5, seed=2)
    out, matrix, vector = attention_by_loops(q, k, v, None, lambda i: range(4 if i < 4 else 8))
    operands = f32(1, *q.shape), f32(1, *k.shape), f32(1, *v.shape)
    cost = flex_attention(*operands, pairs=4 * 4 + 4 * 8, mask_heads=1, out=f32(1, *out.shape))
    assert (cost.matrix_flops, cost.vector_flops) == (matrix.flops, vector.flops)
    assert flex_attention(*operands, out=f32(1, *out.shape)) == attention(*operands, out=f32(1, *out.shape))


GRID = [
    # query, key, value, enable_gqa
    ((2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 5, 8), False),
    ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6), False),
    ((1, 8, 16, 4), (1, 2, 16, 4), (1, 2, 16, 4), True),
    ((2, 4, 1, 8), (2, 1, 9, 8), (2, 1, 9, 8), True),
    ((3, 5, 8), (3, 7, 8), (3, 7, 8), False),
]


@pytest.mark.parametrize(("q", "k", "v", "gqa"), GRID)
@pytest.mark.parametrize("is_causal", [False, True])
def test_as_torch_counts(q, k, v, gqa, is_causal):
    cost, flops = ran("scaled_dot_product_attention", meta(*q), meta(*k), meta(*v), is_causal=is_causal, enable_gqa=gqa)
    assert cost.matrix_flops == flops > 0
    assert cost.bytes_read == 4 * sum(int(np.prod(s)) for s in (q, k, v))


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("_scaled_dot_product_flash_attention", ()),
        ("_scaled_dot_product_efficient_attention", (None, True)),
        ("_scaled_dot_product_cudnn_attention", (None, True)),
        ("_scaled_dot_product_flash_attention_for_cpu", ()),
        ("_scaled_dot_product_attention_math", ()),
    ],
)
def test_one_work_under_all_its_names(name, extra):
    """Whatever torch calls it, the FLOP are those of the operator; only what is written besides differs."""
    shapes = (2, 4, 16, 8), (2, 4, 24, 8), (2, 4, 24, 8)
    whole, _ = ran("scaled_dot_product_attention", *(meta(*s) for s in shapes))
    cost, flops = ran(name, *(meta(*s, dtype=torch.float16) for s in shapes), *extra)
    assert (cost.matrix_flops, cost.vector_flops) == (whole.matrix_flops, whole.vector_flops)
    assert flops in (cost.matrix_flops, 0)  # torch has no counter for the CPU kernel
    assert (flops == 0) == name.endswith("for_cpu")
    assert cost.bytes_read * 2 == whole.bytes_read
    assert cost.bytes_written * 2 >= whole.bytes_written


def test_flash_and_efficient_layouts():
    """[N, L, H, E] in place of [N, H, L, E]: the same work; packed sequences of equal length too."""
    out = f32(2, 16, 4, 8)
    q, kv = f32(2, 16, 4, 8), f32(2, 16, 4, 8)
    whole = attention(f32(2, 4, 16, 8), f32(2, 4, 16, 8), f32(2, 4, 16, 8), out=f32(2, 4, 16, 8))
    dense = cost_of("aten._flash_attention_forward", {"query": q, "key": kv, "value": kv}, out)
    assert dense == whole
    assert cost_of("aten._efficient_attention_forward", {"query": q, "key": kv, "value": kv}, out) == whole
    starts, packed = TensorSpec((3,), "int32"), f32(32, 4, 8)
    ends = {"cum_seq_q": starts, "cum_seq_k": starts, "max_q": 16, "max_k": 16}
    arguments = {"query": packed, "key": packed, "value": packed, **ends}
    assert cost_of("aten._flash_attention_forward", arguments, packed) == whole + Cost(bytes_read=2 * 3 * 4)
    with causal_counted("half"):
        arguments = {"query": q, "key": kv, "value": kv, "custom_mask_type": 1}
        halved = cost_of("aten._efficient_attention_forward", arguments, out)
    assert halved.macs == 2 * 4 * (16 * 17 // 2) * (8 + 8)


def test_masks_and_dropout():
    q = f32(1, 2, 4, 8)
    plain = attention(q, q, q, out=q)
    scores = 2 * 4 * 4
    assert attention(q, q, q, f32(4, 4), out=q) == plain + Cost(vector_flops=scores, bytes_read=64)
    assert attention(q, q, q, TensorSpec((4, 4), "bool"), out=q) == plain + Cost(bytes_read=16)  # a selection
    assert attention(q, q, q, dropout_p=0.1, out=q) == plain + Cost(vector_flops=2 * scores)


def test_it_is_two_batched_products_and_a_softmax():
    n, h, q_len, k_len, e = 2, 3, 5, 7, 8
    q, kv, scores = f32(n, h, q_len, e), f32(n, h, k_len, e), f32(n, h, q_len, k_len)
    first = mm(f32(n * h, q_len, e), f32(n * h, e, k_len), out=f32(n * h, q_len, k_len))
    second = mm(f32(n * h, q_len, k_len), f32(n * h, k_len, e), out=f32(n * h, q_len, e))
    softmax = cost_of("aten._softmax", {"input": scores, "dim": -1, "half_to_float": False}, scores)
    scaled = cost_of("aten.mul", {"input": scores, "other": 0.125}, scores)
    whole = attention(q, kv, kv, out=q)
    assert whole.matrix_flops == (first + second).matrix_flops
    assert whole.activations == (first + second).activations
    assert whole.vector_flops == softmax.vector_flops + scaled.vector_flops


def test_grouped_queries_do_the_same_work_on_fewer_bytes():
    q = f32(2, 8, 16, 4)
    full, grouped = (attention(q, f32(2, h, 16, 4), f32(2, h, 16, 4), out=q) for h in (8, 2))
    assert grouped.flops == full.flops
    assert full.bytes_read - grouped.bytes_read == 4 * 2 * (2 * (8 - 2) * 16 * 4)


def test_vit_base_as_published():
    """ViT-B/16 at 224: 17.564 GMAC (torchvision's ViT_B_16_Weights), 23.9 M activations (timm's card of DeiT-B).

    Twelve blocks of four linear layers and attention, 197 tokens of width 768 in 12 heads; 196 patches of 16x16x3 = 768
    inputs each; a head of 1000 classes on one token.
    """
    tokens, width = f32(1, 197, 768), 768
    heads, hidden = f32(1, 12, 197, 64), f32(1, 197, 4 * width)
    block = [
        linear(tokens, f32(3 * width, width), out=f32(1, 197, 3 * width)),
        attention(heads, heads, heads, out=heads),
        linear(tokens, f32(width, width), out=tokens),
        linear(tokens, f32(4 * width, width), out=hidden),
        linear(hidden, f32(width, 4 * width), out=tokens),
    ]
    patches = linear(f32(196, 768), f32(width, 768), out=f32(196, width))
    classifier = linear(f32(1, width), f32(1000, width), out=f32(1, 1000))
    model = [*block * 12, patches, classifier]
    assert round(sum(c.macs for c in model) / 1e9, 3) == 17.564
    assert round(sum(c.activations for c in model) / 1e6, 1) == 23.9


# fused modules


def fast_path_arguments(embed: int, hidden: int | None = None) -> dict[str, TensorSpec]:
    shapes: dict[str, tuple[int, ...]] = {"qkv_weight": (3 * embed, embed), "qkv_bias": (3 * embed,)}
    shapes |= {"proj_weight": (embed, embed), "proj_bias": (embed,)}
    if hidden:
        shapes |= {f"norm_{kind}_{i}": (embed,) for kind in ("weight", "bias") for i in (1, 2)}
        shapes |= {"ffn_weight_1": (hidden, embed), "ffn_bias_1": (hidden,)}
        shapes |= {"ffn_weight_2": (embed, hidden), "ffn_bias_2": (embed,)}
    return {name: f32(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("need_weights", [False, True])
def test_multi_head_attention_is_its_parts(need_weights):
    n, tokens, embed, heads = 2, 5, 12, 3
    x, h = f32(n, tokens, embed), f32(n, heads, tokens, embed // heads)
    qkv = linear(x, f32(3 * embed, embed), f32(3 * embed), out=f32(n, tokens, 3 * embed))
    parts = [qkv, attention(h, h, h, out=h), linear(x, f32(embed, embed), f32(embed), out=x)]
    weights = f32(n, tokens, tokens) if need_weights else None
    inputs = {"query": x, "key": x, "value": x, "embed_dim": embed, "num_head": heads}
    arguments = {**inputs, **fast_path_arguments(embed), "need_weights": need_weights}
    whole = cost_of("aten._native_multi_head_attention", arguments, (x, weights))
    assert whole.matrix_flops == sum(p.matrix_flops for p in parts)
    averaging = n * tokens * tokens * heads if need_weights else 0  # heads - 1 additions and a division per score
    assert whole.vector_flops == sum(p.vector_flops for p in parts) + averaging
    assert whole.activations == sum(p.activations for p in parts)
    assert whole.bytes_written == x.nbytes + (weights.nbytes if weights else 0)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 7)])
def test_multi_head_attention_as_torch_counts(queries, keys, need_weights):
    """The module as torch runs it on meta: the slow path, in the parts that its counter knows."""
    module = torch.nn.MultiheadAttention(12, 3, batch_first=True, device="meta").train()
    q, k = meta(2, queries, 12), meta(2, keys, 12)
    x, y = f32(2, queries, 12), f32(2, keys, 12)
    arguments = {"query": x, "key": y, "value": y, "embed_dim": 12, "num_head": 3, **fast_path_arguments(12)}
    whole = cost_of("aten._native_multi_head_attention", {**arguments, "need_weights": need_weights}, (x, None))
    assert whole.matrix_flops == flops_by_torch(module, q, k, k, need_weights=need_weights)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_as_torch_counts_and_as_its_parts(activation):
    n, tokens, embed, heads, hidden = 2, 5, 12, 3, 20
    options = {"activation": activation, "batch_first": True, "device": "meta"}
    module = torch.nn.TransformerEncoderLayer(embed, heads, hidden, **options)
    x, inner = f32(n, tokens, embed), f32(n, tokens, hidden)
    settings = {"embed_dim": embed, "num_heads": heads, "use_gelu": activation == "gelu"}
    arguments = {"src": x, **settings, **fast_path_arguments(embed, hidden)}
    whole = cost_of("aten._transformer_encoder_layer_fwd", arguments, x)
    assert whole.matrix_flops == flops_by_torch(module.train(), meta(n, tokens, embed))
    settings = {"embed_dim": embed, "num_head": heads, "need_weights": False}
    mha = {"query": x, "key": x, "value": x, **settings, **fast_path_arguments(embed)}
    parts = [
        cost_of("aten._native_multi_head_attention", mha, (x, None)),
        *[layer_norm(x, [embed], f32(embed), f32(embed), out=x)] * 2,
        *[cost_of("aten.add", {"input": x, "other": x}, x)] * 2,
        linear(x, f32(hidden, embed), f32(hidden), out=inner),
        cost_of(f"aten.{activation}", {"input": inner}, inner),
        linear(inner, f32(embed, hidden), f32(embed), out=x),
    ]
    assert whole.vector_flops == sum(p.vector_flops for p in parts)
    parameters = sum(p.numel() for p in module.parameters())
    assert whole.bytes_read == 4 * (parameters + n * tokens * embed)


def test_transform_bias_rescale_qkv_counts_its_bias_and_its_scale():
    n, tokens, embed, heads = 2, 5, 12, 3
    out = (f32(n, heads, tokens, embed // heads),) * 3
    qkv = f32(n, tokens, 3 * embed)
    cost = cost_of("aten._transform_bias_rescale_qkv", {"qkv": qkv, "qkv_bias": f32(3 * embed)}, out)
    biased = cost_of("aten.add", {"input": qkv, "other": f32(3 * embed)}, qkv)
    assert cost.vector_flops == biased.vector_flops + n * tokens * embed
    assert cost.bytes == biased.bytes


def test_symbolic_sizes():
    sizes = (1, 2, 7, 197)

    def square(n):
        q = f32(n, 4, n, 8)
        return {"query": q, "key": q, "value": q, "is_causal": True}, q

    def oblong(n):
        q, kv = f32(2, 4, n, 8), f32(2, 4, 64, 8)
        return {"query": q, "key": kv, "value": kv, "is_causal": True}, q

    for convention in ("full", "half"):
        with causal_counted(convention):
            check_symbolic("aten.scaled_dot_product_attention", square, sizes)
            check_symbolic("aten.scaled_dot_product_attention", oblong, sizes)

    def module(n):
        x = f32(n, n, 12)
        arguments = {"query": x, "key": x, "value": x, "embed_dim": 12, "num_head": 3, **fast_path_arguments(12)}
        return arguments, (x, f32(n, n, n))

    check_symbolic("aten._native_multi_head_attention", module, sizes)
