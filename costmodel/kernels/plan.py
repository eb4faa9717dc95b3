"""Kernel, KernelPlan: what a machine is asked to run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Kernel", "KernelPlan", "Launch"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel that the machine runs.

    ``algorithm``       how it works: gemm, implicit_gemm, direct_depthwise, elementwise, cast, ...
    ``engine``, ``dtype``, ``accumulate``   which units do ``matrix_flops``: ("matrix", "tf32", "fp32") for
                        tensor cores, ("vector", "fp32", "fp32") for ordinary lanes.
    ``matrix_flops``    FLOP of contractions, on that engine.
    ``vector_flops``    FLOP of everything else, on the vector lanes in fp32.
    ``bytes_read``, ``bytes_written``   B to and from device memory.
    ``workspace_bytes`` B that the algorithm stores besides.
    ``gemm``            (m, n, k, batch) of a contraction that runs as matrix products.
    ``window``          of a convolution: batch, in channels, height, width, out channels, kernel h, w, stride h, w,
                        padding h, w, dilation h, w, groups.
    ``access``          how it walks memory, a rate class of the time model: elementwise, strided, cat, ...
    ``variant``         which of several kernels of the algorithm (depthwise: whose, for which layout; pooling: layout).
    ``elements``        elements put out.
    ``row_length``      elements normalized together, for softmax and normalization; taps of a pooling window.
    ``count``           starts of the device that it stands for (an LSTM layer steps through time).
    ``op``              the operator that it serves.
    ``caller``          who calls it: "python", as an operator of its own, or "generated" code.
    ``alone``           whether the board is idle before and after, so that it starts at its boost clock.
    """

    op: str
    algorithm: str
    engine: str = "vector"
    dtype: str = "fp32"
    accumulate: str = "fp32"
    matrix_flops: int = 0
    vector_flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    workspace_bytes: int = 0
    gemm: tuple[int, int, int, int] | None = None
    window: tuple[int, ...] | None = None
    access: str = "elementwise"
    variant: str = ""
    row_length: int = 0
    elements: int = 0
    count: int = 1
    caller: str = "python"
    alone: bool = False

    @property
    def bytes(self) -> int:
        """All traffic to and from device memory, in B."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a kernel: which kernel of the plan, and the nodes of the graph that it serves."""

    kernel: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """Everything that runs in one step: distinct kernels, and their launches in program order."""

    kernels: tuple[Kernel, ...]
    launches: tuple[Launch, ...]
    storage_scale: tuple[float, ...] = ()
    """Per storage of the graph, its bytes in this execution over its bytes as traced (fp16: 0.5)."""
    notes: tuple[str, ...] = ()
