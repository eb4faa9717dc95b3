"""KernelRow: one launch of a step, how it runs, what it moves and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels import Kernel, KernelPlan
from costmodel.timing import Timeline
from costmodel.timing.geometry import Geometry, kernel_geometry, traffic_of

__all__ = ["KernelRow", "kernel_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """One launch. Seconds since the step began, or of the launch; bytes in B; see :class:`costmodel.timing.Slot`.

    ``name``        the node that it serves first; ``nodes`` all of them (a fused kernel serves several)
    ``op``          the operator whose kernel it is: a cast is no convolution
    ``algorithm``   how it works, as the library chooses; ``tile`` (rows, columns) of the result that a block makes;
                    ``waves`` tiles of the busiest unit; ``split_k`` parts of the reduction
    ``engine``, ``dtype``, ``accumulate``   which units multiply
    ``flops``       FLOP that it stands for: 2 per multiply-accumulate, whatever Winograd saves
    ``bytes_read``, ``bytes_written``   its traffic beyond the chip's units
    ``dram_bytes``, ``cache_bytes``   who serves it: device memory, hits in a cache; None where that is not followed
    ``loaded_bytes``  B that its tiles load and store through the shared cache; None where the model does not say
    ``starts``      starts of the device that it stands for
    """

    name: str
    nodes: tuple[str, ...]
    op: str
    module: str
    phase: str
    algorithm: str
    tile: tuple[int, int] | None
    waves: int | None
    split_k: int
    engine: str
    dtype: str
    accumulate: str
    flops: int
    matrix_flops: int
    bytes_read: int
    bytes_written: int
    dram_bytes: float | None
    cache_bytes: float | None
    loaded_bytes: float | None
    workspace_bytes: int
    starts: int
    issued_s: float
    start_s: float
    end_s: float
    waited_s: float
    busy_s: float
    compute_s: float
    memory_s: float
    launch_s: float
    latency_s: float
    share: float
    bound: str
    energy_j: float
    held_hz: float | None

    @property
    def bytes(self) -> int:
        """All traffic of the kernel."""
        return self.bytes_read + self.bytes_written

    @property
    def units(self) -> str:
        """Who multiplies, or computes, as one word: ``matrix tf32``, ``vector fp32``."""
        return f"{self.engine} {self.dtype}"

    @property
    def intensity(self) -> float | None:
        """FLOP per byte of device memory, None where nothing comes from there."""
        moved = self.bytes if self.dram_bytes is None else self.dram_bytes
        return self.flops / moved if moved else None


def kernel_rows(plan: KernelPlan, graph: OpGraph, timeline: Timeline, hardware: HardwareProfile) -> list[KernelRow]:
    """One row for each launch, in program order. Their latencies add up to that of the step."""
    whole = timeline.latency_s or 1.0

    @cache
    def geometry(kernel: Kernel) -> Geometry:
        return kernel_geometry(kernel, hardware)

    rows = []
    for launch, slot in zip(plan.launches, timeline, strict=True):
        kernel, node = plan.kernels[launch.kernel], graph.nodes[launch.nodes[0]]
        chosen, traffic = geometry(kernel), traffic_of(kernel, slot, hardware)
        rows.append(
            KernelRow(
                name=node.name,
                nodes=tuple(graph.nodes[index].name for index in launch.nodes),
                op=kernel.op,
                module=node.module,
                phase=node.phase.value,
                algorithm=chosen.algorithm,
                tile=chosen.tile,
                waves=chosen.waves,
                split_k=chosen.split_k,
                engine=kernel.engine,
                dtype=kernel.dtype,
                accumulate=kernel.accumulate,
                flops=kernel.matrix_flops + kernel.vector_flops,
                matrix_flops=kernel.matrix_flops,
                bytes_read=kernel.bytes_read,
                bytes_written=kernel.bytes_written,
                dram_bytes=traffic.dram_bytes,
                cache_bytes=traffic.cache_bytes,
                loaded_bytes=chosen.loaded_bytes,
                workspace_bytes=kernel.workspace_bytes,
                starts=kernel.starts,
                issued_s=slot.issued_s,
                start_s=slot.start_s,
                end_s=slot.end_s,
                waited_s=slot.waited_s,
                busy_s=slot.busy_s,
                compute_s=slot.compute_s,
                memory_s=slot.memory_s,
                launch_s=slot.launch_s,
                latency_s=slot.latency_s,
                share=slot.latency_s / whole,
                bound=slot.bound,
                energy_j=slot.energy_j,
                held_hz=slot.held_hz,
            )
        )
    return rows
