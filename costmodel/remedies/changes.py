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
def _checkpointed(analysis: Analysis) -> Iterator[Change]:
    """Blocks run again instead of keeping what they made."""
    if _trains(analysis) and analysis.execution.trained.checkpoint == "none":
        yield Change(
            "checkpointed blocks", {"checkpoint": "blocks"},
            "torch.utils.checkpoint around each repeated block, which runs again in the backward pass",
        )  # fmt: skip


@_change
def _smaller_batch(analysis: Analysis) -> Iterator[Change]:
    """The same samples in smaller batches."""
    most = analysis.max_batch()
    if most and most < analysis.execution.batch:
        what = "gradients summed over several batches, of which batch norm sees each by itself"
        yield Change(f"batches of {most:,}", {"batch": most}, what if _trains(analysis) else "more steps", True)


@_change
def _narrow_weights(analysis: Analysis) -> Iterator[Change]:
    """Linear layers' weights in 8 or 4 bits: outputs change, by little or not so little."""
    execution = analysis.execution
    if not _trains(analysis) and execution.weights is None and execution.precision.autocast is None:
        for word, bits in (("int8", 8), ("int4", 4)):
            what = f"weights of linear layers in {bits} bits, by groups with a scale each"
            yield Change(f"{word} weights", {"weights": word}, what)


@_change
def _plain_sgd(analysis: Analysis) -> Iterator[Change]:
    """Two states of an Adam, or one of momentum, less."""
    if _trains(analysis) and analysis.execution.optimizer.states:
        several = len(analysis.execution.optimizer.states) > 1 and not analysis.record.sparse_rows
        instead = "momentum" if several else "sgd"
        kept = "one state a weight instead of two" if instead == "momentum" else "no state"
        yield Change(f"{'SGD with momentum' if instead == 'momentum' else 'plain SGD'}", {"optimizer": instead}, kept)


@_change
def _states_in_bytes(analysis: Analysis) -> Iterator[Change]:
    """The same algorithm with both states quantized by blocks."""
    if _trains(analysis) and analysis.execution.optimizer.algorithm in ("adam", "adamw"):
        yield Change("8-bit Adam", {"optimizer": "adam8bit"}, "bitsandbytes.optim.Adam8bit: states as bytes")


@_change
def _low_rank(analysis: Analysis) -> Iterator[Change]:
    """Weights frozen, small ones trained beside them."""
    if _trains(analysis) and analysis.execution.trained.trainable == "all":
        yield Change(
            "low-rank weights", {"trainable": "lora:16"}, "LoRA of rank 16 beside linear layers, and the last layer"
        )


@_change
def _frozen(analysis: Analysis) -> Iterator[Change]:
    """Only the last layer is trained."""
    if _trains(analysis) and analysis.execution.trained.trainable != "head":
        yield Change("frozen weights", {"trainable": "head"}, "only the last layer is trained")


def _trains(analysis: Analysis) -> bool:
    return analysis.execution.phase is Phase.TRAINING
