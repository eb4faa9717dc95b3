"""costmodel: what a PyTorch model costs and how long it takes on a machine, before anything runs, and why.

>>> import costmodel
>>> analysis = costmodel.analyze("resnet50", hw="a100")                             # doctest: +SKIP
>>> analysis.at(batch=64, hw="t4").latency                                          # doctest: +SKIP
"""

from __future__ import annotations

from costmodel import formulas
from costmodel.analysis import Analysis
from costmodel.api import analyze
from costmodel.cost import Cost
from costmodel.errors import CostmodelError
from costmodel.hardware import HardwareProfile
from costmodel.kernels import Execution

__all__ = ["Analysis", "Cost", "CostmodelError", "Execution", "HardwareProfile", "analyze", "formulas"]

__version__ = "0.1.0"
