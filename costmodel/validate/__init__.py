"""Predictions held against measurements: read, predict, score.

>>> from costmodel.traced import load_trace                                            # doctest: +SKIP
>>> result = validate(read_measured(["timings.csv"]), trace=load_trace)             # doctest: +SKIP
>>> [(group.keys["device"], group.score.median_ape) for group in grouped(result.judged)]    # doctest: +SKIP
"""

from __future__ import annotations

from costmodel.validate.baselines import BASELINES
from costmodel.validate.cells import Flags
from costmodel.validate.conditions import check_names
from costmodel.validate.groups import (
    ClassError,
    Group,
    as_one,
    by_class,
    by_family,
    by_owner,
    by_regime,
    fail_budget,
    grouped,
    pooled,
)
from costmodel.validate.judged import Judged
from costmodel.validate.memory import JudgedMemory, MemoryGroup, memory_groups
from costmodel.validate.not_modelled import NOT_MODELLED
from costmodel.validate.reading import read_measured
from costmodel.validate.rows import Measured, MemoryRow, ModelRow, OperatorRow, Unusable
from costmodel.validate.run import Validation, validate
from costmodel.validate.statistics import Score

__all__ = [
    "BASELINES",
    "NOT_MODELLED",
    "ClassError",
    "Flags",
    "Group",
    "Judged",
    "JudgedMemory",
    "Measured",
    "MemoryGroup",
    "MemoryRow",
    "ModelRow",
    "OperatorRow",
    "Score",
    "Unusable",
    "Validation",
    "as_one",
    "by_class",
    "by_family",
    "by_owner",
    "by_regime",
    "check_names",
    "fail_budget",
    "grouped",
    "memory_groups",
    "pooled",
    "read_measured",
    "validate",
]
