"""Recurrent networks in training on CUDA: one call of cuDNN each way, which the meta device has no backward of.

On meta, autograd runs an LSTM as a product and a cell for each time step. CUDA calls ``_cudnn_rnn`` and
``_cudnn_rnn_backward`` (aten/src/ATen/native/cudnn/RNN.cpp, torch 2.13): :class:`_Recurrent` stands for both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from costmodel.formulas.recurrent import GATES, MODES

__all__ = ["KINDS", "recurrent"]

#: Names of torch's functions -> the number that cuDNN gives the recurrence.
KINDS = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}


class _Recurrent(torch.autograd.Function):
    """All layers and directions in one call, forward and backward, recorded as such; nothing is computed."""

    @staticmethod
    def forward(
        ctx: Any, recorder: Any, options: dict[str, Any], input: torch.Tensor, hx: torch.Tensor, cx: Any, *weight: Any
    ) -> Any:
        """``(output, hy, cy)``, ``cy`` empty unless an LSTM runs."""
        ctx.set_materialize_grads(False)
        directions, gates = 2 if options["bidirectional"] else 1, weight[0].shape[0]
        tokens, hidden = input.numel() // input.shape[-1], gates // GATES[MODES[options["mode"]]]
        with _disable_current_modes():
            output = input.new_empty((*input.shape[:-1], directions * hx.shape[-1]))
            hy, cy = torch.empty_like(hx), input.new_empty(0) if cx is None else torch.empty_like(cx)
            # For the backward pass, the gates and the state of every token, layer and direction are kept.
            reserve = input.new_empty((hx.shape[0] * tokens, gates + hidden))
        operands = {"input": input, "weight": list(weight), "hx": hx, "cx": cx}
        recorder.record_call("aten._cudnn_rnn", {**operands, **options}, (output, hy, cy, reserve))
        ctx.recorder, ctx.options, ctx.operands, ctx.kept = recorder, options, operands, (output, reserve)
        ctx.mark_non_differentiable(cy) if cx is None else None
        return output, hy, cy

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients of input, first states and weights, where they are asked for."""
        _, _, *needed = ctx.needs_input_grad
        operands, (output, reserve) = ctx.operands, ctx.kept
        given = [operands["input"], operands["hx"], operands["cx"], *operands["weight"]]
        with _disable_current_modes():
            results = [torch.empty_like(t) if n else None for t, n in zip(given, needed, strict=True)]
        mask = [*map(bool, needed[:3]), any(needed[3:])]
        names = ("grad_output", "grad_hy", "grad_cy")
        arguments = {**operands, "output": output, **dict(zip(names, gradients, strict=True)), "reserve": reserve}
        made = tuple(r for r in results if r is not None)
        ctx.recorder.record_call("aten._cudnn_rnn_backward", {**arguments, **ctx.options, "output_mask": mask}, made)
        return None, None, *results


def recurrent(name: str, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``torch.lstm`` and its kin give, recorded as cuDNN's call. Packed sequences run as on meta."""
    input, hx, *rest = args
    recorder = _get_current_dispatch_mode()
    if kwargs or not input.is_meta or isinstance(rest[0], torch.Tensor) or recorder is None:
        return original(*args, **kwargs)
    weight, _, _, dropout, train, bidirectional, batch_first = rest
    first, cell = hx if name == "lstm" else (hx, None)
    options = {"mode": KINDS[name], "batch_first": batch_first, "dropout": dropout, "train": train}
    options["bidirectional"] = bidirectional
    output, hy, cy = _Recurrent.apply(recorder, options, input, first, cell, *weight)  # type: ignore[no-untyped-call]
    return (output, hy, cy) if name == "lstm" else (output, hy)
