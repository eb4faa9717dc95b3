"""Rows of quantized products: which kernels ran by the words of the file, and the plan of a row.

Such files (TensorRT-LLM's and vLLM's linear layers) name a format in ``dtype`` and a library in ``framework`` and
``kernel``. A layer takes bf16 activations and quantizes them itself, but for SmoothQuant, whose activations arrive in
int8. Two kinds of their timings are no graph replay, whatever the file says: TensorRT engines are timed by events of
whole microseconds, and vLLM's block-scaled layers by calls in which Python works for 50 to 350 µs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from costmodel.errors import InputError
from costmodel.hardware import HardwareProfile
from costmodel.kernels import Kernel, KernelPlan, Launch
from costmodel.kernels.quantized import quantization, quantized_product
from costmodel.kernels.shapes import product_of
from costmodel.validate.cells import RowError
from costmodel.validate.rows import OperatorRow

__all__ = ["DTYPES", "QuantizedLayer", "layer_of", "quantized_plan"]


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """A linear layer of a library: its product's algorithm, how it quantizes activations, whether calls were timed."""

    algorithm: str
    scheme: str
    is_call: bool = False


#: (dtype in the file, library, the start of its kernel's name) -> what runs.
_LAYERS = {
    ("fp8", "trtllm", ""): QuantizedLayer("fp8_gemm", "per_tensor"),
    ("fp8", "vllm", "Cutlass"): QuantizedLayer("fp8_gemm_cutlass", "per_token"),
    ("fp8_block", "trtllm", ""): QuantizedLayer("fp8_block_gemm", "per_group"),
    ("fp8_block", "vllm", ""): QuantizedLayer("fp8_block_gemm", "per_group", is_call=True),
    ("int8_wo", "trtllm", ""): QuantizedLayer("int8_weight_gemm", "none", is_call=True),
    ("int4_wo", "trtllm", ""): QuantizedLayer("int4_weight_gemm", "none", is_call=True),
    ("sq", "trtllm", ""): QuantizedLayer("int8_gemm", "none", is_call=True),
}
#: Formats that a file may name beside the dtypes of a run.
DTYPES = tuple(dict.fromkeys(dtype for dtype, _, _ in _LAYERS))


def layer_of(dtype: str, library: str) -> QuantizedLayer:
    """What runs in a layer of a ``library`` ("vllm 0.24.0 CutlassFP8ScaledMMLinearKernel"). Raises RowError if unknown.

    >>> layer_of("fp8", "vllm 0.24.0 CutlassFP8ScaledMMLinearKernel").algorithm
    'fp8_gemm_cutlass'
    """
    framework, _, rest = library.partition(" ")
    kernel = rest.rpartition(" ")[2]
    for (known, by, name), layer in _LAYERS.items():
        if dtype == known and framework == by and kernel.startswith(name):
            return layer
    raise RowError(f"no kernels are known for {dtype} in {library or 'a library without a name'}")


def quantized_plan(plan: KernelPlan, row: OperatorRow, hardware: HardwareProfile) -> KernelPlan:
    """The plan of a row's layer: ``plan`` is that of the plain product.

    Raises InputError where the machine's generation has no such kernels.
    """
    layer = layer_of(row.dtype, row.library)
    records = {record.name: record for record in hardware.gpu.quantized_products}
    product = product_of(plan.kernels[-1].shape)
    if layer.algorithm not in records or product is None:
        raise InputError(f"no {layer.algorithm} kernels are known of {hardware.generation.title}")
    kernel = replace(plan.kernels[-1], bytes_read=0)
    m, n, k = product.m, product.n, product.k
    run: list[Kernel] = [
        *quantization(kernel.op, layer.scheme, m, k),
        quantized_product(kernel, records[layer.algorithm], m, n, k),
    ]
    launch = plan.launches[-1]
    launches = tuple(Launch(index, launch.nodes, launch.reads, launch.writes) for index in range(len(run)))
    return replace(plan, kernels=tuple(run), launches=launches)
