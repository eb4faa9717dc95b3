"""Machines: one TOML file each, with peaks, memory, limits and the sources of every figure.

:func:`load` a machine by name, alias or path; :func:`check` a file against itself; :func:`catalogue`
and :func:`describe` give rows to print. The files lie in ``hw_profiles/``.
"""

from costmodel.hardware.catalogue import (
    SEARCH_PATH_VARIABLE,
    CatalogueRow,
    aliases,
    catalogue,
    check,
    find,
    load,
    names,
)
from costmodel.hardware.describe import Fact, describe
from costmodel.hardware.identity import cuda_identity, cuda_memory
from costmodel.hardware.profile import (
    CoreGroup,
    HardwareProfile,
    Limits,
    MemoryLevel,
    Overheads,
    Peak,
    default_accumulate,
)
from costmodel.hardware.schema import Problem

__all__ = [
    "SEARCH_PATH_VARIABLE",
    "CatalogueRow",
    "CoreGroup",
    "Fact",
    "HardwareProfile",
    "Limits",
    "MemoryLevel",
    "Overheads",
    "Peak",
    "Problem",
    "aliases",
    "catalogue",
    "check",
    "cuda_identity",
    "cuda_memory",
    "default_accumulate",
    "describe",
    "find",
    "load",
    "names",
]
