"""The changes that may be made to a run, in order of disruption: what the user has to give up grows downwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from costmodel.analysis import Analysis
from costmodel.execution import Phase
from costmodel.remedies.remedy import Change

__all__ = ["changes_of"]

_Rule = Callable[[Analysis], Iterator[Change]]
_RULES: list[_Rule] = []


def changes_of(analysis: Analysis) -> list[Change]:
    """The changes that this run leaves to be made."""
    return [change for rule in _RULES for change in rule(analysis)]


def _change(rule: _Rule) -> _Rule:
    """Register what yields a change where it can be made; rules are asked in the order in which they stand here."""
    _RULES.append(rule)
    return rule


def _low(analysis: Analysis) -> str:
    """The half precision that the machine multiplies: bf16, whose range is that of fp32, before fp16."""
    find = analysis.hardware.find_peak
    return next((dtype for dtype in ("bf16", "fp16") if find("matrix", dtype)), "fp16")


@_change
def _autocast(analysis: Analysis) -> Iterator[Change]:
    """Weights stay in fp32; only a training step, which keeps activations, saves by it."""
    if analysis.execution.phase is Phase.TRAINING and analysis.execution.precision.operands in ("fp32", "tf32"):
        low = _low(analysis)
        yield Change("autocast", {"dtype": f"amp_{low}"}, f"torch.autocast in {low}: weights stay in fp32")


@_change
def _half(analysis: Analysis) -> Iterator[Change]:
    """Inference alone: a step that updates weights of half precision is another training."""
    if analysis.execution.phase is not Phase.TRAINING and analysis.execution.precision.weights == "fp32":
        low = _low(analysis)
        yield Change(
            f"weights in {low}", {"dtype": low}, f"model.to(torch.{'bfloat16' if low == 'bf16' else 'float16'})"
        )


@_change
def _compiled(analysis: Analysis) -> Iterator[Change]:
    """What fused operators pass to each other is never stored."""
    if analysis.execution.phase is not Phase.TRAINING and analysis.execution.engine == "eager":
        yield Change("torch.compile", {"mode": "compile"}, "what fused operators pass to each other is not stored")


@_change
def _smaller_batch(analysis: Analysis) -> Iterator[Change]:
    """The same samples in smaller batches."""
    most = analysis.max_batch()
    if most and most < analysis.execution.batch:
        what = "gradients summed over several batches" if analysis.execution.phase is Phase.TRAINING else "more steps"
        yield Change(f"batches of {most}", {"batch": most}, what)
