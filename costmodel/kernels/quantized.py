"""Matrix products of narrow formats: float8, int8, and weights of 4 or 8 bits beside wide activations.

Which kernels a machine has for them stands in the record of its generation
(:class:`costmodel.devices.libraries.QuantizedProducts`); a kernel's algorithm is the record's name, which tells formats
and library. Activations that arrive wide are quantized first, by kernels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from costmodel.devices.libraries import QuantizedProducts
from costmodel.formulas.experts import expected_experts
from costmodel.kernels.algorithm import engine_for
from costmodel.kernels.contractions import contraction
from costmodel.kernels.operator import Operator, rule
from costmodel.kernels.plan import Kernel
from costmodel.kernels.shapes import Product, Rows
from costmodel.tensor import TensorSpec, tensors_in

__all__ = ["SCHEMES", "quantization", "quantized_product", "widening_product"]

#: B of an element of activations and results: bf16 or fp16.
_WIDE_BYTES = 2
#: Arguments in which a packed weight lies.
_PARTS = ("weight", "scales", "zeros")


def quantized_product(kernel: Kernel, formats: QuantizedProducts, m: int, n: int, k: int) -> Kernel:
    """``kernel`` as the product C[m, n] = A[m, k] B[k, n] of a record's formats.

    ``kernel`` brings the operator and the FLOPs; bytes are those of the formats, each operand read once, the result
    written wide.
    """
    return replace(
        kernel,
        algorithm=formats.name,
        shape=Product(m, n, k, 1, max(1, round(formats.weight_bytes))),
        bytes_read=int(m * k * formats.activation_bytes + n * k * formats.weight_bytes),
        bytes_written=_WIDE_BYTES * m * n,
        engine="matrix",
        dtype=formats.multiplies,
    )


def quantization(op: str, scheme: str, rows: int, columns: int) -> tuple[Kernel, ...]:
    """Kernels that quantize wide activations [rows, columns] to 8 bits before a product.

    ``per_tensor``  one scale for all: a maximum that starts from zero, the scale made of it, then the conversion
    ``per_token``   one scale a row: a block of threads walks it twice
    ``per_group``   one scale for 128 elements of a row, which stay in registers
    ``none``        the activations are narrow already, or are multiplied wide

    Raises ValueError for another scheme.

    >>> [kernel.bytes for kernel in quantization("aten.linear", "per_token", 16, 1024)]      # 2 B read, 1 B written
    [49152]
    >>> sum(kernel.bytes_read for kernel in quantization("aten.linear", "per_tensor", 16, 1024))     # read twice
    65536
    """
    if scheme not in SCHEMES:
        raise ValueError(f"no quantization is called {scheme!r}; there are {', '.join(SCHEMES)}")
    elements = rows * columns
    convert = Kernel(
        op=op, algorithm="quantize", vector_flops=2 * elements, bytes_read=_WIDE_BYTES * elements,
        bytes_written=elements, elements=elements,
    )  # fmt: skip
    if scheme == "none":
        return ()
    if scheme == "per_group":
        return (convert,)
    if scheme == "per_token":
        return (replace(convert, access="quantize_rows", shape=Rows(columns)),)
    scale = Kernel(op=op, algorithm="elementwise", elements=1)
    largest = replace(convert, algorithm="reduction", access="reduction", bytes_written=0)
    return (scale, largest, scale, convert)


SCHEMES = ("none", "per_tensor", "per_token", "per_group")


@rule("_scaled_mm", "_weight_int8pack_mm", "_weight_int4pack_mm")
def _quantized_product(operator: Operator) -> Iterator[Kernel]:
    """cuBLASLt's float8 product and PyTorch's products with packed weights, by the generation's record.

    Where the record has no such kernels the weight is taken to be widened on the way into the units of the
    activations' dtype: a product like any other, with the bytes of the narrow weight.
    """
    x: TensorSpec = operator.input
    out = operator.out
    m, n, k = out.numel // out.shape[-1], out.shape[-1], x.shape[-1]
    wanted = {"_scaled_mm": "fp8_gemm", "_weight_int8pack_mm": "int8_weight_gemm"}.get(
        operator.name, "int4_weight_gemm"
    )
    kernel = contraction(operator, "gemm", shape=Product(m, n, k, 1, x.itemsize))  # type: ignore[arg-type]
    record = next((found for found in operator.hardware.gpu.quantized_products if found.name == wanted), None)
    if record is not None:
        yield quantized_product(kernel, record, m, n, k)  # type: ignore[arg-type]
        return
    if operator.name == "_scaled_mm":
        engine, dtype, accumulate = engine_for("gemm", "fp8", operator.hardware)
        kernel = replace(kernel, engine=engine, dtype=dtype, accumulate=accumulate)
    yield kernel


#: Method of a :class:`~costmodel.execution.WeightScheme` -> (record of products where the machine multiplies the
#: format, how activations are narrowed for it).
_NATIVE = {
    "fp8": ("fp8_gemm_cutlass", "per_token"),
    "fp8_block": ("fp8_block_gemm", "per_group"),
    "bnb_8bit": ("int8_gemm", "per_token"),
}


@rule("packed_linear")
def _packed_product(operator: Operator) -> Iterator[Kernel]:
    """A linear layer with packed weights.

    Where the machine multiplies the format, activations are narrowed by a kernel of their own and the product runs on
    them; else weights are widened on the way into the units (Marlin, ExLlama, AWQ's kernels), by the generation's
    record or, without one, in a product like any other with the bytes of what is stored. bitsandbytes has a kernel for
    4 bits and one row; for more rows it writes the weights out wide and multiplies those.
    """
    yield from _packed(operator, operator.out.shape[-1])


def _packed(operator: Operator, n: Any) -> Iterator[Kernel]:
    """The product of a packed layer, or of several with ``n`` output channels in all."""
    x, out, method = operator.input, operator.out, operator.arguments["method"]
    m: Any
    m, k = out.numel // out.shape[-1], x.shape[-1]  # type: ignore[operator]
    weights: Any = sum(part.nbytes for part in tensors_in([operator.arguments.get(p) for p in _PARTS]))
    records = {record.name: record for record in operator.hardware.gpu.quantized_products}
    wanted, scheme = _NATIVE.get(method, ("", "none"))
    if wanted in records:
        yield from quantization(operator.op, scheme, m, k)
        kernel = contraction(operator, "gemm", shape=Product(m, n, k, 1, 1))
        yield replace(quantized_product(kernel, records[wanted], m, n, k), bytes_read=m * k + weights)
        return
    if method == "bnb_4bit" and m > 1:
        wide = n * k * x.itemsize
        yield Kernel(operator.op, "dequantize", vector_flops=operator.cost.vector_flops, bytes_read=weights,
                     bytes_written=wide, elements=n * k)  # fmt: skip
        yield contraction(operator, "gemm", shape=Product(m, n, k, 1, x.itemsize), vector_flops=0,
                          bytes_read=m * k * x.itemsize + wide)  # fmt: skip
        return
    yield widening_product(operator, n)


def widening_product(operator: Operator, n: Any) -> Kernel:
    """A product with ``n`` output channels that widens its packed weights on the way into the units."""
    x = operator.input
    m: Any
    m, k = operator.out.numel // operator.out.shape[-1], x.shape[-1]  # type: ignore[operator]
    weights: Any = sum(part.nbytes for part in tensors_in([operator.arguments.get(p) for p in _PARTS]))
    name = "int8_weight_gemm" if 4 * weights > 3 * n * k else "int4_weight_gemm"
    kernel = contraction(operator, "gemm", shape=Product(m, n, k, 1, x.itemsize))
    record = next((one for one in operator.hardware.gpu.quantized_products if one.name == name), None)
    if record is not None:
        kernel = quantized_product(kernel, record, m, n, k)
    return replace(kernel, bytes_read=x.nbytes + weights)


@rule("merged_linear")
def _merged_product(operator: Operator) -> Iterator[Kernel]:
    """One product for layers that read the same input; its bias rides in the epilogue."""
    columns: Any = sum(part.shape[-1] for part in operator.results)
    if operator.arguments.get("scales"):
        yield from _packed(operator, columns)
        return
    x: Any = operator.input
    rows = operator.out.numel // operator.out.shape[-1]  # type: ignore[operator]
    yield contraction(operator, "gemm", shape=Product(rows, columns, x.shape[-1], 1, x.itemsize))


@rule("cache_write")
def _cache_write(operator: Operator) -> Iterator[Kernel]:
    """A block of threads for each token."""
    new: Any = operator.arguments["new"]
    row = new.shape[-1] * new.shape[-3] if len(new.shape) > 2 else new.shape[-1]
    yield operator.kernel("cache_write", access="cache_write", elements=new.numel, shape=Rows(row))


@rule("packed_grouped_mm")
def _packed_experts(operator: Operator) -> Iterator[Kernel]:
    """A grouped product that widens the weights of the experts that are met, or multiplies them as they are."""
    x, out, experts = operator.input, operator.out, operator.arguments["experts"]
    chosen: int = operator.arguments["chosen"]
    rows: Any = x.shape[0]
    met = expected_experts(experts, chosen, rows // chosen)
    kernel = contraction(operator, "batched_gemm", shape=Product(-(-rows // met), out.shape[-1], x.shape[-1], met, 1))
    wanted, scheme = _NATIVE.get(operator.arguments["method"], ("", "none"))
    if wanted in {record.name for record in operator.hardware.gpu.quantized_products}:
        yield from quantization(operator.op, scheme, rows, x.shape[-1])
        engine, dtype, accumulate = engine_for("batched_gemm", "fp8" if "fp8" in wanted else "int8", operator.hardware)
        kernel = replace(kernel, engine=engine, dtype=dtype, accumulate=accumulate)
    yield kernel
