"""Why a step takes longer than its FLOPs say: the split into causes, and the findings."""

from __future__ import annotations

from costmodel.explain.causes import CAUSES, Cause
from costmodel.explain.measured import MeasuredRun, MeasuredSplit, NodeGap, read_measured_run
from costmodel.explain.rule import RULES, Finding
from costmodel.explain.rules import findings
from costmodel.explain.split import CauseShare, Part, Split, headline_peak, split

__all__ = [
    "CAUSES",
    "RULES",
    "Cause",
    "CauseShare",
    "Finding",
    "MeasuredRun",
    "MeasuredSplit",
    "NodeGap",
    "Part",
    "Split",
    "findings",
    "headline_peak",
    "read_measured_run",
    "split",
]
