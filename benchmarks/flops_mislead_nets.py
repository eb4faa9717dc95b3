"""The networks of the study `flops_mislead`: groups of variants that FLOPs call equal, or order wrongly.

Each variant is a request that costmodel and torch understand alike; those that no library has are made here:
``benchmarks/flops_mislead_nets.py:NAME``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["EXPERIMENTS", "GPU", "Experiment", "Variant"]

GPU = "gtx1080ti"  # the paper's

DEPTH = 10  # layers of a stack, as in ShuffleNet V2's own micro-networks


@dataclass(frozen=True)
class Variant:
    """One network. ``gpu`` and ``arm``: the published speed over that of the experiment's first variant."""

    name: str
    request: str
    gpu: float | None = None
    arm: float | None = None


@dataclass(frozen=True)
class Experiment:
    """Variants that are compared with one another; the first is the reference."""

    key: str
    title: str
    question: str
    variants: tuple[Variant, ...]
    equal_flops: bool = True


def _zoo(name: str) -> str:
    return f"zoo:shufflenetv2_{name}"


def _own(name: str) -> str:
    return f"{Path(__file__)}:{name}"


#: Ratios of speed in Ma, Zhang, Zheng, Sun, "ShuffleNet V2", arXiv:1807.11164: tables 1 to 4, the smallest size of
#: tables 1 to 3 and 128 channels in table 4, each over the first row; GTX 1080Ti and an ARM core.
EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "G1",
        "G1: unequal channel widths",
        "A 1x1 convolution from c1 to c2 channels and one back, at equal FLOPs.",
        (
            Variant("1:1", _zoo("g1_1to1"), 1.0, 1.0),
            Variant("1:2", _zoo("g1_1to2"), 0.876, 0.957),
            Variant("1:6", _zoo("g1_1to6"), 0.592, 0.907),
            Variant("1:12", _zoo("g1_1to12"), 0.505, 0.756),
        ),
    ),
    Experiment(
        "G2",
        "G2: group convolution",
        "1x1 convolutions in groups, with as many more channels as keep the FLOPs equal.",
        (
            Variant("1 group", _zoo("g2_1groups"), 1.0, 1.0),
            Variant("2 groups", _zoo("g2_2groups"), 0.704, 0.875),
            Variant("4 groups", _zoo("g2_4groups"), 0.419, 0.823),
            Variant("8 groups", _zoo("g2_8groups"), 0.259, 0.695),
        ),
    ),
    Experiment(
        "G3",
        "G3: fragmentation",
        "One 1x1 convolution, or two or four narrower ones in series or side by side, at equal FLOPs.",
        (
            Variant("1 fragment", _zoo("g3_1fragment"), 1.0, 1.0),
            Variant("2 in series", _zoo("g3_2fragment_series"), 0.732, 0.960),
            Variant("4 in series", _zoo("g3_4fragment_series"), 0.307, 0.955),
            Variant("2 in parallel", _zoo("g3_2fragment_parallel"), 0.628, 0.831),
            Variant("4 in parallel", _zoo("g3_4fragment_parallel"), 0.282, 0.870),
        ),
    ),
    Experiment(
        "G4",
        "G4: element-wise operations",
        "Bottlenecks with and without ReLU and shortcut, whose FLOPs are next to nothing.",
        (
            Variant("ReLU and shortcut", _zoo("g4_relu_shortcut"), 1.0, 1.0),
            Variant("ReLU alone", _zoo("g4_relu"), 1.208, 1.040),
            Variant("shortcut alone", _zoo("g4_shortcut"), 1.015, 1.020),
            Variant("neither", _zoo("g4_plain"), 1.241, 1.080),
        ),
    ),
    Experiment(
        "kernel",
        "1x1 against 3x3",
        "A 3x3 convolution of c channels and a 1x1 of 3c have the same FLOPs.",
        (
            Variant("3x3, 64 channels, 56x56", _own("wide_64_56")),
            Variant("1x1, 192 channels, 56x56", _own("pointwise_192_56")),
            Variant("3x3, 256 channels, 14x14", _own("wide_256_14")),
            Variant("1x1, 768 channels, 14x14", _own("pointwise_768_14")),
        ),
    ),
    Experiment(
        "separable",
        "Depthwise separable against standard",
        "A depthwise 3x3 and a 1x1 in place of a 3x3: at equal width, and at (nearly) equal FLOPs.",
        (
            Variant("standard, 64 channels, 56x56", _own("wide_64_56")),
            Variant("separable, 64 channels, 56x56", _own("separable_64_56")),
            Variant("separable, 188 channels, 56x56", _own("separable_188_56")),
            Variant("standard, 256 channels, 14x14", _own("wide_256_14")),
            Variant("separable, 256 channels, 14x14", _own("separable_256_14")),
            Variant("separable, 764 channels, 14x14", _own("separable_764_14")),
        ),
        equal_flops=False,
    ),
    Experiment(
        "resnet",
        "ResNet-50 A to D",
        "Tweaks that add a few per cent of FLOPs; the paper of variant D calls its cost slight.",
        (
            Variant("A", "zoo:resnet50_a"),
            Variant("B", "timm:resnet50"),
            Variant("C", "timm:resnet50c"),
            Variant("D", "timm:resnet50d"),
        ),
        equal_flops=False,
    ),
    Experiment(
        "channels",
        "60 to 68 channels",
        "3x3 convolutions of c channels on 28x28 maps: FLOPs grow with c squared, time in steps of the vector width.",
        tuple(Variant(str(c), _own(f"wide_{c}_28")) for c in range(60, 69)),
        equal_flops=False,
    ),
    Experiment(
        "im2col",
        "Explicit im2col against the library's convolution",
        "The same convolution as unfold and one matrix product, and as conv2d.",
        (
            Variant("conv2d, 64 channels, 56x56", _own("wide_64_56")),
            Variant("unfold and GEMM, 64 channels, 56x56", _own("im2col_64_56")),
            Variant("conv2d, 256 channels, 14x14", _own("wide_256_14")),
            Variant("unfold and GEMM, 256 channels, 14x14", _own("im2col_256_14")),
        ),
    ),
)


# -- networks ----------------------------------------------------------------------------------------


def _stack(layer: Callable[[int], Any], channels: int, size: int) -> Any:
    import torch
    from torch import nn

    return nn.Sequential(*(layer(channels) for _ in range(DEPTH))), torch.zeros(1, channels, size, size)


def _wide(channels: int) -> Any:
    from torch import nn

    return nn.Conv2d(channels, channels, 3, padding=1)


def _pointwise(channels: int) -> Any:
    from torch import nn

    return nn.Conv2d(channels, channels, 1)


def _separable(channels: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1))


def _im2col(channels: int) -> Any:
    from costmodel.zoo.im2col import Im2colConv2d

    return Im2colConv2d(channels, channels)


_LAYERS = {"wide": _wide, "pointwise": _pointwise, "separable": _separable, "im2col": _im2col}


def _factory(name: str) -> Callable[[], Any]:
    """``wide_64_56`` -> what makes ten 3x3 convolutions of 64 channels on 56x56 maps, and their input."""
    kind, channels, size = name.split("_")
    return lambda: _stack(_LAYERS[kind], int(channels), int(size))


for _experiment in EXPERIMENTS:
    for _variant in _experiment.variants:
        if _variant.request.startswith(str(Path(__file__))):
            _name = _variant.request.rpartition(":")[2]
            setattr(sys.modules[__name__], _name, _factory(_name))
