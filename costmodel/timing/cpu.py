"""Time of one kernel, and of one step, on a CPU: fixed time + FLOP over a rate + bytes over a bandwidth.

At batch 1 the phases of an operator follow one another (reorder, kernel, reorder) and each ends in a join of
all threads, so times add. Three effects beyond a roofline carry most of the weight: an operator inside a model
finds its code and tables pushed out of the caches; weights come from DRAM in every step unless the whole step
fits in the caches; activations, just written, mostly come from the caches.

Every constant has a meaning, a unit and an origin in :class:`CpuConstants`. Shares are of the machine's own
figures, so a machine known by its datasheet alone has them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.plan import Kernel, KernelPlan
from costmodel.timing.gpu import KernelSeconds

__all__ = ["COLD_S", "CPU", "CpuConstants", "CpuMachine", "cpu_kernel_time", "cpu_step_times"]

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
