"""Peak memory of training steps on this machine's CPU: predicted against the profiler's timeline of allocations.

    python benchmarks/training_memory.py [--only NAME,NAME] [--optimizer adam]

Each model is trained for two steps at a small batch; in the second, once gradients and the optimizer's state have been
there, every allocation and release of torch's allocator is summed up (``profile_memory=True``). What lay there before
the step is counted by its tensors. The prediction is ``Analysis.memory.peak_bytes``: tensors by their own bytes,
without an allocator's rounding. Exit status 1 where a model is off by more than 5 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import costmodel

MOST_OFF = 0.05
#: A CPU: operators run as PyTorch's CPU backend runs them, and the optimizer goes parameter by parameter.
MACHINE = "xeon-6148"

#: Request -> (batch, sizes): large enough that activations matter, small enough for a laptop.
MODELS: dict[str, tuple[int, dict[str, int]]] = {
    "torchvision:resnet18": (8, {"image_size": 128}),
    "torchvision:resnet50": (4, {"image_size": 128}),
    "torchvision:vgg11": (2, {"image_size": 96}),
    "torchvision:alexnet": (16, {"image_size": 128}),
    "torchvision:densenet121": (4, {"image_size": 96}),
    "torchvision:mobilenet_v2": (8, {"image_size": 96}),
    "torchvision:mobilenet_v3_small": (16, {"image_size": 128}),
    "torchvision:efficientnet_b0": (4, {"image_size": 128}),
    "torchvision:squeezenet1_1": (16, {"image_size": 128}),
    "torchvision:shufflenet_v2_x1_0": (16, {"image_size": 128}),
    "timm:dla34": (4, {"image_size": 128}),
    "torchvision:mnasnet0_5": (16, {"image_size": 128}),
    "torchvision:regnet_y_400mf": (8, {"image_size": 128}),
    "torchvision:convnext_tiny": (2, {"image_size": 128}),
    "timm:vit_tiny_patch16_224": (4, {}),
    "timm:mixer_s32_224": (8, {}),
    "timm:ghostnet_100": (8, {"image_size": 128}),
    "timm:resnext26ts": (4, {"image_size": 128}),
    "timm:swin_tiny_patch4_window7_224": (1, {}),
    "timm:poolformer_s12": (2, {"image_size": 128}),
}


def measured_peak(module: nn.Module, inputs: tuple[Any, ...], make: Callable[[Any], Any]) -> int:
    """B of torch's allocator at most in the second step of training ``module``, with all that lay there before it."""
    optimizer = make(module.parameters())
    target = None

    def step() -> None:
        nonlocal target
        optimizer.zero_grad(set_to_none=True)
        out = module(*inputs)
        if out.dim() == 2 and out.shape[1] > 1:
            target = torch.zeros(out.shape[0], dtype=torch.int64) if target is None else target
            loss = nn.functional.cross_entropy(out, target)
        else:
            loss = out.sum()
        loss.backward()
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=True)
    state = [value for kept in optimizer.state.values() for value in kept.values() if isinstance(value, torch.Tensor)]
    held = [*module.parameters(), *module.buffers(), *inputs, *state, *([] if target is None else [target])]
    before = sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in held}.values())
    return before + most_allocated(step)


def most_allocated(run: Callable[[], object]) -> int:
    """The most B that ``run`` has allocated at once, by the profiler's timeline."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters),
}


def predicted_and_measured(request: str, optimizer: str) -> tuple[int, int]:
    """(predicted, measured) peak B of one model's step."""
    from costmodel.sources import resolve
    from costmodel.sources.building import real_weights

    batch, sizes = MODELS[request]
    analysis = costmodel.analyze(
        request, hw=MACHINE, batch=batch, phase="training", optimizer=optimizer, symbols=(), use_cache=False, **sizes
    )
    with real_weights():
        side = sizes.get("image_size")
        loaded = resolve(request, image_size=None if side is None else (side, side))
    inputs = tuple(
        torch.rand([int(size) for size in spec.shape]) for spec in analysis.model.inputs if spec.dtype == "float32"
    )
    return analysis.memory.peak_bytes, measured_peak(loaded.module.train(), inputs, OPTIMIZERS[optimizer])


def main() -> int:
    """Compare every model, print a line each, and say by the exit status whether all are within 5 %."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--optimizer", default="momentum", choices=OPTIMIZERS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    errors = []
    for request in arguments.only.split(",") if arguments.only else MODELS:
        predicted, measured = predicted_and_measured(request, arguments.optimizer)
        errors.append(predicted / measured - 1)
        both = f"{predicted / 1e6:9.2f} MB predicted {measured / 1e6:9.2f} measured"
        print(f"{request:36} {both} {errors[-1]:+7.2%}", flush=True)
    worst, median = max(map(abs, errors)), statistics.median(map(abs, errors))
    print(f"{len(errors)} models, {arguments.optimizer}: median {median:.2%}, worst {worst:.2%}")
    return int(worst > MOST_OFF)


if __name__ == "__main__":
    sys.exit(main())
