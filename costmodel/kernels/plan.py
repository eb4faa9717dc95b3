"""Execution, Kernel, KernelPlan: what a machine is asked to run, and under which conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from costmodel.errors import InputError, librarian, near_matches

__all__ = ["DTYPES", "LAYOUTS", "MODES", "Execution", "Kernel", "KernelPlan", "Launch"]

DTYPES = ("fp32", "tf32", "fp16", "bf16", "amp_fp16", "amp_bf16")
LAYOUTS = ("nchw", "nhwc")
MODES = ("eager", "compile")
PHASES = ("inference", "training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The conditions of a run: everything beside model and machine that changes its kernels.

    ``dtype``: ``fp32`` is PyTorch's default (convolutions in TF32 where the machine has it, matrix
    products in FP32), ``tf32`` allows both, ``fp16``/``bf16`` mean ``model.to(dtype)``, ``amp_*`` mean
    ``torch.autocast`` around fp32 weights. ``torch_version``: the release that runs, where it is known;
    ``fast_norm``: timm's own normalization layers stay in the lower precision under autocast;
    ``tf32_matmul``: ``torch.backends.cuda.matmul.allow_tf32`` is on; ``reparameterized``:
    branches that a model can fold (RepVGG, MobileOne, ...) are folded.
    """

    batch: int = 1
    sizes: Mapping[str, int] = field(default_factory=dict)
    dtype: str = "fp32"
    layout: str = "nchw"
    mode: str = "eager"
    phase: str = "inference"
    torch_version: str = ""
    fast_norm: bool = False
    reparameterized: bool = False
    tf32_matmul: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("layout", self.layout, LAYOUTS),
            ("mode", self.mode, MODES),
            ("phase", self.phase, PHASES),
        ):
            if value not in allowed:
                raise InputError(
                    librarian(f"there is no {name} {value!r}", there_is=allowed, near=near_matches(value, allowed))
                )
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise InputError(f"batch must be a whole number of at least 1, not {self.batch!r}")

    def at_least_torch(self, *release: int) -> bool:
        """Whether the run is by this release of torch or a later one; an unnamed version counts as the latest."""
        if not self.torch_version:
            return True
        parts = self.torch_version.partition("+")[0].split(".")
        return tuple(int(p) for p in parts[: len(release)] if p.isdigit()) >= release

    @property
    def autocast(self) -> str | None:
        """``fp16`` or ``bf16`` under autocast, else None."""
        return self.dtype.removeprefix("amp_") if self.dtype.startswith("amp_") else None


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
    compiled: bool = False
    """Whether generated code issues the kernels one after the other, instead of Python operator by operator."""
