"""Eager steps on a CPU that ``costmodel calibrate`` has measured: every figure is this machine's own.

    time of a kernel = fixed time + FLOP / rate + bytes / bandwidth + time to walk its elements

The parts add: at batch 1 the phases of an operator (reorder, kernel, reorder) follow one another. Which kind of kernel
has which parts is in :func:`work_of`; how large they are is in the profile's ``[calibration]`` tables, measured one
operator at a time, never on a model.

The fixed time of an operator inside a model is not that of a hot loop: the operators around it push its code,
descriptors and tables out of the caches, the more so the more bytes they move. Calibration measures fixed times in a
loop and in rounds over operators of ever more bytes; a step lies where its operators' mean number of bytes puts it.
Views start no kernel, but the host spends time on each: it falls on the next launch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from costmodel.formulas import is_free
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.hardware.calibration import Calibration, KernelTime
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.kernels.shapes import Attention, Pooling, Product, product_of
from costmodel.memory import SmallBlocks, occupancy
from costmodel.timing.timeline import KernelSeconds

__all__ = ["Work", "calibrated_step_times", "find_kind", "kernel_seconds", "kind_of", "work_of"]

#: A result above glibc's largest mmap threshold comes from the system anew in every step [B].
MMAP_THRESHOLD_BYTES = 32 * 2**20
PAGE_BYTES = 4096
#: Free memory at the end of the heap above which glibc hands it back: twice the largest mmap threshold [B]. What a
#: step's peak takes beyond it is faulted in anew by the next step.
TRIM_THRESHOLD_BYTES = 2 * MMAP_THRESHOLD_BYTES
#: Rows up to which a matrix product only reads its weights.
FEW_ROWS = 4

_CONVOLUTIONS: Mapping[str, str] = {
    "gemm": "conv_1x1",
    "implicit_gemm": "conv_kxk",
    "grouped_implicit_gemm": "conv_grouped",
    "im2col_gemm": "conv_im2col",
    "direct_depthwise": "conv_depthwise",
}
_REORDERS = ("reorder_activations", "reorder_weights")
#: What a kind without a measurement takes the figures of, by algorithm: one that walks memory alike.
_ELSEWHERE: Mapping[str, str] = {
    "elementwise": "mul",
    "strided_elementwise": "add",
    "copy": "clone",
    "strided_copy": "clone",
    "reduction": "mean",
    "normalization": "group_norm",
    "pool": "avg_pool2d",
    "resample": "upsample_nearest2d",
}
#: Operators that do the same work under several names.
_SAME: Mapping[str, str] = {
    "sub": "add", "rsub": "add", "div": "mul", "exp": "sigmoid", "mish": "tanh", "erf": "tanh", "stack": "cat",
    "sum": "mean", "amax": "mean", "max": "mean", "var": "mean", "var_mean": "mean", "elu": "silu", "relu6": "hardtanh",
    "clamp": "hardtanh", "log_softmax": "softmax", "safe_softmax": "softmax", "copy": "clone", "contiguous": "clone",
    "adaptive_max_pool2d": "adaptive_avg_pool2d", "upsample_bilinear2d": "upsample_nearest2d", "softplus": "tanh",
    "quick_gelu": "sigmoid",
}  # fmt: skip


def kind_of(kernel: Kernel, *, in_place: bool = False) -> str:
    """The name under which a calibration holds a kernel's figures.

    >>> kind_of(Kernel("aten.relu", "elementwise"), in_place=True)
    'relu_in_place'
    >>> kind_of(Kernel("aten.mul", "elementwise", access="broadcast_rows"))
    'mul_broadcast_rows'
    >>> kind_of(Kernel("aten.conv2d", "direct_depthwise", access="channels_last"))
    'conv_depthwise_channels_last'
    """
    suffix = "" if kernel.access == "elementwise" else f"_{kernel.access}"
    name = kernel.op.rpartition(".")[2].removeprefix("native_").strip("_")
    if kernel.algorithm in _REORDERS:
        return kernel.algorithm + suffix
    if "conv" in name and kernel.algorithm in _CONVOLUTIONS:
        return _CONVOLUTIONS[kernel.algorithm] + suffix
    if kernel.algorithm == "gemm":
        product = product_of(kernel.shape)
        return "linear" if product is None or product.m > FEW_ROWS else "linear_few_rows"
    if kernel.algorithm == "batched_gemm":
        return "matmul"
    if kernel.algorithm == "flash_attention":
        return "attention"
    if kernel.algorithm == "strided_copy":
        return "clone" + (suffix or "_strided")  # copies of all operators alike
    return f"{name}{'_in_place' if in_place else ''}{suffix}"


class Work(NamedTuple):
    """What the time of a kernel is made of."""

    starts: int
    flops: int = 0
    activation_bytes: int = 0
    weight_bytes: int = 0
    elements: int = 0
    matrices: int = 0
    faulted_bytes: int = 0


def work_of(kernel: Kernel) -> Work:
    """The parts of a kernel's time that its size decides; the same at calibration and at prediction."""
    faulted = kernel.bytes_written if kernel.bytes_written > MMAP_THRESHOLD_BYTES else 0
    start, shape = kernel.starts, kernel.shape
    if kernel.algorithm == "reorder_weights":
        return Work(start, weight_bytes=kernel.bytes, faulted_bytes=faulted)
    if kernel.algorithm == "reorder_activations":
        return Work(start, activation_bytes=kernel.bytes, faulted_bytes=faulted)
    if "conv" in kernel.op and kernel.matrix_flops:
        own = kernel.bytes if kernel.access == "channels_last" else 0  # else the reorders around it carry them
        return Work(start, kernel.matrix_flops, own, faulted_bytes=faulted)
    if kernel.algorithm == "gemm" and isinstance(shape, Product):
        weights = min(shape.weight_bytes, kernel.bytes_read)
        if shape.m <= FEW_ROWS:
            return Work(start, weight_bytes=weights, faulted_bytes=faulted)
        return Work(start, kernel.matrix_flops, kernel.bytes - weights, weights, faulted_bytes=faulted)
    if isinstance(shape, Attention):
        scores = shape.queries * shape.keys * shape.heads
        return Work(start, kernel.matrix_flops, elements=scores, matrices=shape.heads, faulted_bytes=faulted)
    if kernel.matrix_flops:
        product = product_of(shape)
        matrices = 1 if product is None else product.batch
        return Work(start, kernel.matrix_flops, kernel.bytes, matrices=matrices, faulted_bytes=faulted)
    return Work(start, elements=_walked(kernel), faulted_bytes=faulted)


def _walked(kernel: Kernel) -> int:
    """Elements that a kernel walks: those under its windows, those it reduces, or those it puts out."""
    if isinstance(kernel.shape, Pooling):
        return kernel.elements * kernel.shape.taps
    if kernel.algorithm in ("pool", "reduction"):
        return max(kernel.bytes_read // 4, kernel.elements)
    return kernel.elements


def find_kind(kernel: Kernel, calibration: Calibration, *, in_place: bool = False) -> str:
    """The kind whose figures serve a kernel: its own, or that of the nearest relative that was measured.

    Raises KeyError where nothing like it was measured.
    """
    for candidate in _candidates(kernel, in_place):
        if candidate in calibration.kernels:
            return candidate
    raise KeyError(kind_of(kernel, in_place=in_place))


def _candidates(kernel: Kernel, in_place: bool) -> Iterable[str]:
    own = kind_of(kernel, in_place=in_place)
    name = kernel.op.rpartition(".")[2].removeprefix("native_").strip("_")
    alike = _ELSEWHERE.get(kernel.algorithm, "add")
    suffix = "" if kernel.access == "elementwise" else f"_{kernel.access}"
    words = dict.fromkeys((own, own.replace(name, _SAME.get(name, name), 1)))
    for word in words:
        yield word
        yield word.replace("_in_place", "")
    if suffix:  # how memory is walked matters more than what is computed on the way
        yield alike + suffix
    for word in words:
        yield word.replace("_in_place", "").removesuffix(suffix)
    yield alike
    yield "add"


def kernel_seconds(kernel: Kernel, time: KernelTime, machine: HardwareProfile, cold_share: float) -> KernelSeconds:
    """Seconds of one kernel by the figures of its kind; all parts add."""
    work, calibration = work_of(kernel), machine.calibration
    compute = work.flops / time.flop_per_s if time.flop_per_s else 0.0
    memory = work.activation_bytes / time.activation_bytes_per_s if time.activation_bytes_per_s else 0.0
    memory += work.weight_bytes / time.weight_bytes_per_s if time.weight_bytes_per_s else 0.0
    compute += work.matrices * time.matrix_s
    walked = time.elements_s(work.elements)
    streamed = min(walked, kernel.bytes / (machine.dram_bytes_per_s * machine.achievable_dram_fraction))
    if calibration is not None:
        memory += work.faulted_bytes / PAGE_BYTES * calibration.page_fault_s
    return KernelSeconds(compute + walked - streamed, memory + streamed, time.fixed_s(cold_share) * work.starts, 1.0)


def calibrated_step_times(plan: KernelPlan, graph: OpGraph, hardware: HardwareProfile) -> list[KernelSeconds]:
    """For each launch of an eager step, the parts of its kernel's time.

    Raises KeyError where the calibration lacks a kind of kernel and all its relatives.
    """
    calibration = hardware.calibration
    assert calibration is not None, "only for calibrated profiles"  # noqa: S101 - for the type checker
    nbytes = sum(plan.kernels[launch.kernel].bytes for launch in plan.launches)
    starts = sum(plan.kernels[launch.kernel].starts for launch in plan.launches)
    share = calibration.cold_share_at(nbytes / max(starts, 1))
    known: dict[tuple[int, bool], KernelSeconds] = {}
    times = []
    for launch in plan.launches:
        key = (launch.kernel, graph.nodes[launch.nodes[-1]].in_place)
        if key not in known:
            kernel = plan.kernels[launch.kernel]
            kind = find_kind(kernel, calibration, in_place=key[1])
            known[key] = kernel_seconds(kernel, calibration.kernels[kind], hardware, share)
        times.append(known[key])
    return _with_heap_growth(_with_views(times, plan, graph, calibration, share), plan, graph, calibration)


def _with_views(
    times: list[KernelSeconds], plan: KernelPlan, graph: OpGraph, calibration: Calibration, share: float
) -> list[KernelSeconds]:
    """Host time of the views ahead of each launch, added to its fixed time; views at the end fall on the last."""
    view = calibration.kernels.get("view")
    if view is None or not times:
        return times
    is_view = [is_free(node.op) for node in graph.nodes]
    found, last = list(times), 0
    for index, launch in enumerate(plan.launches):
        end = launch.nodes[-1] if index + 1 < len(plan.launches) else len(graph.nodes)
        ahead = sum(is_view[last:end]) if end > last else 0
        found[index] = found[index]._replace(fixed_s=found[index].fixed_s + view.fixed_s(share) * ahead)
        last = max(last, end)
    return found


def _with_heap_growth(
    times: list[KernelSeconds], plan: KernelPlan, graph: OpGraph, calibration: Calibration
) -> list[KernelSeconds]:
    """Page faults of a heap that is handed back between steps, on the launches that make it grow."""
    growth = heap_growth(plan, graph)
    if sum(growth) <= TRIM_THRESHOLD_BYTES or not calibration.page_fault_s:
        return times
    fault_s = calibration.page_fault_s / PAGE_BYTES
    return [t._replace(memory_s=t.memory_s + more * fault_s) for t, more in zip(times, growth, strict=True)]


def heap_growth(plan: KernelPlan, graph: OpGraph) -> list[float]:
    """For each launch, by how many bytes it raises the most that a step has held so far in blocks below the threshold.

    What an operator's own reorders and copies are written to lives until its last launch.
    """
    growth: list[float] = []
    highest = scratch = 0.0
    node = -1
    for launch, alive in zip(plan.launches, occupancy(plan, graph, SmallBlocks(MMAP_THRESHOLD_BYTES)), strict=True):
        kernel = plan.kernels[launch.kernel]
        if launch.nodes[-1] != node:
            node, scratch = launch.nodes[-1], 0.0
        if kernel.algorithm in (*_REORDERS, "strided_copy") and kernel.bytes_written <= MMAP_THRESHOLD_BYTES:
            scratch += kernel.bytes_written
        growth.append(max(alive + scratch - highest, 0.0))
        highest += growth[-1]
    return growth
