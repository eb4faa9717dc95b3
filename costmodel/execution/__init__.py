"""One description of a run: everything beside model and machine that changes its kernels and their time."""

from __future__ import annotations

from costmodel.execution.execution import Execution
from costmodel.execution.layout import LAYOUTS
from costmodel.execution.optimizer import ALGORITHMS, Optimizer
from costmodel.execution.phase import NodePhase, Phase
from costmodel.execution.precision import CACHES, DTYPES, Precision, dtype_word
from costmodel.execution.software import Software
from costmodel.execution.trained import CHECKPOINTS, Trained
from costmodel.execution.variant import Variant
from costmodel.execution.weights import WEIGHTS, WeightScheme

__all__ = [
    "ALGORITHMS",
    "CACHES",
    "CHECKPOINTS",
    "DTYPES",
    "LAYOUTS",
    "WEIGHTS",
    "Execution",
    "NodePhase",
    "Optimizer",
    "Phase",
    "Precision",
    "Software",
    "Trained",
    "Variant",
    "WeightScheme",
    "dtype_word",
]
