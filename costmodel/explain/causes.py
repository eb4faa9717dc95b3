"""The words for why a step takes longer than its FLOPs say, and which of them a kernel falls under.

A :class:`Cause` is what a line of the split is called. :func:`cause_of` names the cause that the memory traffic of a
kernel belongs to; what else a kernel's time is made of, ``ladder.py`` finds by re-evaluating the time model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from costmodel.kernels import Kernel

__all__ = ["CAUSES", "CONTRACTIONS", "MOVED_FOR_THE_KERNEL", "Cause", "cause_of"]


@dataclass(frozen=True, slots=True)
class Cause:
    """``name`` in data, ``label`` on pages, and one sentence that says what its seconds are."""

    name: str
    label: str
    meaning: str


def _table(*causes: Cause) -> Mapping[str, Cause]:
    return MappingProxyType({cause.name: cause for cause in causes})


#: In the order in which a page tells them.
CAUSES = _table(
    Cause("other_units", "other arithmetic units", "FLOPs that run at another peak than the one for all"),
    Cause("grouping", "narrow groups packed", "zeros multiplied where several groups share a tile"),
    Cause("achievable", "below peak at best", "what even a large, well shaped kernel of the kind loses"),
    Cause("tiles", "tiles and waves", "partial tiles, units that idle in the last wave, short loops, epilogues"),
    Cause("channels", "channels that fill no tile", "what is lost against channel counts rounded up to 64, per FLOP"),
    Cause("winograd", "Winograd or FFT", "fewer multiplications than the FLOPs count (a gain)"),
    Cause("im2col", "im2col", "the matrix of windows written to memory and read back"),
    Cause("depthwise", "low-intensity depthwise", "depthwise convolutions: few FLOPs a byte, no matrix units"),
    Cause("contraction_memory", "operands of products", "weights and activations of products from memory"),
    Cause("elementwise", "memory-bound element-wise", "traffic of element-wise kernels, one tensor at a time"),
    Cause("normalization", "memory-bound normalization", "traffic of normalization and softmax"),
    Cause("unfused", "unfused chains", "results written and read back that fusion would keep on chip"),
    Cause("pooling", "pooling and reductions", "traffic of pooling, means and sums"),
    Cause("factorization", "factorizations", "columns of matrices that wait for each other in LAPACK or cuSOLVER"),
    Cause("movement", "copies, concatenations, gathers", "tensors moved without arithmetic"),
    Cause("layout", "layout copies", "NCHW to NHWC and back, reorders, copies of strided operands"),
    Cause("casts", "dtype casts", "tensors copied into another dtype"),
    Cause("page_faults", "page faults", "fresh pages of large results, faulted in and cleared"),
    Cause("cache_hits", "cache hits", "operands that were just written and come from a cache (a gain)"),
    Cause("optimizer", "optimizer", "weights, gradients and states that the optimizer reads and writes"),
    Cause("fixed", "fixed kernel time", "start, fill and drain of kernels"),
    Cause("framework", "framework overhead", "dispatch, cold code and joining of threads, an operator at a time"),
    Cause("power", "clock held down by power", "kernels at the clock that the power limit leaves, not at their own"),
    Cause("host", "waiting for the host", "the device idles until the host has issued the next kernel"),
    Cause("not_run", "work that is not run", "results that nobody reads, left out by the compiler (a gain)"),
)  # fmt: skip

#: Algorithms that multiply and accumulate on the units that their FLOPs are counted for.
CONTRACTIONS = frozenset(
    "gemm batched_gemm implicit_gemm grouped_implicit_gemm im2col_gemm flash_attention efficient_attention "
    "fused_attention early_batched_gemm implicit_gemm_dgrad implicit_gemm_wgrad flash_attention_backward "
    "efficient_attention_backward flash_attention_paged flash_attention_3 latent_attention".split()
)

_BY_ALGORITHM = {
    **dict.fromkeys(("direct_depthwise", "depthwise_dgrad", "depthwise_wgrad"), "depthwise"),
    "clear": "movement",
    "factorization": "factorization",
    "cast": "casts",
    **dict.fromkeys(("pad_channels", "nchw_to_nhwc", "nhwc_to_nchw", "contiguous_copy", "strided_copy"), "layout"),
    **dict.fromkeys(("reorder_activations", "reorder_weights", "copy_weights"), "layout"),
    **dict.fromkeys(("elementwise", "strided_elementwise", "fused_elementwise", "bias"), "elementwise"),
    **dict.fromkeys(("normalization", "fused_normalization", "softmax", "fused_softmax"), "normalization"),
    **dict.fromkeys(("pool", "fused_pool", "reduction", "fused_reduction"), "pooling"),
    "fused_loop": "elementwise",
    "multi_tensor": "optimizer",
}

#: Causes that own a kernel whole, its start included: without the cause the kernel would not run.
MOVED_FOR_THE_KERNEL = frozenset({"layout", "casts", "im2col"})


def cause_of(kernel: Kernel) -> str:
    """The cause that the traffic of a kernel belongs to.

    >>> cause_of(Kernel("aten.relu", "elementwise")), cause_of(Kernel("aten.unfold", "copy"))
    ('elementwise', 'movement')
    """
    if kernel.op in ("aten.im2col", "aten.col2im"):
        return "im2col"
    if kernel.algorithm in CONTRACTIONS:
        return "contraction_memory"
    return _BY_ALGORITHM.get(kernel.algorithm, "contraction_memory" if kernel.matrix_flops else "movement")
