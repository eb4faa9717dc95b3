"""Layers of torch.ao whose weights are kept in 8 bits, and whose inputs are quantized while they run.

Conventions: the products count as in fp32 (one MAC each, in 8-bit integers). Quantizing an element is a comparison
for the largest and one for the smallest of the tensor, a product with the scale, a rounding, an addition of the zero
point and two comparisons to clamp it: 7 FLOP; an output is scaled back by one product.
"""

from __future__ import annotations

from costmodel.cost import Cost
from costmodel.formulas.operands import contraction_cost
from costmodel.formulas.registry import formula
from costmodel.tensor import TensorSpec

__all__ = ["linear_dynamic", "linear_dynamic_fp16", "linear_relu_dynamic"]

#: FLOP to quantize an element whose range is not known before.
QUANTIZE_FLOPS = 7


@formula("quantized.linear_dynamic")
def linear_dynamic(input: TensorSpec, weight: TensorSpec, bias: TensorSpec | None = None, *, out: TensorSpec) -> Cost:
    """out[*, N] = scale * (quantized(input)[*, K] @ weight[N, K].T) + bias[N]

    >>> from costmodel.tensor import f32
    >>> cost = linear_dynamic(f32(4, 5), TensorSpec((6, 5), "int8"), f32(6), out=f32(4, 6))
    >>> cost.macs, cost.vector_flops                        # 4*6*5; 7 for each of 4*5, a product and a bias for 4*6
    (120, 188)
    >>> cost.bytes_read                                     # 4 B * (4*5 + 6) + 6*5 B
    134
    """
    vector = QUANTIZE_FLOPS * input.numel + out.numel * (1 if bias is None else 2)
    return contraction_cost(out.numel * input.shape[-1], input, weight, bias, out=out, vector_flops=vector)


@formula("quantized.linear_relu_dynamic")
def linear_relu_dynamic(
    input: TensorSpec, weight: TensorSpec, bias: TensorSpec | None = None, *, out: TensorSpec
) -> Cost:
    """:func:`linear_dynamic` with a ReLU on its outputs: one comparison each.

    >>> from costmodel.tensor import f32
    >>> linear_relu_dynamic(f32(4, 5), TensorSpec((6, 5), "int8"), out=f32(4, 6)).vector_flops      # 7*4*5 + 2*4*6
    188
    """
    return linear_dynamic(input, weight, bias, out=out) + Cost(vector_flops=out.numel)


@formula("quantized.linear_dynamic_fp16")
def linear_dynamic_fp16(
    input: TensorSpec, weight: TensorSpec, bias: TensorSpec | None = None, *, out: TensorSpec
) -> Cost:
    """A linear layer in fp32 whose weight is kept in half precision.

    >>> from costmodel.tensor import f32
    >>> linear_dynamic_fp16(f32(4, 5), TensorSpec((6, 5), "float16"), out=f32(4, 6)).bytes_read     # 4*4*5 + 2*6*5 B
    140
    """
    vector = 0 if bias is None else out.numel
    return contraction_cost(out.numel * input.shape[-1], input, weight, bias, out=out, vector_flops=vector)
