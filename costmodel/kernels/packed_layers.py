"""Layers with packed weights as libraries run them under eager PyTorch: what they call, make and keep.

A product with packed weights is one kernel; the layer around it is more. Read from the libraries' sources:

ExLlama (``auto_gptq/nn_modules/qlinear/qlinear_exllama.py``, ``q4_matmul.cu``), GPTQ with 4 bits: from 8 rows on the
weights are written out wide, into a buffer that all layers share, and cuBLAS multiplies them.

auto-gptq's CUDA kernels (``qlinear_cuda_old.py``), GPTQ with other bits: up to 127 rows a product in fp32, with
activations and scales cast to it and the result cast back; from 128 rows on PyTorch's operators widen the weights.

AutoAWQ (``awq/modules/linear/gemm.py``, ``gemm_cuda_gen.cu``): up to 1,023 rows a product in eight parts of k, summed
by another kernel; from 1,024 rows on the weights are written out wide. An autograd function in ``no_grad`` around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from costmodel.graph import OpGraph
from costmodel.kernels.contractions import contraction
from costmodel.kernels.operator import Operator, rule
from costmodel.kernels.plan import Kernel
from costmodel.kernels.quantized import widening_product
from costmodel.kernels.shapes import Product
from costmodel.tensor import tensors_in

__all__ = ["LAYERS", "PackedLayer", "kept_bytes", "layer_for"]


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A library's layer: its operator's name, its title, rows from which it writes weights out wide and multiplies
    those, the views that Python makes of activations and results, what else of Python it runs, in µs on the reference
    core, and whether it keeps a buffer for wide weights."""

    op: str
    title: str
    wide_from: int
    views: int
    python_us: float = 0.0
    keeps_wide: bool = False


#: ``torch.no_grad`` and ``Function.apply`` with nine arguments, timed on a machine on which a view takes the 2.6 µs of
#: the reference core.
_AUTOGRAD_FUNCTION_US = 4.1 + 9.0
_LAYERS = (
    PackedLayer("costmodel.exllama_linear", "ExLlama", wide_from=8, views=2, keeps_wide=True),
    PackedLayer("costmodel.autogptq_linear", "auto-gptq", wide_from=128, views=2),
    PackedLayer("costmodel.autoawq_linear", "AutoAWQ", wide_from=1024, views=3, python_us=_AUTOGRAD_FUNCTION_US),
)
#: Operator -> the layer.
LAYERS: Mapping[str, PackedLayer] = MappingProxyType({layer.op: layer for layer in _LAYERS})
#: B of an element of wide weights and activations, of fp32 ones, and of int32 and int16 ones.
_WIDE, _FULL, _INT32, _INT16 = 2, 4, 4, 2
#: Parts of k that AutoAWQ's kernel multiplies apart.
_AWQ_PARTS = 8


def layer_for(method: str, bits: int) -> PackedLayer | None:
    """The layer that multiplies weights of a :class:`~costmodel.execution.WeightScheme`; None where PyTorch or a
    library calls one kernel.

    >>> layer_for("gptq", 4).title, layer_for("gptq", 8).title, layer_for("bnb_4bit", 4)
    ('ExLlama', 'auto-gptq', None)
    """
    exllama, autogptq, autoawq = _LAYERS
    if method == "gptq":
        return exllama if bits == 4 else autogptq
    return autoawq if method == "awq" else None


def kept_bytes(graph: OpGraph) -> int:
    """B that a library keeps beside the weights of ``graph`` (in numbers): ExLlama's buffer for the widest of them."""
    most = 0
    for call in {node.call for node in graph.nodes if node.op in LAYERS and LAYERS[node.op].keeps_wide}:
        arguments: Any = graph.arguments(graph.calls[call])
        (out,) = tensors_in(graph.results(graph.calls[call]))
        most = max(most, int(arguments["input"].shape[-1] * out.shape[-1] * _WIDE))  # type: ignore[operator]
    return most


@rule("exllama_linear", "autogptq_linear", "autoawq_linear")
def _packed_layer(operator: Operator) -> Iterator[Kernel]:
    """The kernels of a library's layer, each with the operator that it is of."""
    layer, out = LAYERS[operator.op], operator.out
    n: Any = out.shape[-1]
    m: Any = out.numel // n  # type: ignore[operator]
    if m < layer.wide_from:
        yield from _narrow(operator, layer, m, n)
    else:
        yield from _widened(operator, layer, n)
    if operator.arguments.get("bias") is not None:
        nbytes = out.numel * _WIDE
        yield Kernel("aten.add", "bias", vector_flops=out.numel, bytes_read=nbytes, bytes_written=nbytes,
                     elements=out.numel)  # type: ignore[arg-type]  # fmt: skip


def _narrow(operator: Operator, layer: PackedLayer, m: Any, n: Any) -> Iterator[Kernel]:
    """The library's own product, and what is done around it."""
    product = widening_product(operator, n)
    if layer.title == "ExLlama":
        yield product
        return
    results = m * n
    if layer.title == "AutoAWQ":
        parts = _AWQ_PARTS * results
        yield replace(product, bytes_written=_WIDE * parts, scratch_bytes=_WIDE * parts)
        yield Kernel("aten.sum", "reduction", vector_flops=parts, access="reduction", bytes_read=_WIDE * parts,
                     bytes_written=_WIDE * results, elements=results)  # fmt: skip
        return
    scales: Any = operator.arguments["scales"].numel
    yield Kernel("aten.zeros", "elementwise", bytes_written=_FULL * results, elements=results,
                 scratch_bytes=_FULL * results)  # fmt: skip
    for elements in (operator.input.numel, scales):
        yield _cast(elements, _WIDE, _FULL, keeps=_FULL * elements)
    yield replace(product, bytes_written=_FULL * results)
    yield _cast(results, _FULL, _WIDE)


def _cast(elements: Any, had: int, has: int, keeps: int = 0) -> Kernel:
    return Kernel("aten._to_copy", "copy", bytes_read=had * elements, bytes_written=has * elements, elements=elements,
                  scratch_bytes=keeps)  # fmt: skip


def _widened(operator: Operator, layer: PackedLayer, n: Any) -> Iterator[Kernel]:
    """Weights written out wide, and a product like any other."""
    x = operator.input
    k: Any = x.shape[-1]
    m: Any = operator.out.numel // n  # type: ignore[operator]
    stored = [operator.arguments.get(name) for name in ("weight", "scales", "zeros")]
    packed: Any = sum(part.nbytes for part in tensors_in(stored))
    elements, wide = n * k, n * k * _WIDE
    if layer.title == "auto-gptq":
        # shifted apart in 32 bits, narrowed to 16, masked, zero points taken off, scaled
        yield Kernel("aten.bitwise_right_shift", "elementwise", bytes_read=packed, bytes_written=_INT32 * elements,
                     vector_flops=elements, elements=elements, scratch_bytes=_INT32 * elements)  # fmt: skip
        yield _cast(elements, _INT32, _INT16, keeps=_INT16 * elements)
        for op in ("aten.bitwise_and", "aten.sub", "aten.mul"):
            yield Kernel(op, "elementwise", vector_flops=elements, bytes_read=_INT16 * elements,
                         bytes_written=_INT16 * elements, elements=elements)  # fmt: skip
    else:
        yield Kernel("aten.mul", "dequantize", vector_flops=2 * elements, bytes_read=packed, bytes_written=wide,
                     elements=elements, scratch_bytes=0 if layer.keeps_wide else wide)  # fmt: skip
    yield contraction(operator, "gemm", shape=Product(m, n, k, 1, _WIDE), vector_flops=0,
                      bytes_read=x.nbytes + wide)  # fmt: skip
