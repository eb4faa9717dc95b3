"""Connectionist temporal classification by loops that count: loss and gradient are torch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from costmodel.formulas.registry import cost_of
from costmodel.tensor import TensorSpec, f32

from . import counting
from .counting import Counted, exp, log, max_

torch = pytest.importorskip("torch")
STEPS, CLASSES, TARGET = 5, 4, [1, 2, 2]
STATES = [0 if i % 2 == 0 else TARGET[i // 2] for i in range(2 * len(TARGET) + 1)]
NOTHING = -math.inf


def folded(a: Any, b: Any, c: Any) -> Any:
    """log(exp a + exp b + exp c): 2 comparisons, 3 differences, 3 exponentials, 2 sums, a logarithm, a sum."""
    m = max_(max_(a, b), c)
    shift = Counted(0.0) if m.value == NOTHING else m  # as torch does where no path leads here
    total = exp(a - shift) + exp(b - shift) + exp(c - shift)
    return (log(total) if total.value else counting.apply("log", lambda _: NOTHING, total)) + m


def recursion(log_probs: Any, states: list[int], first: list[Any]) -> list[list[Any]]:
    """alpha of every step; a step before the first two states, and a jump that is not allowed, is minus infinity."""
    rows = [first]
    for step in range(1, STEPS):
        before, row = rows[-1], []
        for s, label in enumerate(states):
            jumps = s > 1 and label not in (0, states[s - 2])
            ahead = before[s - 1] if s else Counted(NOTHING)
            row.append(folded(before[s], ahead, before[s - 2] if jumps else Counted(NOTHING)) + log_probs[step, label])
        rows.append(row)
    return rows


def starts(log_probs: Any, states: list[int]) -> list[Any]:
    return [log_probs[0, label] if s < 2 else Counted(NOTHING) for s, label in enumerate(states)]


def added(a: Any, b: Any) -> Any:
    """log(exp a + exp b): a comparison, two differences, two exponentials, a sum, a logarithm, a sum."""
    m = max_(a, b)
    shift = Counted(0.0) if m.value == NOTHING else m
    total = exp(a - shift) + exp(b - shift)
    return (log(total) if total.value else counting.apply("log", lambda _: NOTHING, total)) + m


def test_loss_and_gradient() -> None:
    raw = torch.randn(STEPS, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    log_probs = np.vectorize(Counted, otypes=[object])(raw.numpy())
    with counting.counting() as forward:
        alpha = recursion(log_probs, STATES, starts(log_probs, STATES))
        loss = -added(alpha[-1][-1], alpha[-1][-2])
    operand = raw.clone()[:, None].requires_grad_()
    expected = torch.nn.functional.ctc_loss(operand, torch.tensor([TARGET]), [STEPS], [len(TARGET)], reduction="sum")
    assert float(loss) == pytest.approx(float(expected.detach()))

    g, gradient = Counted(1.0), np.empty((STEPS, CLASSES), dtype=object)
    with counting.counting() as backward:
        turned = log_probs[::-1]
        beta = recursion(turned, STATES[::-1], starts(turned, STATES[::-1]))
        for t in range(STEPS):
            by_class = [Counted(NOTHING) for _ in range(CLASSES)]
            for s, label in enumerate(STATES):
                by_class[label] = added(by_class[label], alpha[t][s] + beta[STEPS - 1 - t][len(STATES) - 1 - s])
            for c in range(CLASSES):
                lp = log_probs[t, c]
                gradient[t, c] = (exp(lp) - exp(by_class[c] + loss - lp)) * g
    (by_torch,) = torch.autograd.grad(expected, operand)
    assert np.allclose(counting.values(gradient).astype(float), by_torch[:, 0].numpy())

    specs = {"log_probs": f32(STEPS, 1, CLASSES), "targets": TensorSpec((1, 3), "int64")}
    states = f32(1, STEPS, len(STATES))
    cost = cost_of("aten._ctc_loss", specs, (f32(1), states))
    assert cost is not None
    assert cost.vector_flops == forward.flops
    saved = {"grad": f32(1), "neg_log_likelihood": f32(1), "log_alpha": states}
    cost = cost_of("aten._ctc_loss_backward", {**specs, **saved}, f32(STEPS, 1, CLASSES))
    assert cost is not None
    assert cost.vector_flops == backward.flops
