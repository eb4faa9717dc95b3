"""Attention in eager PyTorch on a CUDA GPU: the fused kernels whose scores stay on chip, and the math path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from costmodel.devices.attention import AttentionKernels
from costmodel.kernels.algorithm import engine_for
from costmodel.kernels.contractions import contraction, gemm_ready
from costmodel.kernels.operator import Operator, copy_kernel, rule, visited_keys
from costmodel.kernels.plan import Kernel
from costmodel.kernels.precision import contraction_dtype
from costmodel.kernels.shapes import Attention, Product, Rows
from costmodel.symbols import product

__all__ = ["fused_attention", "in_library"]

#: Widest head that FlashAttention 2 is compiled for [elements].
_WIDEST_FLASH = 256


@rule("scaled_dot_product_attention")
def _attention(operator: Operator) -> Iterator[Kernel]:
    """Flash or memory-efficient attention for 4-d operands: scores stay on chip. Others take the math path.

    Flash attention takes half precision without a mask on generations that have it (NVIDIA's since Ampere), all else of
    four dimensions the memory-efficient kernel (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp).
    """
    query, key = (operator.arguments[name] for name in ("query", "key"))
    if len(query.shape) == 4:
        algorithm, shape = fused_attention(operator, masked=operator.arguments.get("attn_mask") is not None)
        yield contraction(operator, algorithm, shape=shape)
        return
    yield from _math_attention(operator, product(query.shape[:-2]), query.shape[-2], key.shape[-2], query.shape[-1])


def fused_attention(operator: Operator, *, masked: bool) -> tuple[str, Attention]:
    """The kernel that runs for operands of four dimensions, and what it works on."""
    query, key, value = (operator.arguments[name] for name in ("query", "key", "value"))
    width = query.shape[-1]
    flash = not masked and query.itemsize <= 2 and width <= _WIDEST_FLASH and _has_flash(operator)
    shape = Attention(
        query.shape[-2], key.shape[-2], width, product(query.shape[:-2]),
        shared_by=query.shape[-3] // key.shape[-3],
        values=0 if value.shape[-1] == width else value.shape[-1],
        causal=bool(operator.arguments.get("is_causal")),
        sequences=query.shape[0],
    )  # fmt: skip
    return "flash_attention" if flash else "efficient_attention", shape


def in_library(kernel: Kernel, kernels: AttentionKernels) -> tuple[Kernel, ...]:
    """What a library launches for the attention of ``kernel``: its own kernel, between copies where it makes them.

    FlashAttention 2 packs the query heads that share keys and values by a transposed view of the queries. With several
    sequences and several heads of keys it is no view: queries are copied together, results apart (``mha_varlen_fwd`` of
    vLLM's fork: ``seqlenq_ngroups_swapped``).
    """
    shape, own = kernel.shape, replace(kernel, algorithm=kernels.name)
    if not isinstance(shape, Attention) or not kernels.copies_packed or shape.queries > 1:
        return (own,)
    if shape.shared_by == 1 or shape.sequences == 1 or shape.kv_heads == shape.sequences:
        return (own,)
    item_bytes = kernel.bytes_written // (shape.heads * shape.value_width)

    def copy(width: int) -> Kernel:
        moved = shape.heads * width * item_bytes
        return Kernel(
            op=kernel.op, algorithm="contiguous_copy", bytes_read=moved, bytes_written=moved,
            elements=shape.heads * width,
        )  # fmt: skip

    return copy(shape.width), own, copy(shape.value_width)


def _has_flash(operator: Operator) -> bool:
    """Whether the libraries of the machine have flash attention; of NVIDIA's that is a matter of the generation."""
    gpu = operator.hardware.gpu
    return gpu.family.fuses_attention or gpu.attention_kernels("flash_attention") is not None


@rule("flex_attention")
def _flex_attention(operator: Operator) -> Iterator[Kernel]:
    """The kernel that Inductor generates: flash attention over the blocks that are visited, as so many fewer keys."""
    query = operator.arguments["query"]
    shape = Attention(query.shape[-2], visited_keys(operator), query.shape[-1], product(query.shape[:-2]))
    yield contraction(operator, "flash_attention", shape=shape)


@rule("latent_attention")
def _latent_attention(operator: Operator) -> Iterator[Kernel]:
    """All heads of a sequence against its latent vectors, whose first part is the value too."""
    query, latent = operator.arguments["query"], operator.arguments["latent"]
    sequences, heads, queries, width = query.shape
    shape = Attention(
        queries, latent.shape[-2], width, sequences * heads, shared_by=heads, values=latent.shape[-1],
        sequences=sequences,
    )  # fmt: skip
    yield contraction(operator, "latent_attention", shape=shape)


def _math_attention(operator: Operator, batch: int, length: int, keys: int, width: int) -> Iterator[Kernel]:
    """Two batched products with a softmax between them; the scores lie in memory.

    Up to torch 2.4 all of it has the dtype of the operands. Later releases cast half-precision operands to fp32,
    multiply in fp32 (TF32 where that is allowed), and take ``_safe_softmax``, which looks for fully masked rows:
    ``eq``, ``all`` and ``where`` besides the softmax (aten/src/ATen/native/transformers/attention.cpp).
    """
    query, key, value = (operator.arguments[n] for n in ("query", "key", "value"))
    deep = value.shape[-1]
    widened = operator.execution.software.at_least_torch(2, 5) and query.itemsize < 4
    size = 4 if widened else query.itemsize
    scores = batch * length * keys
    for operand in (query, key, value):
        if not widened and not gemm_ready(operand):
            yield copy_kernel(operator.op, operand)
    if widened:
        for operand in (query, key, value):
            yield _pass(operator, "cast", operand.nbytes, 4 * operand.numel, operand.numel)
    yield _scores_product(operator, Product(length, keys, width, batch, size), size, widened)
    flops: int = operator.cost.vector_flops  # type: ignore[assignment]
    softmax = _pass(operator, "softmax", scores * size, scores * size, scores)
    yield replace(softmax, access="softmax", shape=Rows(keys), vector_flops=flops)
    if widened:
        yield _pass(operator, "elementwise", scores * size, scores, scores)
        yield _pass(operator, "reduction", scores, scores // keys, scores // keys)
        yield _pass(operator, "elementwise", scores * size, scores * size, scores)
    yield _scores_product(operator, Product(length, deep, keys, batch, size), size, widened)  # type: ignore[arg-type]
    if widened:
        yield _pass(operator, "cast", 4 * operator.out.numel, operator.out.nbytes, operator.out.numel)


def _pass(operator: Operator, algorithm: str, read: Any, written: Any, elements: Any) -> Kernel:
    access = "reduction" if algorithm == "reduction" else "elementwise"
    return Kernel(
        op=operator.op, algorithm=algorithm, bytes_read=read, bytes_written=written, elements=elements, access=access
    )


def _scores_product(operator: Operator, shape: Product, size: int, widened: bool) -> Kernel:
    """One of the two batched products of the math path, operands of ``size`` bytes."""
    m, n, k, batch = shape.m, shape.n, shape.k, shape.batch
    read, written = size * batch * (m * k + k * n), size * batch * m * n
    kernel = contraction(
        operator, "batched_gemm", shape=shape, vector_flops=0, matrix_flops=2 * batch * m * n * k,
        bytes_read=read, bytes_written=written, elements=batch * m * n,
    )  # fmt: skip
    if not widened:
        return kernel
    dtype = contraction_dtype(operator.op, operator.execution, "float32", operator.hardware.has_tf32)
    engine, dtype, accumulate = engine_for("batched_gemm", dtype, operator.hardware)
    return replace(kernel, engine=engine, dtype=dtype, accumulate=accumulate)
