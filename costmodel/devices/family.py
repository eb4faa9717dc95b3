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

    ``unit`` is the word for one of its units, ``dnn`` the library that convolves. ``issues_ahead``: the host issues
    kernels ahead of the device, in a queue, so that host time can hide behind device time; on a CPU the two are one.
    ``adds_bias_apart``: in eager mode a convolution leaves its bias to a kernel of its own. ``half_depthwise``: the
    library has depthwise kernels of half precision that are faster by more than their bytes. ``torch_device`` is the
    kind of device that a model sees on it, ``x.device.type``: ROCm answers to CUDA's name. ``fuses_attention``: flash
    attention is there on every generation, else where a generation says so.
    """

    name: str
    title: str
    unit: str
    dnn: str
    issues_ahead: bool
    adds_bias_apart: bool
    half_depthwise: bool
    torch_device: str = "cuda"
    fuses_attention: bool = False


CUDA = Family(
    name="cuda", title="NVIDIA GPU with CUDA", unit="SM", dnn="cuDNN",
    issues_ahead=True, adds_bias_apart=True, half_depthwise=True,
)  # fmt: skip
#: What MIOpen does about biases and depthwise convolutions is assumed to be what cuDNN does.
ROCM = Family(
    name="rocm", title="AMD GPU with ROCm", unit="CU", dnn="MIOpen",
    issues_ahead=True, adds_bias_apart=True, half_depthwise=True, fuses_attention=True,
)  # fmt: skip
CPU = Family(
    name="cpu", title="CPU", unit="core", dnn="oneDNN",
    issues_ahead=False, adds_bias_apart=False, half_depthwise=False, torch_device="cpu",
)  # fmt: skip
#: Machines that nobody has modelled: a roofline of their datasheet.
ACCELERATOR = Family(
    name="accelerator", title="accelerator known by its datasheet", unit="unit", dnn="the library",
    issues_ahead=True, adds_bias_apart=False, half_depthwise=True,
)  # fmt: skip

FAMILIES: Mapping[str, Family] = MappingProxyType({f.name: f for f in (CUDA, ROCM, CPU, ACCELERATOR)})


class HasFamily(Protocol):
    """A machine that says which family it is of."""

    @property
    def family(self) -> Family:
        """The family of the machine."""


Value = TypeVar("Value")


class ByFamily(Generic[Value]):
    """One thing for each family: a function, a table, None. Raises ValueError unless every family has an entry.

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
