"""Kernel, KernelPlan: what a machine is asked to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from costmodel.graph import OpGraph
from costmodel.kernels.shapes import LOOP, Shape

__all__ = ["Kernel", "KernelPlan", "Launch", "Read", "storages_of", "stored_bytes"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel that the machine runs.

    ``algorithm``       how it works: gemm, implicit_gemm, direct_depthwise, elementwise, cast, ...
    ``engine``, ``dtype``, ``accumulate``   which units do ``matrix_flops``: ("matrix", "tf32", "fp32") for
                        tensor cores, ("vector", "fp32", "fp32") for ordinary lanes.
    ``matrix_flops``    FLOP of contractions, on that engine.
    ``vector_flops``    FLOP of everything else, on the vector lanes in fp32.
    ``bytes_read``, ``bytes_written``   B to and from device memory.
    ``workspace_bytes`` B that the textbook algorithm stores besides.
    ``scratch_bytes``   B of device memory that it takes besides operands and results, until its operator has run: the
                        copy that it makes of an operand, what a library converts into.
    ``shape``           sizes of the work, by its kind: product, convolution, attention, rows, loop, ...
    ``access``          how it walks memory, a rate class of the time model: elementwise, strided, cat, ...
    ``elements``        elements put out.
    ``count``           starts of the device that it stands for (an LSTM layer steps through time).
    ``inside``          whether it runs inside the call of another kernel of its operator, and starts nothing itself.
    ``op``              the operator that it serves.
    ``caller``          who calls it, which decides what a call takes on a CPU: "python", as an operator of its own, the
                        "wrapper" of generated code, as a library's, or a "loop" of generated code.
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
    scratch_bytes: int = 0
    shape: Shape = LOOP
    access: str = "elementwise"
    elements: int = 0
    count: int = 1
    inside: bool = False
    caller: str = "python"
    alone: bool = False

    @property
    def starts(self) -> int:
        """Starts that its operator pays for: none where it runs inside another kernel's call."""
        return 0 if self.inside else self.count

    @property
    def bytes(self) -> int:
        """All traffic to and from device memory, in B."""
        return self.bytes_read + self.bytes_written


class Read(NamedTuple):
    """What a launch reads of a storage: the tensor that a spec of the graph describes."""

    storage: int
    spec: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a kernel: which kernel of the plan, and the nodes of the graph that it serves.

    ``reads`` and ``writes`` are the storages that it touches, numbered as in ``KernelPlan.storage_bytes``. Several
    kernels that one operator starts all name what the operator reads and writes. ``held`` are those that it does not
    touch but that its caller keeps meanwhile: operands of which it reads a copy.
    """

    kernel: int
    nodes: tuple[int, ...]
    reads: tuple[Read, ...] = ()
    writes: tuple[int, ...] = ()
    held: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """Everything that runs in one step: distinct kernels, and their launches in program order."""

    kernels: tuple[Kernel, ...]
    launches: tuple[Launch, ...]
    storage_bytes: tuple[float, ...] = ()
    """B of each storage in this run: the graph's (0 for what is never stored), then those that only the run has."""
    notes: tuple[str, ...] = ()
    held: frozenset[int] = frozenset()
    """Storages of the run that live to its end, whoever touches them last."""
    gradients: dict[int, int] = field(default_factory=dict, compare=False)
    """Storage in which a gradient is made -> the copy in its parameter's dtype that becomes ``.grad``."""
    by_python: bool = False
    """Whether Python calls operator by operator, so that its variables hold what they name."""
    memo: dict[str, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    """What others have worked out from this plan and its graph alone, for the machines that share it."""

    @property
    def called(self) -> tuple[int, ...]:
        """The kernel of each launch."""
        known: tuple[int, ...] | None = self.memo.get("called")
        if known is None:
            known = self.memo["called"] = tuple([launch.kernel for launch in self.launches])
        return known

    @property
    def alike(self) -> list[int]:
        """For each kernel the first that equals it."""
        known: list[int] | None = self.memo.get("alike")
        if known is None:
            first: dict[Kernel, int] = {}
            known = self.memo["alike"] = [first.setdefault(kernel, i) for i, kernel in enumerate(self.kernels)]
        return known


def storages_of(graph: OpGraph, nodes: Iterable[int]) -> tuple[tuple[Read, ...], tuple[int, ...]]:
    """What nodes read and write, each once and in order, where each of them is launched by itself."""
    tensors = graph.tensors
    reads = dict.fromkeys(Read(tensors[t].storage, tensors[t].spec) for n in nodes for t in graph.nodes[n].inputs)
    writes = dict.fromkeys(tensors[t].storage for n in nodes for t in graph.nodes[n].outputs)
    return tuple(reads), tuple(writes)


def stored_bytes(graph: OpGraph, scale: Iterable[float]) -> tuple[float, ...]:
    """B of each storage of the graph, at ``scale`` times what was traced (fp16: 0.5)."""
    return tuple([storage.nbytes * factor for storage, factor in zip(graph.storages, scale, strict=False)])
