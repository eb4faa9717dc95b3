"""What Inductor makes of each operator, and which memory format it gives convolutions.

Sources: ``torch/_inductor/lowering.py``, ``decomposition.py`` and ``graph.py`` of torch 2.9 to 2.13.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from costmodel.formulas import is_free, lookup
from costmodel.graph import OpGraph
from costmodel.nodes import OpNode, SpecRef
from costmodel.symbols import product
from costmodel.tensor import TensorSpec

__all__ = ["kind_of", "prefers_channels_last", "unrolled_terms", "window_taps"]

#: ``config.unroll_reductions_threshold``: a reduction of fewer terms is written out.
UNROLLED_TERMS = 8
_UNROLLED = frozenset({"sum", "mean", "amax", "amin", "any", "all", "prod", "linalg_vector_norm"})
#: Windows of more taps than this are left to ATen (``lowering.py``, ``should_fallback_max_pool_with_indices``).
POOL_WINDOW = 25

_EXTERN_SHEETS = frozenset(
    {
        "contraction", "convolution", "attention", "recurrent", "einsum", "sorting", "spectral", "experts", "packed",
        "factorization", "eigenvalues",
    }
)  # fmt: skip
_BATCH_NORMS = frozenset(
    {"batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "_batch_norm_no_update"}
)
_GROUP_NORMS = frozenset({"group_norm", "native_group_norm", "instance_norm"})
_SOFTMAXES = frozenset({"softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"})
_JOINS = frozenset({"cat", "concat", "concatenate", "stack"})


def kind_of(graph: OpGraph, node: OpNode, channels_last: bool) -> str:
    """What Inductor makes of an operator.

    One of free, extern, pointwise, unrolled, pool, norm, group_norm, softmax, reduction, outer_reduction, cat.
    """
    name = node.op.rpartition(".")[2]
    if is_free(node.op):
        return "free"
    if not node.outputs:
        return "extern"  # it puts out a number, which only the host reads
    if name in _JOINS:
        return "cat" if len(node.inputs) > 1 else "pointwise"
    if name in _BATCH_NORMS:
        return "pointwise"
    if name in _SOFTMAXES:
        return "softmax"
    formula = lookup(node.op)
    sheet = "" if formula is None else formula.__module__.rpartition(".")[2]
    if sheet == "pooling":
        return _kind_of_pool(graph, node, name, channels_last)
    if sheet in _EXTERN_SHEETS or formula is None or name == "col2im":
        return "extern"
    if name in _GROUP_NORMS:
        return "group_norm"
    if sheet == "reduction":
        return _kind_of_reduction(graph, node, channels_last)
    return "norm" if sheet == "normalization" else "pointwise"


def _kind_of_reduction(graph: OpGraph, node: OpNode, channels_last: bool) -> str:
    """Whether the dimension that runs fastest in memory is reduced: only then pointwise loops have the same order.

    Few terms are no reduction at all, but one expression (``unroll_reductions_threshold``).
    """
    if unrolled_terms(graph, node.call):
        return "unrolled"
    spec = graph.specs[graph.tensors[node.inputs[0]].spec]
    rank = len(spec.shape)
    dims = graph.arguments(graph.calls[node.call]).get("dim")
    listed = range(rank) if dims is None or dims == [] else dims if isinstance(dims, (list, tuple)) else [dims]
    reduced = {d % rank for d in listed} if rank else set()
    spatial = channels_last and rank == 4 and reduced == {2, 3}
    return "outer_reduction" if spatial or _fastest(spec) not in reduced else "reduction"


def _fastest(spec: TensorSpec) -> int:
    """The dimension whose elements lie side by side, as the tensor was traced."""
    last = len(spec.shape) - 1
    if spec.strides is None:
        return last
    wide = {d: stride for d, (size, stride) in enumerate(zip(spec.shape, spec.strides, strict=True)) if size != 1}
    return min((d for d, stride in wide.items() if stride), key=lambda d: (wide[d], -d), default=last)


def unrolled_terms(graph: OpGraph, call: int) -> int:
    """Terms of a reduction that Inductor writes out, as there are few of them; 0 for all others."""
    found = graph.calls[call]
    if found.op.rpartition(".")[2] not in _UNROLLED:
        return 0
    operand = next(graph.specs[value.spec] for _, value in found.arguments if isinstance(value, SpecRef))
    terms: Any = operand.numel // graph.results(found).numel
    return int(terms) if terms < UNROLLED_TERMS else 0


def _kind_of_pool(graph: OpGraph, node: OpNode, name: str, channels_last: bool) -> str:
    """Pooling to 1x1 is a mean over rows; small windows are pointwise with several loads; large ones are ATen's."""
    if name.startswith("adaptive"):
        shape = graph.specs[graph.tensors[node.outputs[0]].spec].shape
        return ("outer_reduction" if channels_last else "reduction") if all(n == 1 for n in shape[2:]) else "pool"
    return "pool" if window_taps(graph, node) <= POOL_WINDOW else "extern"


def window_taps(graph: OpGraph, node: OpNode) -> int:
    """Elements under a pooling window; 1 where the operator names no window."""
    window = graph.arguments(graph.calls[node.call]).get("kernel_size", 1)
    sides = window if isinstance(window, (list, tuple)) else [window] * 2
    taps: Any = product(sides)
    return int(taps)


def prefers_channels_last(graph: OpGraph) -> bool:
    """Inductor's choice of memory format for convolutions, ``decide_layout_opt`` of torch/_inductor/graph.py.

    FLOPs by kind of convolution, weighted by the benchmarked time of channels_last over that of NCHW; no change of
    format where convolutions are less than one in 300 operators.
    """
    flops: Counter[str] = Counter()
    convolutions = 0
    for call, count in zip(graph.calls, graph.call_counts, strict=True):
        if call.op == "aten.conv2d":
            convolutions += count
            arguments = graph.arguments(call)
            weight, elements = arguments["weight"].shape, graph.results(call).numel
            flops[_convolution_class(weight, arguments.get("groups", 1))] += product(weight[1:]) * elements * count
    if not convolutions or len(graph.nodes) >= 300 * convolutions:
        return False
    factor = {"grouped": 1.358, "small": 0.783, "in_out": 0.725, "default": 0.823}
    return sum(factor[k] * n for k, n in flops.items()) <= flops.total()


def _convolution_class(weight: Sequence[int], groups: int) -> str:
    outputs, inputs, height = weight[:3]
    if groups > 1 and inputs > 1:
        return "grouped"
    if outputs <= 64 and inputs <= 64:
        return "small"
    return "in_out" if outputs * 2 <= inputs and height > 1 else "default"
