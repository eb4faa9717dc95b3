"""What a training step asks of the host besides its operators, measured on this machine's CPU.

    python benchmarks/training_host.py

Tiny tensors, so that a call's time is Python, dispatcher and autograd. Prints each figure of
``costmodel/host/costs.py`` ``TrainingCosts`` beside what this machine takes, over its slowdown against the reference
core (``costmodel calibrate --host-only`` measures the same). Tenth percentiles: a neighbour can only add time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F

from costmodel.host.costs import MODERN
from costmodel.measure.calibrate_host import host_figures, host_slowdown

#: Calls, functions or parameters in one timing.
COUNT = 200


def quiet_us(run: Callable[[], Any], prepare: Callable[[], Any] = lambda: None, rounds: int = 120) -> float:
    """µs of ``run``, the tenth percentile of its rounds; ``prepare`` is not timed."""
    taken = []
    for _ in range(rounds):
        prepare()
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return 1e6 * sorted(taken)[rounds // 10]


def differentiated() -> float:
    """A cheap operator with autograd over the same without, µs."""
    x, leaf = torch.ones(1, 8), torch.ones(1, 8, requires_grad=True)

    def repeated(tensor: torch.Tensor) -> Callable[[], None]:
        return lambda: [F.relu(tensor) for _ in range(COUNT)] and None  # type: ignore[func-returns-value]

    with torch.inference_mode():
        plain = quiet_us(repeated(x))
    return (quiet_us(repeated(leaf)) - plain) / COUNT


def backward_us(grown: Callable[[torch.Tensor, torch.nn.Parameter], torch.Tensor]) -> float:
    """µs of the backward pass of one link of a chain."""
    parameters = [torch.nn.Parameter(torch.ones(8)) for _ in range(COUNT)]
    seed, last = torch.ones(8), [torch.ones(())]

    def build() -> None:
        y = parameters[0] * 2.0
        for parameter in parameters:
            parameter.grad = None
            y = grown(y, parameter)
        last[0] = y

    return quiet_us(lambda: torch.autograd.backward([last[0]], [seed]), build) / COUNT


def begun() -> float:
    """A backward pass of one function, less that function, µs."""
    leaf, last = torch.ones((), requires_grad=True), [torch.ones(())]

    def build() -> None:
        last[0] = leaf + 1.0

    return quiet_us(lambda: last[0].backward(), build)


def optimizer_us(kind: Any, count: int, **options: Any) -> tuple[float, float]:
    """µs of ``step`` and ``zero_grad`` over ``count`` parameters in Python alone: what they call does nothing."""
    parameters = [torch.nn.Parameter(torch.ones(8)) for _ in range(count)]
    gradient, optimizer = torch.ones(8), kind(parameters, **options)
    names = [name for name in dir(torch) if name.startswith(("_foreach_", "_fused_"))]
    real = {name: getattr(torch, name) for name in names}

    def give() -> None:
        for parameter in parameters:
            parameter.grad = gradient

    give()
    optimizer.step()
    try:
        for name in names:
            makes = not name.endswith("_")
            setattr(torch, name, (lambda of, *_, **__: [gradient] * len(of)) if makes else (lambda *_, **__: None))
        step = quiet_us(optimizer.step, give)
    finally:
        for name, function in real.items():
            setattr(torch, name, function)
    return step, quiet_us(optimizer.zero_grad, give)


def figures() -> dict[str, float]:
    """Every figure of ``TrainingCosts`` that a CPU shows, µs on this machine."""
    function = backward_us(lambda y, _: y + 1.0)
    multiplied = backward_us(lambda y, _: y * 2.0)
    kept = backward_us(lambda y, p: y + p * 2.0) - function - multiplied
    viewed = backward_us(lambda y, _: y.view(8)) - function
    steps = {
        name: [optimizer_us(kind, count, foreach=True, **options) for count in (50, COUNT)]
        for name, kind, options in (
            ("sgd", torch.optim.SGD, {}),
            ("momentum", torch.optim.SGD, {"momentum": 0.9}),
            ("adam", torch.optim.Adam, {}),
        )
    }
    slope = {name: (many[0] - few[0]) / (COUNT - 50) for name, (few, many) in steps.items()}
    zeroed = (steps["sgd"][1][1] - steps["sgd"][0][1]) / (COUNT - 50)
    state = slope["momentum"] - slope["sgd"]
    counts = [torch.zeros(()) for _ in range(COUNT)]
    counted = quiet_us(lambda: torch._foreach_add_(counts, torch.tensor(1.0), alpha=1.0)) / COUNT
    return {
        "differentiated": differentiated(),
        "view": viewed,
        "begun": begun() - function,
        "function": function,
        "accumulated": kept,
        "step": sum(steps["sgd"][0]) - 50 * (slope["sgd"] + zeroed),
        "parameter": slope["sgd"] + zeroed,
        "state": state,
        "counted": slope["adam"] - slope["sgd"] - 2 * state + counted,
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    slowdown = host_slowdown(host_figures(rounds=100))
    found = figures()
    print(f"this machine takes {slowdown:.2f} times as long as the reference core (torch {torch.__version__})")
    print(f"{'':16}{'measured':>10}{'on the reference':>18}{'shipped':>10}   [µs]")
    for field in fields(MODERN.training):
        shipped = getattr(MODERN.training, field.name)
        own = found.get(field.name)
        shown = f"{own:10.2f}{own / slowdown:18.2f}" if own is not None else f"{'':10}{'estimated':>18}"
        print(f"{field.name:16}{shown}{shipped:10.2f}")


if __name__ == "__main__":
    main()
