"""Mixtures of experts: products of each token with the weights of its own experts, grouped by expert.

A router sends each of T tokens to k of E experts, so that S = k T rows enter, sorted by expert. The work is that of S
rows whichever experts they meet; how many of the weights are read is a matter of chance. With routing taken to be
uniform an expert is met by none of the tokens with probability (1 - k/E)^T, so that

    E (1 - (1 - k/E)^T)

experts are expected to be read: k for one token, nearly all E from about T = 3 E/k on. Trained routers balance their
experts, so that this is close for tokens of different texts.
"""

from __future__ import annotations

from typing import Any

from costmodel.cost import Cost
from costmodel.formulas.operands import nbytes
from costmodel.formulas.registry import formula
from costmodel.symbols import Dim, floor_div, is_symbolic
from costmodel.tensor import TensorSpec

__all__ = ["expected_experts", "grouped_product"]


def expected_experts(experts: int, chosen: int, tokens: Dim) -> Any:
    """Distinct experts that ``tokens`` tokens are expected to meet, each ``chosen`` of ``experts``.

    A number for a number, rounded to whole experts and at least one; an expression for an expression.

    >>> expected_experts(8, 2, 1), expected_experts(8, 2, 4), expected_experts(256, 8, 1), expected_experts(8, 2, 100)
    (2, 5, 8, 8)
    """
    if is_symbolic(tokens):
        from sympy import Rational

        return experts * (1 - Rational(experts - chosen, experts) ** tokens)
    return max(1, round(experts * (1 - (1 - chosen / experts) ** int(tokens))))  # type: ignore[arg-type]


@formula("costmodel.grouped_mm")
def grouped_product(
    input: TensorSpec,
    weight: TensorSpec,
    offs: TensorSpec,
    chosen: int,
    *,
    out: TensorSpec,
) -> Cost:
    """out[S, N] = input[S, K] @ weight[expert of the row][K, N]: S K N MACs, and the weights of the experts met.

    >>> from costmodel.tensor import f32
    >>> cost = grouped_product(f32(4, 5), f32(8, 5, 6), TensorSpec((8,), "int32"), 2, out=f32(4, 6))     # 2 tokens
    >>> cost.macs, cost.bytes_read                                  # 4*5*6; 4 B * (4*5 + 4 experts * 5*6) + 8 * 4 B
    (120, 592)
    """
    experts, inner, columns = weight.shape[-3], input.shape[-1], out.shape[-1]
    rows = input.shape[0]
    met = expected_experts(experts, chosen, floor_div(rows, chosen))  # type: ignore[arg-type]
    per_expert = floor_div(weight.nbytes, experts)
    return Cost(
        matrix_flops=2 * rows * inner * columns,
        bytes_read=nbytes(input, offs) + met * per_expert,
        bytes_written=out.nbytes,
        launches=1,
        activations=rows * columns,
    )
