"""The micro-networks of ShuffleNet V2's four guidelines (arXiv 1807.11164, tables 1 to 4): equal MACs, unequal speed.

Ten blocks of nothing but what a guideline is about, on 56x56 maps. The channel counts are the tables' for the GPU.
What the paper leaves open is decided here: no batch normalisation; fragments in parallel are added; in G4 ``c`` is
the outer width and the 3x3 has c/4, as ResNet's own bottleneck (with a 3x3 of width c, the 5.0 pictures/s that
table 4 reports on an ARM core would be five times the MAC/s of that core's 1x1 convolutions in table 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from costmodel.zoo.registry import model

__all__ = ["BottleneckUnit", "Fragments", "bottlenecks", "channel_ratio", "fragmented", "group_convolutions"]

BLOCKS = 10
MAP = {"height": 56, "width": 56}
PAPER = "Ma, Zhang, Zheng, Sun: ShuffleNet V2, ECCV 2018 (arXiv 1807.11164), table {}"


def _dims(channels: int) -> tuple[int | str, ...]:
    return ("batch", channels, "height", "width")


def channel_ratio(c1: int, c2: int) -> nn.Module:
    """G1: ten times a 1x1 convolution from c1 to c2 channels and one back."""
    layers = [conv for _ in range(BLOCKS) for conv in (nn.Conv2d(c1, c2, 1), nn.Conv2d(c2, c1, 1))]
    return nn.Sequential(*layers)


for _ratio, _c1, _c2 in (("1to1", 128, 128), ("1to2", 90, 180), ("1to6", 52, 312), ("1to12", 36, 432)):
    model(f"shufflenetv2_g1_{_ratio}", paper=PAPER.format(1), dims=_dims(_c1), sizes=MAP, c1=_c1, c2=_c2)(channel_ratio)


def group_convolutions(channels: int, groups: int) -> nn.Module:
    """G2: ten 1x1 group convolutions; the channels grow with the groups so that the MACs stay."""
    return nn.Sequential(*(nn.Conv2d(channels, channels, 1, groups=groups) for _ in range(BLOCKS)))


for _groups, _c in ((1, 128), (2, 180), (4, 256), (8, 360)):
    model(
        f"shufflenetv2_g2_{_groups}groups",
        paper=PAPER.format(2),
        dims=_dims(_c),
        sizes=MAP,
        channels=_c,
        groups=_groups,
    )(group_convolutions)


class Fragments(nn.Module):
    """One block of G3: 1x1 convolutions side by side, their outputs added."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.fragments = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width], kept"""
        outputs = [fragment(x) for fragment in self.fragments]
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total


def fragment_channels(channels: int, fragments: int) -> int:
    """The even width at which ``fragments`` convolutions cost the MACs of one of width ``channels``.

    >>> fragment_channels(128, 1), fragment_channels(128, 2), fragment_channels(128, 4)
    (128, 90, 64)
    """
    return 2 * round(channels / math.sqrt(fragments) / 2)


def fragmented(channels: int, count: int, parallel: bool) -> nn.Module:
    """G3: ten blocks of ``count`` 1x1 convolutions of this width, in series or side by side."""
    if parallel:
        return nn.Sequential(*(Fragments(channels, count) for _ in range(BLOCKS)))
    return nn.Sequential(*(nn.Conv2d(channels, channels, 1) for _ in range(BLOCKS * count)))


for _count, _parallel in ((1, False), (2, False), (4, False), (2, True), (4, True)):
    _c = fragment_channels(128, _count)
    _order = "" if _count == 1 else "_parallel" if _parallel else "_series"
    model(
        f"shufflenetv2_g3_{_count}fragment{_order}",
        paper=PAPER.format(3),
        dims=_dims(_c),
        sizes=MAP,
        channels=_c,
        count=_count,
        parallel=_parallel,
    )(fragmented)


class BottleneckUnit(nn.Module):
    """One block of G4: 1x1, 3x3, 1x1, with or without ReLU and shortcut."""

    def __init__(self, channels: int, relu: bool, shortcut: bool) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3 = nn.Conv2d(inner, channels, 1)
        self.relu, self.shortcut = relu, shortcut

    def _activated(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.relu else x

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width], kept"""
        y = self._activated(self.conv1(x))
        y = self.conv3(self._activated(self.conv2(y)))
        return self._activated(x + y if self.shortcut else y)


def bottlenecks(channels: int, relu: bool, shortcut: bool) -> nn.Module:
    """G4: ten bottleneck units."""
    return nn.Sequential(*(BottleneckUnit(channels, relu, shortcut) for _ in range(BLOCKS)))


for _name, _relu, _shortcut in (
    ("relu_shortcut", True, True),
    ("relu", True, False),
    ("shortcut", False, True),
    ("plain", False, False),
):
    model(
        f"shufflenetv2_g4_{_name}",
        paper=PAPER.format(4),
        dims=_dims(128),
        sizes=MAP,
        channels=128,
        relu=_relu,
        shortcut=_shortcut,
    )(bottlenecks)
