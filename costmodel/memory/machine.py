"""What a machine's memory leaves to tensors, and what a process takes of it besides them.

Constants, each with its origin. They are the parts of a figure of memory that no trace knows: the driver's share of the
board, the context, the code of the libraries, and the workspace that cuBLAS keeps for each of its handles.
"""

from __future__ import annotations

from typing import NamedTuple

from costmodel.devices import ByFamily
from costmodel.execution import Software
from costmodel.hardware import HardwareProfile

__all__ = ["Range", "blas_workspace_bytes", "context_bytes", "usable_bytes"]

_GIB, _MIB = 2**30, 2**20


class Range(NamedTuple):
    """A figure [B] and the interval that holds what is not known of it."""

    low: float
    usual: float
    high: float


#: Share of a memory that in-band error correction takes, where a board has it on: one byte for each fifteen (nvidia-smi
#: shows 15 360 of 16 384 MiB on a T4, 23 034 of 24 576 on an L4, 46 068 of 49 152 on an A40). HBM brings its own.
_ECC_SHARE = 1 / 16
#: What the driver keeps: 0.12 GiB and 0.95 % of the memory. torch's total_memory, as it stands in its messages, is
#: 10.76 GiB on a board of 11, 15.77 of 16, 23.69 of 24, 31.74 of 32, 39.39 of 40, 44.39 of 45 (an L40S after ECC),
#: 47.54 of 48, 79.11 and 79.15 of 80: the line is within 0.12 GiB of each.
_DRIVER_BYTES, _DRIVER_SHARE = 0.12 * _GIB, 0.0095
_DRIVER_DOUBT = 0.004  # of the whole memory
#: Share of a computer's memory that its other processes leave; a usual figure, for machines that do little else.
_OS_SHARE = 0.93


def usable_bytes(hardware: HardwareProfile) -> Range | None:
    """B that one process can have, context included, where it is alone on the machine; None where the profile does not
    say how much memory there is.

    A vendor's "80 GB" of device memory are 80 GiB.
    """
    capacity = hardware.dram.capacity_bytes
    if capacity is None:
        return None
    if hardware.is_cpu:
        return Range(0.85 * capacity, _OS_SHARE * capacity, capacity)
    whole = capacity / 1e9 * _GIB
    rest = whole * (1 - _ECC_SHARE) if hardware.dram.inline_ecc else whole
    usual = rest - _DRIVER_BYTES - _DRIVER_SHARE * rest
    return Range(usual - _DRIVER_DOUBT * whole, usual, min(rest, usual + _DRIVER_DOUBT * whole))


#: A CUDA context: memory for each SM's stacks and queues. Bare contexts with lazily loaded kernels take about 305 MiB
#: on a V100 (80 SMs), 425 on an A100 (108), 525 on an H100 (132): 3.9 MiB an SM. General knowledge, unverified.
_CONTEXT_PER_UNIT = 3.9 * _MIB
#: Kernels that a process of torch 1.13 and later (CUDA 11.7 and later load lazily) has used: cuDNN, cuBLAS, ATen.
_LAZY = Range(40 * _MIB, 150 * _MIB, 350 * _MIB)
#: All kernels of all libraries, loaded when the context is made (before CUDA 11.7): what is left of the nvidia-smi
#: peaks of timm's training steps on an A100.
_EAGER = Range(1100 * _MIB, 1300 * _MIB, 1500 * _MIB)
#: A process that has imported torch (CPU build, 2.x): its resident memory before the first tensor.
_CPU_PROCESS = Range(150 * _MIB, 250 * _MIB, 600 * _MIB)
#: HIP and its libraries: nobody has measured it here, whatever the GPU.
_HIP_PROCESS = Range(200 * _MIB, 500 * _MIB, 1500 * _MIB)
#: What a process takes by family; None where it goes by the number of units and the release.
_PROCESS: ByFamily[Range | None] = ByFamily(cuda=None, rocm=_HIP_PROCESS, cpu=_CPU_PROCESS, accelerator=_HIP_PROCESS)


def context_bytes(hardware: HardwareProfile, software: Software) -> Range:
    """B that a process takes before its first tensor: the context and the code of the libraries."""
    of_family = _PROCESS.of(hardware)
    if of_family is not None:
        return of_family
    stacks = _CONTEXT_PER_UNIT * hardware.unit_count
    code = _LAZY if software.at_least_torch(1, 13) else _EAGER
    return Range(*(stacks + part for part in code))


#: cuBLAS in torch: ``:4096:2:16:8``, two buffers of 4 MiB and eight of 16 KiB, for each handle and stream; 32 MiB on
#: GPUs with thread block clusters (aten/src/ATen/cuda/CublasHandlePool.cpp, ``parseChosenWorkspaceSize``).
_CUBLAS, _CUBLAS_CLUSTERS = 2 * 4096 * 1024 + 8 * 16 * 1024, 4096 * 8 * 1024
_BLAS = ByFamily(cuda=True, rocm=False, cpu=False, accelerator=False)


def blas_workspace_bytes(hardware: HardwareProfile) -> int:
    """B that the first matrix product of a thread takes of the caching allocator, and keeps."""
    if not _BLAS.of(hardware):
        return 0
    return _CUBLAS_CLUSTERS if hardware.gpu.multicast > 1 else _CUBLAS
