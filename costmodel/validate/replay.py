"""Graph replay: what is still in L2 when a captured product runs again.

Operators timed by replaying a CUDA graph run back to back, without the host and without other kernels between them.
The public GEMM timings of that kind copied the weight until the copies filled the device's L2 once, at most
:data:`COPIES` times, and used them in turn; input and output were the same in every launch. Where
``ceil(96 MiB / weight)`` copies fit in an L40S's L2 its products are fast, and slow where they do not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from costmodel.hardware import HardwareProfile
from costmodel.kernels import Kernel, KernelPlan
from costmodel.kernels.shapes import Attention, product_of
from costmodel.timing.gemm import missing_share
from costmodel.timing.gemm_machine import ELEMENT_BYTES, GemmMachine

__all__ = ["COPIES", "replayed", "reuse_bytes"]

#: Most copies of the weight that are used in turn.
COPIES = 5

_machine = lru_cache(maxsize=16)(GemmMachine.from_profile)


def reuse_bytes(weight_bytes: float, other_bytes: float, l2_bytes: float) -> tuple[float, float]:
    """Bytes touched between two uses of (input and output, weight); ``l2_bytes`` is the capacity as stated.

    >>> reuse_bytes(32e6, 4e6, 96e6)     # three copies of 32 MB fill 96 MB of L2
    (36000000.0, 100000000.0)
    >>> reuse_bytes(1e6, 4e6, 96e6)      # five at most
    (5000000.0, 9000000.0)
    """
    copies = min(COPIES, math.ceil(l2_bytes / weight_bytes))
    return weight_bytes + other_bytes, copies * weight_bytes + other_bytes


def replayed(plan: KernelPlan, hardware: HardwareProfile) -> KernelPlan:
    """The plan of a replayed product, whose kernels take from DRAM what is no longer in L2."""
    level = hardware.find_memory_level("l2")
    if level is None or not level.capacity_bytes:
        return plan
    kernels = [_resident(kernel, hardware, level.capacity_bytes) for kernel in plan.kernels]
    # Kernels beside the product (its activations are quantized first) miss where its operands do.
    product = next((k for k in plan.kernels if product_of(k.shape) is not None), None)
    attention = next((k for k in plan.kernels if isinstance(k.shape, Attention)), None)
    if attention is not None:
        library = hardware.gpu.attention_kernels(attention.algorithm)
        # What one unit alone reads lies in L2 once where the machine keeps no copy for the other half of it.
        seen = replace(_machine(hardware), l2_bytes=level.capacity_bytes / (library.l2_copies if library else 1))
        missing = missing_share(sum(kernel.bytes for kernel in plan.kernels), seen)
        kernels = [
            replace(
                kernel, bytes_read=int(kernel.bytes_read * missing), bytes_written=int(kernel.bytes_written * missing)
            )
            for kernel in kernels
        ]
    elif product is not None and len(kernels) > 1:
        missing = missing_share(sum(kernel.bytes for kernel in plan.kernels), _machine(hardware))
        kernels = [
            kernel
            if product_of(kernel.shape) is not None
            else replace(
                kernel, bytes_read=int(kernel.bytes_read * missing), bytes_written=int(kernel.bytes_written * missing)
            )
            for kernel in kernels
        ]
    return replace(plan, kernels=tuple(kernels))


def _resident(kernel: Kernel, hardware: HardwareProfile, l2_bytes: float) -> Kernel:
    product, machine = product_of(kernel.shape), _machine(hardware)
    if product is None or kernel.algorithm not in ("gemm", "batched_gemm", *machine.engines):
        return kernel
    m, n, k, batch = product.m, product.n, product.k, product.batch
    if kernel.algorithm in machine.engines:
        size, weight_size = machine.engines[kernel.algorithm].operand_bytes
        out_size = 2.0
    else:
        size = weight_size = out_size = ELEMENT_BYTES.get(kernel.dtype, 4)
    weight, read, written = (n * k * batch * weight_size, m * k * batch * size, m * n * batch * out_size)
    missing, missing_weight = (
        missing_share(distance, machine) for distance in reuse_bytes(weight, read + written, l2_bytes)
    )
    return replace(
        kernel, bytes_read=int(read * missing + weight * missing_weight), bytes_written=int(written * missing)
    )
