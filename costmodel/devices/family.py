"""Family: what all machines of one software stack share, and tables that hold one thing a family.

A family is the stack that runs the operators: CUDA on NVIDIA's GPUs, ROCm on AMD's, PyTorch's own CPU backend. How an
operator is lowered and how a kernel is timed are functions of the rooms that do it; each of these rooms holds a
:class:`ByFamily` table of them, so nobody asks for a vendor or a kind of machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

__all__ = ["ACCELERATOR", "CPU", "CUDA", "FAMILIES", "ROCM", "ByFamily", "Family"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Machines that one software stack drives.

    ``issues_ahead``: the host issues kernels ahead of the device, in a queue, so that host time can hide behind device
    time; on a CPU the two are one. ``unit`` is the word for one of its units.
    """

    name: str
    title: str
    unit: str
    issues_ahead: bool


CUDA = Family(name="cuda", title="NVIDIA GPU with CUDA", unit="SM", issues_ahead=True)
ROCM = Family(name="rocm", title="AMD GPU with ROCm", unit="CU", issues_ahead=True)
CPU = Family(name="cpu", title="CPU", unit="core", issues_ahead=False)
#: Machines that nobody has modelled: a roofline of their datasheet.
ACCELERATOR = Family(name="accelerator", title="accelerator known by its datasheet", unit="unit", issues_ahead=True)

FAMILIES: Mapping[str, Family] = MappingProxyType({f.name: f for f in (CUDA, ROCM, CPU, ACCELERATOR)})


class HasFamily(Protocol):
    """A machine that says which family it is of."""

    @property
    def family(self) -> Family:
        """The family of the machine."""


Value = TypeVar("Value")


class ByFamily(Generic[Value]):
    """One thing for each family: a function, a table, a word. Raises ValueError unless every family has one.

    >>> noun = ByFamily(cuda="a kernel", rocm="a kernel", cpu="a call", accelerator="a kernel")
    >>> noun[CPU]
    'a call'
    """

    def __init__(self, **of: Value) -> None:
        if set(of) != set(FAMILIES):
            raise ValueError(f"one entry for each of {', '.join(FAMILIES)}, not for {', '.join(of) or 'none'}")
        self._of = of

    def __getitem__(self, family: Family) -> Value:
        return self._of[family.name]

    def of(self, machine: HasFamily) -> Value:
        """The entry of a machine's family."""
        return self._of[machine.family.name]
