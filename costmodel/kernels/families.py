"""Which rules lower an operator in eager mode, by family of machines."""

from __future__ import annotations

from collections.abc import Callable

from costmodel.devices import ByFamily
from costmodel.kernels import multi_tensor  # noqa: F401 - registers its rules
from costmodel.kernels.cpu import cpu_kernels
from costmodel.kernels.eager import eager_kernels, plain_kernels
from costmodel.kernels.operator import Operator
from costmodel.kernels.plan import Kernel

__all__ = ["EAGER_KERNELS"]

#: Kernels of one operator, in order; ROCm's PyTorch is CUDA's, translated.
EAGER_KERNELS = ByFamily[Callable[[Operator], tuple[Kernel, ...]]](
    cuda=eager_kernels, rocm=eager_kernels, cpu=cpu_kernels, accelerator=plain_kernels
)
