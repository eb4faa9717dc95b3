"""Constants of the CPU's time model, each with its meaning, unit and origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

__all__ = ["COLD_S", "CPU", "ELEMENTS_PER_S", "CpuConstants", "of_measured_peak"]

#: Fixed time of an eager operator inside a model, its code cold [s]: round-robin micro-benchmarks over operators of
#: all sizes on a two-core Zen 3 guest, torch 2.13. In a hot loop they are about a quarter of this. Names not here:
#: ``COLD_S["other"]``, that of add.
COLD_S: Mapping[str, float] = MappingProxyType(
    {
        "convolution": 97e-6,
        "depthwise": 243e-6,
        "product": 63e-6,
        "bmm": 25e-6,
        "attention": 70e-6,
        "batch_norm": 73e-6,
        "layer_norm": 54e-6,
        "group_norm": 54e-6,
        "gelu": 94e-6,
        "silu": 25e-6,
        "sigmoid": 25e-6,
        "softmax": 26e-6,
        "max_pool2d": 45e-6,
        "avg_pool2d": 45e-6,
        "mean": 55e-6,
        "adaptive_avg_pool2d": 78e-6,
        "cat": 27e-6,
        "strided_copy": 44e-6,
        "other": 19e-6,
    }
)

#: Elements that an eager kernel puts out a second and core, beside its bytes [1/s]: the same micro-benchmarks at two
#: cores, halved; pooling counts the elements under its windows (0.19 G inputs/s of a 3x3 maximum).
ELEMENTS_PER_S: Mapping[str, float] = MappingProxyType(
    {
        "gelu": 0.8e9,
        "silu": 0.8e9,
        "sigmoid": 0.8e9,
        "tanh": 0.8e9,
        "erf": 0.8e9,
        "mish": 0.8e9,
        "softmax": 0.6e9,
        "layer_norm": 1.4e9,
        "group_norm": 1.4e9,
        "batch_norm": 1.9e9,
        "pool": 0.2e9,
        "strided_copy": 0.5e9,
        "strided_elementwise": 0.25e9,
        "cat": 0.9e9,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuConstants:
    """Constants shared by all CPUs. "Milan" is the two-core guest of :data:`COLD_S`, "i9" timm's compiled models."""

    #: Shares of the fp32 peak that large kernels reach [1], beside their fixed time and memory time; dense convolutions
    #: have theirs by generation. ``peak_share`` is what the fastest product reaches of the peak that shares are of.
    peak_share: float = 1.0
    gemm_share: float = 0.70  # Milan 157 of 224 GFLOP/s, i9 0.72
    batched_share: float = 0.45  # Milan 101 of 224
    attention_share: float = 0.31  # Milan 75 of 224, i9 0.29
    grouped_share: float = 0.38  # Milan 86 of 224
    im2col_share: float = 0.04  # Milan 9 of 224: groups of fewer than 8 channels
    depthwise_share: float = 0.20  # oneDNN's kernel alone on Milan: 3x3 0.18-0.25, 5x5 0.3-0.4, 7x7 0.14-0.2
    #: Depthwise windows of 7x7 and more in compiled, channels-last graphs: i9; why so slow is not known.
    compiled_depthwise_large_share: float = 0.03
    #: LAPACK's factorizations, and the time of a column, whose norm or pivot the next one waits for [s]: MKL on one
    #: core of a server, matrices of 4 to 768 rows (from 256 rows on 0.3 to 0.5 of what its product reaches; LU takes
    #: 8 us at 16 rows, 33 at 64).
    factorization_share: float = 0.3
    factorization_column_s: float = 0.35e-6
    #: Share of the rate of the caches at which activations are reordered, or packed for a matrix product [1]:
    #: Milan 28-43 GB/s for reorders, 17 GB/s (more on i9) for the operands of linear, against 67 GB/s.
    reorder_activations_share: float = 0.5
    pack_share: float = 0.5
    #: Share of the achievable DRAM bandwidth at which MKL packs weights, read once a step [1].
    weight_share: float = 0.5
    #: The same for a matrix-vector product: it only reads [1].
    vector_weight_share: float = 0.8
    #: The same for oneDNN's reorder of weights (bytes read and written) and the convolution's own cold read after it.
    reorder_share: float = 0.8
    #: The same for Inductor's copy of k x k weights to channels_last: a transposing loop, scalar [1].
    copy_share: float = 0.5
    #: Rate of the shared caches over the achievable DRAM bandwidth [1]: Milan 64-70 against 24 GB/s.
    cache_speedup: float = 2.8
    #: Fixed time of a compiled loop: code out of cache, fork and join of the threads [s].
    loop_s: float = 7e-6
    #: Fixed time of calls out of compiled code [s]: Python wrapper, dispatcher, primitive look-up.
    compiled_convolution_s: float = 60e-6
    compiled_product_s: float = 15e-6
    #: Vector instructions a cycle that loops sustain [1]; two multiply-add pipes give at most 2.
    instructions_per_cycle: float = 1.0
    #: Elements that a pooling loop reads a second and core: its index arithmetic keeps it scalar [1/s].
    pool_elements_per_s: float = 0.6e9
    #: A result larger than glibc's largest mmap threshold comes from the system anew in every step [B] ...
    mmap_threshold_bytes: float = 32 * 2**20
    #: ... and every page of it is faulted in and cleared on first touch [s of one core a page of 4 KiB], all cores at
    #: once. Milan 1.9 us elapsed on two cores, or 3.8; i9 0.23 us on 14, or 3.2, is what five VGG models (left out of
    #: the other constants) need beyond them: their head's 411 MB of weights are copied and reordered in every step.
    page_fault_s: float = 3.5e-6
    page_bytes: float = 4096.0
    #: Share of a cold fixed time that is left in a hot loop [1], and the working set, in capacities of the last-level
    #: cache, from which an operator is wholly cold: round robins over tiny operators only, and over all (Milan).
    hot_share: float = 0.26
    cold_from: float = 2.0
    #: Power of cores whose multiply-add pipes are full, beyond that of cores that work without them, over the latter
    #: [1]; and the share of the peak at which a package draws its base power at its base clock, which vendors call a
    #: complex load [1]. Fitted to timm's compiled models on an i7-12700H (``benchmarks/fit_cpu_clock.py``): at its base
    #: clocks a step that uses 0.1 of the peak is predicted 1.3 times too slow, one that uses 0.55 at 0.9 of its time.
    #: Errors fall from 11.1 / 32.0 to 7.3 / 16.3 %; to 8.3 / 16.8 % of families that the two were not fitted to.
    multiply_add_power: float = 5.0
    complex_load: float = 0.45


CPU = CpuConstants()


def of_measured_peak(constants: CpuConstants) -> CpuConstants:
    """The same constants for a profile whose peak is the rate that its fastest product was measured to reach.

    >>> of_measured_peak(CpuConstants(gemm_share=0.5)).peak_share
    0.5
    """
    return replace(constants, peak_share=constants.gemm_share)
