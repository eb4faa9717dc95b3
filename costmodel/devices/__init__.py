"""Devices: families of machines by the software that drives them, and their generations as data.

Nothing here computes a time. A hardware profile names its generation; the rooms above read its figures and hold what
they do for each family in :class:`ByFamily` tables.
"""

from costmodel.devices.family import FAMILIES, ByFamily, Family
from costmodel.devices.generation import (
    CpuGeneration,
    Generation,
    GpuGeneration,
    find_generation,
    generation,
    generation_names,
    unknown_generation,
)
from costmodel.devices.libraries import ConvolutionKernels, ProductKernels

__all__ = [
    "FAMILIES",
    "ByFamily",
    "ConvolutionKernels",
    "CpuGeneration",
    "Family",
    "Generation",
    "GpuGeneration",
    "ProductKernels",
    "find_generation",
    "generation",
    "generation_names",
    "unknown_generation",
]
