"""costmodel: what a PyTorch model costs and how long it takes on a machine, before anything runs, and why.

>>> import costmodel
>>> analysis = costmodel.analyze("resnet50", hw="a100")                             # doctest: +SKIP
>>> analysis.at(batch=64, hw="t4").latency                                          # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from costmodel.version import VERSION

if TYPE_CHECKING:
    from costmodel import formulas
    from costmodel.api import analyze, compare
    from costmodel.choices import Choice, choose
    from costmodel.cost import Cost
    from costmodel.errors import CostmodelError
    from costmodel.execution import Execution
    from costmodel.explain import Finding
    from costmodel.generation import Generation, generate
    from costmodel.hardware import HardwareProfile
    from costmodel.presented import Analysis, Comparison
    from costmodel.sweeps import Sweep, sweep

__all__ = [
    "Analysis", "Choice", "Comparison", "Cost", "CostmodelError", "Execution", "Finding", "Generation",
    "HardwareProfile", "Sweep",
    "analyze", "choose", "compare", "formulas", "generate", "sweep",
]  # fmt: skip

__version__ = VERSION

#: Where each public name lives. They are imported when first asked for, so that a part does not pay for the whole.
_HOMES = {
    "Analysis": "costmodel.presented",
    "Cost": "costmodel.cost",
    "CostmodelError": "costmodel.errors",
    "Execution": "costmodel.execution",
    "HardwareProfile": "costmodel.hardware",
    "Comparison": "costmodel.presented",
    "Finding": "costmodel.explain",
    "Sweep": "costmodel.sweeps",
    "analyze": "costmodel.api",
    "compare": "costmodel.api",
    "Choice": "costmodel.choices",
    "choose": "costmodel.choices",
    "sweep": "costmodel.sweeps",
    "Generation": "costmodel.generation",
    "generate": "costmodel.generation",
}


def __getattr__(name: str) -> Any:
    if name == "formulas":
        return import_module("costmodel.formulas")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'costmodel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
