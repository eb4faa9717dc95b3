"""What engines that capture a step share."""

from __future__ import annotations

from costmodel.errors import InputError, librarian
from costmodel.hardware import HardwareProfile

__all__ = ["refuse_without_graphs"]


def refuse_without_graphs(name: str, hardware: HardwareProfile) -> None:
    """Raise InputError where the host itself computes: there is no device whose launches a graph could replay."""
    if not hardware.family.issues_ahead:
        do = "use eager or compile there, or name a GPU"
        raise InputError(librarian(f"mode {name} captures a GPU's launches, and {hardware.name} is a CPU", do=do))
