"""Time of one kernel, and of one step, on a CPU: fixed time + FLOP over a rate + bytes over a bandwidth.

At batch 1 the phases of an operator follow one another (reorder, kernel, reorder) and each ends in a join of
all threads, so times add. Three effects beyond a roofline carry most of the weight: an operator inside a model
finds its code and tables pushed out of the caches; weights come from DRAM in every step unless the whole step
fits in the caches; activations, just written, mostly come from the caches.

Median / 90th percentile of the error on 761 of timm's compiled models (i9-10940X, batch 1, fp32, all families but
VGG): 7.9 / 22.6 %. The constants were rounded by hand from fits to 635 of these; with twelve of them refitted while
whole families were left out, the families left out err by 7.4 / 21.0 % (their starting values and the cycles of
loops in ``engines/inductor/cpu.py`` had seen all families). The VGG models err by 4 % at the median.

Every constant has a meaning, a unit and an origin in :class:`CpuConstants`. Shares are of the machine's own
figures, so a machine known by its datasheet alone has them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from costmodel.graph import OpGraph
from costmodel.hardware import CoreGroup, HardwareProfile
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.kernels.shapes import Columns, Loop, Pooling, Product, product_of
from costmodel.timing.constants import CONSTANTS, Constants
from costmodel.timing.cpu_calibrated import calibrated_step_times
from costmodel.timing.cpu_clock import at_package_clock
from costmodel.timing.cpu_constants import COLD_S, ELEMENTS_PER_S, CpuConstants, of_measured_peak
from costmodel.timing.timeline import KernelSeconds, Timeline

__all__ = ["CpuMachine", "cpu_kernel_time", "cpu_step_times", "cpu_timeline",
           "of_measured_peak"]  # fmt: skip

#: Standard deviation of a step's time over the prediction [1]: timm's compiled models on one machine scatter by about
#: this, and so do repeated measurements on a shared guest (90th percentile 15 to 26 %).
SPREAD = 0.17
#: The same of LAPACK's calls, whose rate depends on which LAPACK it is and on how many of its cores it keeps busy.
FACTORIZATION_SPREAD = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuMachine:
    """The figures of a CPU that the time of kernels reads; all stand in a datasheet.

    ``groups`` are its cores by kind; work is taken to be spread over all of them, at the peak of all.
    ``clock_share`` is the clock under a package limit that was asked for, over the one that the peaks are stated for.
    """

    groups: tuple[CoreGroup, ...]
    vector_flop_per_s: float  # fp32, all cores: 2 pipes x lanes x 2 FLOP a cycle
    dram_bytes_per_s: float  # achievable
    cache_bytes: float  # all private L2 and the shared L3
    last_level_bytes: float  # L3, or all L2 where there is none
    clock_share: float = 1.0

    @classmethod
    def from_profile(cls, profile: HardwareProfile) -> CpuMachine:
        """The machine of a hardware profile. Raises ProfileError where it has no fp32 vector peak."""
        sizes = {}
        for level in profile.memory:
            if level.name in ("l2", "l3") and level.capacity_bytes:
                sizes[level.name] = level.capacity_bytes * (profile.unit_count if level.per_unit else 1)
        return cls(
            groups=profile.cores,
            vector_flop_per_s=profile.peak("vector", "fp32").flop_per_s * _clock_share(profile),
            dram_bytes_per_s=profile.dram_bytes_per_s * profile.achievable_dram_fraction,
            cache_bytes=sum(sizes.values()) or 1.0,
            last_level_bytes=sizes.get("l3") or sizes.get("l2") or 1.0,
            clock_share=_clock_share(profile),
        )

    @property
    def cores(self) -> int:
        """Cores of all kinds."""
        return sum(group.count for group in self.groups)

    def missing(self, working_set: float) -> float:
        """Share of a working set [B], walked again and again, that the caches do not hold.

        >>> machine = CpuMachine(groups=(), vector_flop_per_s=1e11, dram_bytes_per_s=2e10, cache_bytes=100.0,
        ...                      last_level_bytes=80.0)
        >>> machine.missing(50), machine.missing(100), machine.missing(200)
        (0.0, 0.5, 1.0)
        """
        return min(1.0, max(0.0, working_set / self.cache_bytes - 0.5))

    def memory_s(self, nbytes: float, missing: float, constants: CpuConstants) -> float:
        """Seconds to move ``nbytes``, of which the share ``missing`` comes from or goes to DRAM."""
        return nbytes / self.dram_bytes_per_s * (missing + (1 - missing) / constants.cache_speedup)


def _clock_share(profile: HardwareProfile) -> float:
    """Peaks are stated at the clock that the package holds within its own limit; below, power goes with the cube of the
    clock, since the voltage falls with it."""
    if profile.power_w is None or profile.power_limit_w is None:
        return 1.0
    share: float = (profile.power_limit_w / profile.power_w) ** (1 / 3)
    return share


@lru_cache(maxsize=64)
def cpu_machine(hardware: HardwareProfile) -> CpuMachine:
    """The figures that the rules read, derived once for each profile."""
    return CpuMachine.from_profile(hardware)


@dataclass(frozen=True, slots=True)
class _Context:
    """What a rule needs beside the kernel."""

    machine: CpuMachine
    hardware: HardwareProfile
    constants: CpuConstants
    weights_missing: float  # share of the weights that DRAM serves

    def compute_s(self, kernel: Kernel, share: float) -> float:
        """Seconds of a contraction at this share of the peak of its units."""
        peak = self.hardware.find_peak(kernel.engine, kernel.dtype, kernel.accumulate)
        share /= self.constants.peak_share
        machine = self.machine
        return kernel.matrix_flops / (
            share * (peak.flop_per_s * machine.clock_share if peak else machine.vector_flop_per_s)
        )

    def activations_s(self, nbytes: float) -> float:
        """Seconds to move activations: from the caches as far as the kernel's own fit there."""
        return self.machine.memory_s(nbytes, self.machine.missing(nbytes), self.constants)


def cpu_kernel_time(
    kernel: Kernel, hardware: HardwareProfile, constants: Constants = CONSTANTS, *, weights_missing: float = 1.0
) -> KernelSeconds:
    """Seconds of ``kernel``; its parts add, but for convolutions and loops, whose arithmetic hides cached traffic.

    ``weights_missing`` is the share of the weights that DRAM must serve: 1 unless a whole step fits in the caches.
    Raises ProfileError where the profile has no fp32 vector peak.
    """
    return _kernel_time(kernel, _Context(cpu_machine(hardware), hardware, constants.cpu, weights_missing))


def _kernel_time(kernel: Kernel, context: _Context) -> KernelSeconds:
    return _with_page_faults(_RULES.get(kernel.algorithm, _plain)(kernel, context), kernel, context)


def _with_page_faults(part: KernelSeconds, kernel: Kernel, context: _Context) -> KernelSeconds:
    """Page faults of a large result stall the threads: they add to the longer of arithmetic and traffic."""
    c = context.constants
    if kernel.bytes_written <= c.mmap_threshold_bytes:
        return part
    faults = kernel.bytes_written / c.page_bytes * c.page_fault_s / context.machine.cores
    visible = part.seconds() - part.fixed_s - part.compute_s
    return KernelSeconds(part.compute_s, visible + faults, part.fixed_s, 1.0)


def _fixed_s(kernel: Kernel, constants: CpuConstants) -> float:
    """Fixed time of all starts of a kernel; 0 for a reorder, which lies inside the call of its convolution."""
    return _CALL_S[kernel.caller](kernel, constants) * kernel.starts if kernel.starts else 0.0


def _operator_s(kernel: Kernel, constants: CpuConstants) -> float:
    return COLD_S.get(_kind(kernel), COLD_S["other"])


def _wrapper_call_s(kernel: Kernel, constants: CpuConstants) -> float:
    heavy = _kind(kernel) in ("convolution", "depthwise")
    return constants.compiled_convolution_s if heavy else constants.compiled_product_s


def _loop_call_s(kernel: Kernel, constants: CpuConstants) -> float:
    return constants.loop_s


#: Fixed time of one start, its code cold, by who calls the kernel [s].
_CALL_S: Mapping[str, Callable[[Kernel, CpuConstants], float]] = MappingProxyType(
    {"python": _operator_s, "wrapper": _wrapper_call_s, "loop": _loop_call_s}
)
#: Vector instructions of fp64 over those of fp32: half the lanes.
_DOUBLE_LANES = 2.0
#: Callers whose fixed time shrinks where a step is so small that its code stays warm; the others' was found in models.
_WARMS_UP = frozenset({"python"})


def _kind(kernel: Kernel) -> str:
    """The row of :data:`COLD_S` that a kernel falls under."""
    name = kernel.op.rpartition(".")[2]
    if "conv" in name:
        return "depthwise" if kernel.algorithm == "direct_depthwise" else "convolution"
    if kernel.algorithm == "flash_attention":
        return "attention"
    if kernel.algorithm in ("gemm", "batched_gemm"):
        return "product" if kernel.algorithm == "gemm" else "bmm"
    if kernel.algorithm in COLD_S:
        return kernel.algorithm
    return name.removeprefix("native_").removeprefix("_")


def _convolution(kernel: Kernel, context: _Context) -> KernelSeconds:
    c = context.constants
    share = {
        "gemm": context.hardware.cpu.convolutions.pointwise_share,
        "implicit_gemm": context.hardware.cpu.convolutions.window_share,
        "grouped_implicit_gemm": c.grouped_share,
        "im2col_gemm": c.im2col_share,
    }.get(kernel.algorithm, c.depthwise_share)
    product = product_of(kernel.shape)
    large = kernel.algorithm == "direct_depthwise" and product is not None and product.k >= 49
    if large and kernel.caller == "wrapper":
        share = c.compiled_depthwise_large_share
    return KernelSeconds(context.compute_s(kernel, share), context.activations_s(kernel.bytes), _fixed_s(kernel, c))


def _weights(kernel: Kernel, context: _Context) -> KernelSeconds:
    """A copy of weights in another order."""
    c, machine = context.constants, context.machine
    share = c.reorder_share if kernel.algorithm == "reorder_weights" else c.copy_share
    return KernelSeconds(0.0, machine.memory_s(kernel.bytes, context.weights_missing, c) / share, 0.0)


def _matrix_product(kernel: Kernel, context: _Context) -> KernelSeconds:
    """Arithmetic, weights from memory and activations one after another."""
    if "conv" in kernel.op:
        return _convolution(kernel, context)
    c, machine = context.constants, context.machine
    product = product_of(kernel.shape) or Product(1, 0, 0)
    m = product.m
    stored = min(product.weight_bytes, kernel.bytes_read) if kernel.algorithm == "gemm" else 0
    share = c.vector_weight_share if m <= 4 else c.weight_share
    memory = machine.memory_s(stored, context.weights_missing, c) / share
    memory += context.activations_s(kernel.bytes - stored) / c.pack_share
    compute = context.compute_s(kernel, c.gemm_share if kernel.algorithm == "gemm" else c.batched_share)
    return KernelSeconds(0.0 if m <= 4 else compute, memory, _fixed_s(kernel, c), 1.0)


def _attention(kernel: Kernel, context: _Context) -> KernelSeconds:
    compute = context.compute_s(kernel, context.constants.attention_share)
    return KernelSeconds(compute, context.activations_s(kernel.bytes), _fixed_s(kernel, context.constants), 1.0)


def _loop(kernel: Kernel, context: _Context) -> KernelSeconds:
    """A fused C++ loop: vector instructions, or cached traffic if that takes longer."""
    c, machine = context.constants, context.machine
    assert isinstance(kernel.shape, Loop)  # noqa: S101 - generated code is nothing else
    compute = kernel.shape.lane_cycles / (c.instructions_per_cycle * machine.vector_flop_per_s / 4)
    compute += kernel.shape.window_reads / (c.pool_elements_per_s * machine.cores)
    return KernelSeconds(compute, context.activations_s(kernel.bytes), _fixed_s(kernel, c))


def _plain(kernel: Kernel, context: _Context) -> KernelSeconds:
    """An eager operator of its own: traffic, and elements at the rate of its kind."""
    rate = next((ELEMENTS_PER_S[k] for k in (kernel.algorithm, _kind(kernel)) if k in ELEMENTS_PER_S), 0.0)
    elements = kernel.elements * (kernel.shape.taps if isinstance(kernel.shape, Pooling) else 1)
    compute = elements / (rate * context.machine.cores) if rate else 0.0
    if kernel.dtype == "fp64" and not kernel.matrix_flops:
        compute *= _DOUBLE_LANES
    if kernel.matrix_flops:
        compute += context.compute_s(kernel, context.constants.batched_share)
    return KernelSeconds(compute, context.activations_s(kernel.bytes), _fixed_s(kernel, context.constants))


def _factorization(kernel: Kernel, context: _Context) -> KernelSeconds:
    """LAPACK: matrices one after the other, their columns too; arithmetic at a low share of the peak of all cores."""
    c, shape = context.constants, kernel.shape
    peak = context.hardware.find_peak("vector", kernel.dtype)
    rate = peak.flop_per_s * context.machine.clock_share if peak else context.machine.vector_flop_per_s
    compute = kernel.vector_flops / (c.factorization_share / c.peak_share * rate)
    steps = shape.steps * shape.matrices if isinstance(shape, Columns) else 0
    compute += steps * c.factorization_column_s
    return KernelSeconds(compute, context.activations_s(kernel.bytes), _fixed_s(kernel, c), 1.0)


def _reorder(kernel: Kernel, context: _Context) -> KernelSeconds:
    return KernelSeconds(0.0, context.activations_s(kernel.bytes) / context.constants.reorder_activations_share, 0.0)


_RULES: Mapping[str, Callable[[Kernel, _Context], KernelSeconds]] = MappingProxyType(
    {
        **dict.fromkeys(("implicit_gemm", "grouped_implicit_gemm", "im2col_gemm", "direct_depthwise"), _convolution),
        **dict.fromkeys(("reorder_weights", "copy_weights"), _weights),
        **dict.fromkeys(("gemm", "batched_gemm"), _matrix_product),
        "reorder_activations": _reorder,
        "flash_attention": _attention,
        "factorization": _factorization,
        **dict.fromkeys(("fused_loop", "fused_pool"), _loop),
    }
)


def cpu_step_times(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float] = (),
    constants: Constants = CONSTANTS,
) -> list[KernelSeconds]:
    """For each launch, the parts of its kernel's time; what it waits until it is issued counts as fixed.

    ``issued`` are seconds since the step began, one a launch; empty: nothing waits. A calibration holds the times of
    eager operators, so it serves a step that consists of them.

    Raises ProfileError where the profile has no fp32 vector peak.
    """
    c = constants.cpu
    if hardware.calibration is not None:
        if all(kernel.caller == "python" for kernel in plan.kernels):
            return _issued(calibrated_step_times(plan, graph, hardware), issued)
        c = of_measured_peak(c)
    machine = cpu_machine(hardware)
    touched = sum(plan.kernels[launch.kernel].bytes for launch in plan.launches)
    missing = machine.missing(min(touched, graph.parameter_bytes + machine.cache_bytes / 4))
    cold = min(1.0, touched / (c.cold_from * machine.last_level_bytes))
    warm = c.hot_share + (1 - c.hot_share) * cold
    parts, context = [], _Context(machine, hardware, c, missing)
    for kernel in plan.kernels:
        found = _kernel_time(kernel, context)
        parts.append(found._replace(fixed_s=found.fixed_s * warm) if kernel.caller in _WARMS_UP else found)
    parts = at_package_clock(parts, plan, hardware, c)
    return _issued([parts[launch.kernel] for launch in plan.launches], issued)


def _issued(times: list[KernelSeconds], issued: Sequence[float]) -> list[KernelSeconds]:
    """The same, each launch after it has been issued."""
    if not issued or not any(issued):
        return times
    found, ended = [], 0.0
    for part, ready in zip(times, issued, strict=True):
        waited = max(ready - ended, 0.0)
        found.append(part._replace(fixed_s=part.fixed_s + waited) if waited else part)
        ended += waited + part.seconds()
    return found


def cpu_timeline(
    plan: KernelPlan,
    graph: OpGraph,
    hardware: HardwareProfile,
    issued: Sequence[float] = (),
    constants: Constants = CONSTANTS,
) -> Timeline:
    """The timeline of one step, a slot for each launch in program order. Raises ProfileError as above.

    A package whose cores all work draws what it may.
    """
    power_w = math.nan if hardware.power_limit_w is None else hardware.power_limit_w
    spreads = [FACTORIZATION_SPREAD if kernel.algorithm == "factorization" else SPREAD for kernel in plan.kernels]
    times = cpu_step_times(plan, graph, hardware, issued, constants)
    return Timeline.in_sequence(times, [spreads[launch.kernel] for launch in plan.launches], power_w)
