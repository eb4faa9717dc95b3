"""Footprint: the memory of a step, from the bytes of its tensors to what the whole process takes of a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from costmodel.execution import Execution, NodePhase, Precision
from costmodel.execution.precision import torch_dtype
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.packed_layers import kept_bytes
from costmodel.kernels.plan import KernelPlan
from costmodel.kernels.shapes import Product
from costmodel.memory.allocator import Allocator, ExactBytes
from costmodel.memory.caching import rounded
from costmodel.memory.liveness import caches, occupancy
from costmodel.memory.machine import Range, blas_workspace_bytes, context_bytes, usable_bytes
from costmodel.memory.moment import Moment, moment_of
from costmodel.memory.resident import resident
from costmodel.memory.simulated import Simulated, after_steps, course
from costmodel.memory.verdict import Verdict, verdict_of
from costmodel.tensor import ITEMSIZE_BYTES, Role

__all__ = ["Footprint", "footprint", "run_bytes"]

_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory of a step in B.

    Three figures, each holding the one before it:

    ``peak_bytes``       the tensors that are alive at once, each by its own bytes
    ``allocated_bytes``  what the device's allocator has handed out: their blocks, workspaces and copies that operators
                         make for themselves; ``torch.cuda.max_memory_allocated()``
    ``reserved_bytes``   what the allocator holds of the device to do so, in a steady state;
                         ``torch.cuda.max_memory_reserved()``
    ``process_bytes``    that and the context and libraries: what ``nvidia-smi`` shows

    ``constant_bytes`` are tensors that the module holds beside parameters and buffers, as plain attributes;
    ``state_bytes`` the optimizer's. ``activation_bytes`` is the most that the step itself makes (gradients too) and
    holds at once, with the keys and values that it finds, ``peak_launch`` the launch during which it does; None where
    nothing is launched.
    """

    parameter_bytes: int
    buffer_bytes: int
    input_bytes: float
    constant_bytes: float
    state_bytes: float
    activation_bytes: float
    peak_launch: int | None
    plan: KernelPlan = field(repr=False, compare=False)
    graph: OpGraph = field(repr=False, compare=False)
    hardware: HardwareProfile | None = field(default=None, repr=False, compare=False)
    execution: Execution = field(default_factory=Execution, repr=False, compare=False)

    @property
    def peak_bytes(self) -> int:
        """What lies there throughout and the most made by the step, by the tensors' own bytes."""
        return int(self._resident_bytes + self.activation_bytes)

    @property
    def _resident_bytes(self) -> float:
        return self.parameter_bytes + self.buffer_bytes + self.input_bytes + self.constant_bytes + self.state_bytes

    # -- the allocator ---------------------------------------------------------------------------

    @cached_property
    def has_blocks(self) -> bool:
        """Whether PyTorch's caching allocator hands out this memory: that of a GPU."""
        return self.hardware is not None and not self.hardware.is_cpu

    @cached_property
    def library_bytes(self) -> int:
        """B that libraries keep beside the tensors."""
        return sum(self.library_blocks)

    @cached_property
    def library_blocks(self) -> tuple[int, ...]:
        """Blocks [B] that libraries keep: cuBLAS for its handles, of each thread that issues products (one, and
        autograd's in training); ExLlama for weights that it writes out wide."""
        if self.hardware is None:
            return ()
        handles = self._kept("threads with products", self._product_threads) * blas_workspace_bytes(self.hardware)
        wide = self._kept("wide weights", lambda: kept_bytes(self.graph)) if self.has_blocks else 0
        return tuple(nbytes for nbytes in (wide, handles) if nbytes)

    def _product_threads(self) -> int:
        kernels, nodes = self.plan.kernels, self.graph.nodes
        products = {i for i, kernel in enumerate(kernels) if isinstance(kernel.shape, Product)}
        launches = (launch for launch in self.plan.launches if launch.kernel in products) if products else ()
        return len({nodes[launch.nodes[0]].phase is NodePhase.BACKWARD for launch in launches})

    def _kept(self, name: str, find: Callable[[], _Found]) -> _Found:
        """What the plan and its graph alone decide: found once for the machines that share the plan."""
        memo = self.plan.memo
        if name not in memo:
            memo[name] = find()
        found: _Found = memo[name]
        return found

    @cached_property
    def _allocated(self) -> tuple[float, int | None]:
        """(the most allocated [B], during which launch)."""
        if not self.has_blocks:
            return self.peak_bytes, self.peak_launch
        return self._kept(f"handed out beside {self.library_bytes} B", self._handed_out)

    def _handed_out(self) -> tuple[int, int | None]:
        taken = course(self)
        when = max(range(len(taken)), key=taken.__getitem__, default=None)
        return sum(rounded(one.nbytes) for one in resident(self)) if when is None else taken[when], when

    @property
    def course(self) -> list[int]:
        """B handed out during each launch, with what lies there throughout: in blocks of the allocator where there is
        one."""
        if self.has_blocks:
            return course(self)
        throughout = int(self._resident_bytes)
        return [throughout + int(taken) for taken in occupancy(self.plan, self.graph, ExactBytes())]

    @property
    def certain_bytes(self) -> float:
        """Of what lies in memory throughout, which is known to the byte."""
        return self._resident_bytes

    @property
    def allocated_bytes(self) -> int:
        """The most that the allocator has handed out at once."""
        return int(self._allocated[0])

    @cached_property
    def reserved_bytes(self) -> int:
        """What the caching allocator holds of the device at most. Simulated when first asked for.

        Where the device has no room for all that it would cache, it is what it holds once it has given back what it
        can; where not even that is enough, what it would hold on a larger device.
        """
        if not self.has_blocks:
            return self.allocated_bytes
        return int(self._limited.reserved_bytes if self.short_bytes <= 0 else self._unlimited.reserved_bytes)

    @property
    def short_bytes(self) -> float:
        """B that the device lacks by the best estimate, 0 where the step fits or nobody knows."""
        if self.usable_bytes is None:
            return 0.0
        if not self.has_blocks:
            return max(0.0, -self._spare(self.allocated_bytes))
        return self._limited.short_bytes

    @property
    def spare_bytes(self) -> float:
        """B that are left over by the best estimate; below 0 where the step does not fit."""
        return self._spare(self.reserved_bytes) if self.short_bytes <= 0 else -self.short_bytes

    def _spare(self, nbytes: float) -> float:
        have = self.usable_bytes
        return math.inf if have is None else have.usual - self.context_bytes.usual - nbytes

    @cached_property
    def _limited(self) -> Simulated:
        """The allocator after some steps on a device of this memory; on one with room for all that it would cache it
        is as on any larger one."""
        limit = self._spare(0)
        return self._unlimited if self._unlimited.reserved_bytes <= limit else after_steps(self, limit)

    @property
    def _unlimited(self) -> Simulated:
        return self._kept(f"reserved beside {self.library_bytes} B", lambda: after_steps(self, None))

    # -- the process -----------------------------------------------------------------------------

    @cached_property
    def context_bytes(self) -> Range:
        """B that the process takes besides the allocator's."""
        if self.hardware is None:
            return Range(0, 0, 0)
        return context_bytes(self.hardware, self.execution.software)

    @property
    def process_bytes(self) -> int:
        """B of the device that the process takes."""
        return int(self.reserved_bytes + self.context_bytes.usual)

    @cached_property
    def usable_bytes(self) -> Range | None:
        """B that a process can have of this machine; None where nobody knows."""
        return None if self.hardware is None else usable_bytes(self.hardware)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the step fits the machine."""
        return verdict_of(self)

    @cached_property
    def fits(self) -> bool | None:
        """Whether the step fits the machine, by the best estimate; None where nobody knows the machine's memory.

        A step that takes less than half of the memory, or more than all of it, needs no simulation of what the
        allocator holds besides, in fragments.
        """
        if self.usable_bytes is None:
            return None
        if 2 * self.allocated_bytes + self.context_bytes.high <= self.usable_bytes.low:
            return True
        return self._spare(self.allocated_bytes) >= 0 and self.verdict.fits

    # -- what lies there -------------------------------------------------------------------------

    @cached_property
    def moment(self) -> Moment:
        """When the most is allocated, and what it is then."""
        return moment_of(self, self._allocated[1])


def footprint(
    plan: KernelPlan,
    graph: OpGraph,
    execution: Execution,
    hardware: HardwareProfile | None = None,
    allocator: Allocator | None = None,
) -> Footprint:
    """The memory of one step of ``plan`` on ``hardware``; without one there is no allocator and no process.

    ``allocator`` (default: :class:`ExactBytes`) hands out what the step makes.
    """
    figures: dict[str, Any] | None = plan.memo.get("footprint") if allocator is None else None
    if figures is None:
        figures = _figures(plan, graph, execution.precision, ExactBytes() if allocator is None else allocator)
        plan.memo.update({"footprint": figures} if allocator is None else {})  # for machines that share the plan
    return Footprint(**figures, plan=plan, graph=graph, hardware=hardware, execution=execution)


def _figures(plan: KernelPlan, graph: OpGraph, precision: Precision, allocator: Allocator) -> dict[str, Any]:
    """The figures of a footprint that no machine changes."""
    taken, there = occupancy(plan, graph, allocator), caches(graph)
    peak = max(range(len(taken)), key=taken.__getitem__, default=None)

    def brought(role: Role) -> float:
        storages = {t.storage for t in graph.tensors if t.producer is None and graph.storages[t.storage].role is role}
        return sum(plan.storage_bytes[storage] for storage in storages)

    return {
        "parameter_bytes": run_bytes(graph.parameter_bytes_of, precision, graph.own_dtype),
        "buffer_bytes": run_bytes(graph.buffer_bytes_of, precision, graph.own_dtype),
        "input_bytes": sum(plan.storage_bytes[s] for s in {graph.tensors[t].storage for t in graph.inputs} - there),
        "constant_bytes": brought(Role.CONSTANT),
        "state_bytes": brought(Role.STATE),
        "activation_bytes": 0.0 if peak is None else taken[peak],
        "peak_launch": peak,
    }


def run_bytes(by_dtype: Mapping[str, int], precision: Precision, own: str = "float32") -> int:
    """B in a run of what takes ``by_dtype`` [B, by dtype] as the module has it.

    ``model.to(dtype)`` moves what is of the module's ``own`` dtype; what it keeps in another one stays there.

    >>> run_bytes({"float32": 400, "bfloat16": 10, "int64": 8}, Precision.of("bf16"))
    218
    >>> run_bytes({"float32": 400, "bfloat16": 10}, Precision.of("fp32"), own="bfloat16")
    420
    """
    new, old = ITEMSIZE_BYTES[torch_dtype(precision.weights)], ITEMSIZE_BYTES[own]
    return sum(n * new // old if dtype == own else n for dtype, n in by_dtype.items())
