"""Attention in a training step on a GPU, forward and backward: fused kernels, or written out before PyTorch 2.

A fused backward kernel never stores the scores: it makes them again, so that it has five products to the forward
pass's two. Releases before 2.0 have no fused attention: two products with passes over the scores between them, which
lie in memory for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from costmodel.kernels.attention import fused_attention
from costmodel.kernels.contractions import batched_algorithm, contraction, gemm_ready
from costmodel.kernels.operator import Operator, copy_kernel, rule
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Product, Rows
from costmodel.symbols import product
from costmodel.tensor import TensorSpec, tensors_in

__all__: list[str] = []


@rule("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention")
def _forward(operator: Operator) -> Iterator[Kernel]:
    """Flash attention for half precision without a mask, the memory-efficient kernel for all else."""
    sizes = _Sizes.of(operator)
    if sizes.is_written_out:
        yield from sizes.forward()
        return
    algorithm, shape = fused_attention(operator, masked=sizes.mask is not None)
    yield contraction(operator, algorithm, shape=shape, count=1)


@rule("_scaled_dot_product_flash_attention_backward", "_scaled_dot_product_efficient_attention_backward")
def _backward(operator: Operator) -> Iterator[Kernel]:
    """The sum of each row's gradient times its result, then one kernel of five products, which adds up the gradients of
    queries in fp32, and their conversion (flash_bwd_dot_do_o, flash_bwd_dq_dk_dv, flash_bwd_convert_dq)."""
    sizes = _Sizes.of(operator)
    if sizes.is_written_out:
        yield from sizes.backward()
        return
    query, out = operator.arguments["query"], operator.arguments["out"]
    rows: Any = 4 * sizes.batch * sizes.queries
    yield Kernel(operator.op, "reduction", access="reduction", bytes_read=2 * out.nbytes, bytes_written=rows,
                 vector_flops=2 * out.numel, elements=rows // 4)  # fmt: skip
    flops = 2 * sizes.scores * (3 * sizes.width + 2 * sizes.deep)
    read = sum(t.nbytes for t in tensors_in([operator.arguments[n] for n in ("query", "key", "value", "out")]))  # type: ignore[misc]
    algorithm, shape = fused_attention(operator, masked=sizes.mask is not None)
    yield contraction(
        operator, f"{algorithm}_backward", shape=shape, count=1, matrix_flops=flops, bytes_read=read + 2 * rows,
        bytes_written=4 * query.numel + sum(t.nbytes for t in sizes.keys_and_values), elements=query.numel,
    )  # fmt: skip
    if query.itemsize < 4:
        yield Kernel(operator.op, "cast", bytes_read=4 * query.numel, bytes_written=query.numel * query.itemsize,
                     elements=query.numel)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Sizes:
    """``batch`` (images times heads) attentions of ``queries`` on ``keys``, ``width`` wide, values ``deep``."""

    operator: Operator
    batch: Any
    queries: Any
    keys: Any
    width: Any
    deep: Any

    @classmethod
    def of(cls, operator: Operator) -> _Sizes:
        query, key, value = (operator.arguments[name] for name in ("query", "key", "value"))
        return cls(
            operator, product(query.shape[:-2]), query.shape[-2], key.shape[-2], query.shape[-1], value.shape[-1]
        )

    @property
    def is_written_out(self) -> bool:
        """Whether the release has no fused attention."""
        return not self.operator.execution.software.at_least_torch(2, 0)

    @property
    def query(self) -> TensorSpec:
        found: TensorSpec = self.operator.arguments["query"]
        return found

    @property
    def keys_and_values(self) -> tuple[TensorSpec, TensorSpec]:
        return self.operator.arguments["key"], self.operator.arguments["value"]

    @property
    def scores(self) -> Any:
        return self.batch * self.queries * self.keys

    @property
    def mask(self) -> TensorSpec | None:
        found: TensorSpec | None = self.operator.arguments.get("attn_bias", self.operator.arguments.get("attn_mask"))
        return found

    # -- written out -------------------------------------------------------------------------

    @property
    def _item(self) -> int:
        return self.query.itemsize

    @property
    def _wide(self) -> int:
        """B of an element that softmax puts out: fp32 under autocast."""
        return 4 if self.operator.execution.precision.autocast else self._item

    @property
    def _drops(self) -> bool:
        return bool(self.operator.arguments.get("dropout_p"))

    def forward(self) -> Iterator[Kernel]:
        """Scores, their scale and mask, softmax, dropout, and the product with the values."""
        op, item, wide, scores = self.operator.op, self._item, self._wide, self.scores
        for operand in (self.query, *self.keys_and_values):
            if not gemm_ready(operand):
                yield copy_kernel(op, operand)
        yield self._product(self.queries, self.keys, self.width)
        yield self._pass("elementwise", scores * item, scores * item)
        if self.mask is not None or self.operator.arguments.get("is_causal"):
            read = scores * item + (self.mask.nbytes if self.mask is not None else self.queries * self.keys)
            yield self._pass("elementwise", read, scores * item)
        yield self._softmax(scores * item, scores * wide)
        if self._drops:
            yield self._pass("elementwise", scores * wide, scores * (wide + 1))
        if wide != item:
            yield self._pass("cast", scores * wide, scores * item)
        yield self._product(self.queries, self.deep, self.keys)
        yield copy_kernel(op, self._result)

    def backward(self) -> Iterator[Kernel]:
        """Gradients of values and probabilities, through dropout, softmax and scale, then of queries and keys."""
        op, item, wide, scores = self.operator.op, self._item, self._wide, self.scores
        yield copy_kernel(op, self._result)
        yield self._product(self.keys, self.deep, self.queries)
        yield self._product(self.queries, self.keys, self.deep)
        if wide != item:
            yield self._pass("cast", scores * item, scores * wide)
        if self._drops:
            yield self._pass("elementwise", scores * (wide + 1), scores * wide)
        yield self._softmax(2 * scores * wide, scores * item)
        yield self._pass("elementwise", scores * item, scores * item)
        yield self._product(self.queries, self.width, self.keys)
        yield self._product(self.keys, self.width, self.queries)

    @property
    def _result(self) -> TensorSpec:
        query = self.query
        return TensorSpec((*query.shape[:-1], self.deep), query.dtype)

    def _pass(self, algorithm: str, read: Any, written: Any) -> Kernel:
        return Kernel(
            self.operator.op, algorithm, bytes_read=read, bytes_written=written, vector_flops=self.scores,
            elements=self.scores,
        )  # fmt: skip

    def _softmax(self, read: Any, written: Any) -> Kernel:
        return replace(self._pass("softmax", read, written), access="softmax", shape=Rows(self.keys))

    def _product(self, m: Any, n: Any, k: Any) -> Kernel:
        batch, item = self.batch, self._item
        algorithm = batched_algorithm(self.operator, item)
        return contraction(
            self.operator, algorithm, shape=Product(m, n, k, batch, item), vector_flops=0, count=1,
            matrix_flops=2 * batch * m * n * k, bytes_read=item * batch * (m * k + k * n),
            bytes_written=item * batch * m * n, elements=batch * m * n,
        )  # fmt: skip
