"""How numbers were counted and what was assumed for them, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.execution import Execution, Phase
from costmodel.hardware.calibration import Calibration
from costmodel.nodes import Assumption

__all__ = ["conventions_of"]

CONVENTIONS = (
    "FLOPs: 2 per multiply-accumulate (MAC), 1 per other arithmetic operation, comparison or elementary function",
    "MACs: those of convolutions and matrix products; padding positions counted",
    "attention: counted full, a causal mask does not halve it",
    "bytes: every operand read once, every result written once, in the dtype of the run; views are free",
    "batch normalization: not folded into convolutions",
    "peaks: dense, with the accumulate type PyTorch uses",
)


def conventions_of(
    execution: Execution, calibration: Calibration | None, assumed: Sequence[Assumption], dtype_notes: Sequence[str]
) -> tuple[str, ...]:
    """Of one run on one machine, ``calibration`` where its figures were measured; what is not modelled comes last."""
    said = (*CONVENTIONS, *(f"assumed: {answer}" for answer in assumed), *dtype_notes)
    if calibration is not None and calibration.unrest:
        scattered = f"timings scattered by {calibration.spread:.0%} when this machine was calibrated"
        said += (f"intervals: wider, since {scattered}",)
    beyond = "not modelled: loading of data, compilation and tuning before the first step, other work on the machine"
    beyond += ", several cards and what they exchange" if execution.phase is Phase.TRAINING else ""
    return (*said, beyond)
