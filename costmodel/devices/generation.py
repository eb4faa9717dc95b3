"""Generation: what the libraries of one generation of machines can do, as data.

Everything that a generation decides and a single board does not: the tiles of its matrix kernels and the share of the
peak that they reach, the algorithms of its convolutions, which dtypes its matrix units multiply, how its units issue
and how its L2 is built. A record is one file of ``generations/``; a hardware profile names it (``generation =
"ampere"``), or is found to be of it by its compute capability. What belongs to a board (clocks, power, memory, number
of units) stands in its profile.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module

from costmodel.devices.attention import AttentionKernels
from costmodel.devices.family import ACCELERATOR, CPU, CUDA, ROCM, Family
from costmodel.devices.libraries import (
    CUBLAS_MATRIX,
    CUBLAS_SIMT,
    CUDNN,
    ONEDNN_AVX2,
    ONEDNN_AVX512,
    ConvolutionKernels,
    CpuConvolutions,
    ProductKernels,
    QuantizedProducts,
)
from costmodel.errors import ProfileError, librarian, near_matches

__all__ = [
    "CpuGeneration",
    "Generation",
    "GpuGeneration",
    "find_generation",
    "generation",
    "generation_names",
    "unknown_generation",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What all machines of a generation share. ``assumptions`` name the figures that are another generation's."""

    name: str
    title: str
    family: Family
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuGeneration(Generation):
    """A generation of GPUs.

    ``capabilities``        compute capabilities (NVIDIA) or names of the instruction set (AMD) that mean this one.
    ``matrix_dtypes``       what its matrix units multiply; empty where it has none.
    ``dense_fp16_flop_per_clock``   most FLOP a clock of one unit in dense fp16 products; None where unknown.
    ``process``             what its chips are made in, a key of :data:`~costmodel.devices.power.PROCESSES`.
    ``dram``                technology of its memory: HBM, GDDR, LPDDR.
    ``l2_bytes_per_clock``  L2 reads of one unit by micro-benchmark, for profiles without a figure [B/clock].
    ``l2_copies``           how often L2 holds what all units read: 2 where two halves copy each other's lines.
    ``multicast``           units that share one read of an operand (thread block clusters).
    ``row_reach_bytes``     row pitch at which address translation has taken half of its toll [B]; None: no toll.
    ``channel_period_bytes``  row pitch at which all rows fall on one channel of memory [B]; None: spread by a hash.
    ``schedulers_per_unit`` warps of 32 lanes issued a clock.
    ``lane_cycles``         lane cycles of an element by operator, where its math library needs others than CUDA's.
    ``matrix_products``, ``simt_products``, ``convolutions``   what its libraries run on matrix units and on FMA lanes.
    ``quantized_products``  products of float8, int8 and narrow weights, where they were measured on it.
    ``attention``           fused attention of its libraries; "flash_attention" is PyTorch's.
    """

    capabilities: tuple[str, ...] = ()
    matrix_dtypes: tuple[str, ...] = ()
    dense_fp16_flop_per_clock: int | None = None
    process: str
    dram: str
    l2_bytes_per_clock: float
    l2_copies: int = 1
    multicast: int = 1
    row_reach_bytes: float | None = None
    channel_period_bytes: int | None = None
    schedulers_per_unit: int = 4
    lane_cycles: Mapping[str, float] = field(default_factory=dict, hash=False)
    matrix_products: ProductKernels = CUBLAS_MATRIX
    simt_products: ProductKernels = CUBLAS_SIMT
    convolutions: ConvolutionKernels = CUDNN
    quantized_products: tuple[QuantizedProducts, ...] = ()
    attention: tuple[AttentionKernels, ...] = ()

    def attention_kernels(self, name: str) -> AttentionKernels | None:
        """The fused attention of this name; None where the libraries of the generation have none.

        >>> generation("volta").attention_kernels("flash_attention")
        """
        return next((kernels for kernels in self.attention if kernels.name == name), None)

    @property
    def torch_capability(self) -> tuple[int, ...]:
        """What ``torch.cuda.get_device_capability`` answers on its first boards; empty where they have no such number.

        >>> generation("ampere").torch_capability
        (8, 0)
        """
        first = next(iter(self.capabilities), "")
        return tuple(map(int, first.split("."))) if first.replace(".", "").isdigit() else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuGeneration(Generation):
    """A generation of CPU cores, and what oneDNN's kernels reach on them.

    ``simd_bits`` is the width of its vector registers, ``simd_registers`` their number. ``arithmetic`` are the formats
    of 16 bits that it multiplies, ``converted`` those for which oneDNN has kernels that convert them in registers.
    """

    simd_bits: int
    simd_registers: int
    convolutions: CpuConvolutions
    arithmetic: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()


#: GPUs of no generation that is known here: no tolls, no gains, and the feed of the slower kind of L2.
_UNKNOWN_GPU = GpuGeneration(
    name="unknown_gpu",
    title="a GPU of an unknown generation",
    family=CUDA,
    process="n7",
    dram="GDDR",
    l2_bytes_per_clock=15.0,
    assumptions=("tiles, efficiencies and convolution algorithms are those of cuBLAS and cuDNN, without any gain",),
)
#: CPUs of no generation that is known here: oneDNN's AVX2 kernels.
_UNKNOWN_CPU = CpuGeneration(
    name="unknown_cpu",
    title="a CPU of an unknown generation",
    family=CPU,
    simd_bits=256,
    simd_registers=16,
    convolutions=ONEDNN_AVX2,
    assumptions=("oneDNN's AVX2 kernels",),
)
#: The same with two multiply-add pipes of 512 bits.
_UNKNOWN_WIDE_CPU = CpuGeneration(
    name="unknown_wide_cpu",
    title="a CPU of an unknown generation with vectors of 512 bits",
    family=CPU,
    simd_bits=512,
    simd_registers=32,
    convolutions=ONEDNN_AVX512,
    assumptions=("oneDNN's AVX-512 kernels",),
)
_UNKNOWN_ACCELERATOR = Generation(name="unknown_accelerator", title="an accelerator", family=ACCELERATOR)


@lru_cache(maxsize=1)
def generation_names() -> tuple[str, ...]:
    """Names of all generations, sorted: the files of ``generations/``."""
    from costmodel.devices import generations

    return tuple(sorted(found.name for found in pkgutil.iter_modules(generations.__path__)))


@lru_cache(maxsize=64)
def generation(name: str) -> Generation:
    """The record of a generation. Raises :class:`~costmodel.errors.ProfileError` naming those there are."""
    if name not in generation_names():
        raise ProfileError(
            librarian(
                f"there is no generation {name!r}",
                there_is=generation_names(),
                near=near_matches(name, generation_names()),
                do="Name one of these, or add a file to costmodel/devices/generations",
            )
        )
    found: Generation = import_module(f"costmodel.devices.generations.{name}").GENERATION
    if found.name != name:
        raise ProfileError(f"the file of the generation {name!r} holds the record of {found.name!r}")
    return found


def _gpus() -> Iterator[GpuGeneration]:
    for name in generation_names():
        found = generation(name)
        if isinstance(found, GpuGeneration):
            yield found


@lru_cache(maxsize=64)
def find_generation(capability: str) -> GpuGeneration | None:
    """The generation of GPUs of a compute capability or instruction set; None where none is known.

    >>> find_generation("8.0").name, find_generation("gfx90a").name, find_generation("3.5")
    ('ampere', 'cdna2', None)
    """
    return next((found for found in _gpus() if capability in found.capabilities), None)


def unknown_generation(kind: str, vendor: str = "", flop_per_clock: float = 0.0) -> Generation:
    """Stands in for a machine of no known generation: cautious figures, and the assumption said.

    ``flop_per_clock`` is the fp32 peak of one core of a CPU, which tells how wide its vectors are.

    >>> unknown_generation("gpu", "AMD").family.name, unknown_generation("cpu").family.name
    ('rocm', 'cpu')
    """
    if kind == "cpu":
        return _UNKNOWN_WIDE_CPU if flop_per_clock >= 64 else _UNKNOWN_CPU
    if kind != "gpu":
        return _UNKNOWN_ACCELERATOR
    if vendor.upper() != "AMD":
        return _UNKNOWN_GPU
    from dataclasses import replace

    return replace(_UNKNOWN_GPU, family=ROCM)
