"""ResNet-50-A: the bottleneck of the first ResNet paper, which halves the map in its first 1x1.

timm and torchvision ship the later variants: B (stride in the 3x3) is ``resnet50``, C ``resnet50c``, D ``resnet50d``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from costmodel.zoo.registry import model

__all__ = ["ResNet50A"]


def _conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(c_out))


class _BottleneckA(nn.Module):
    """1x1 (with the stride), 3x3, 1x1 to four times the width, and a shortcut."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv_bn(c_in, width, 1, stride)
        self.conv2 = _conv_bn(width, width, 3)
        self.conv3 = _conv_bn(width, 4 * width, 1)
        same = stride == 1 and c_in == 4 * width
        self.shortcut = nn.Identity() if same else _conv_bn(c_in, 4 * width, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))
        y = self.relu(self.conv2(y))
        return self.relu(self.conv3(y) + self.shortcut(x))


@model("resnet50_a", paper="He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, table 1")
class ResNet50A(nn.Module):
    """Stages of 3, 4, 6 and 3 bottlenecks of width 64, 128, 256, 512."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))
        c_in, stages = 64, []
        for stage, depth in enumerate((3, 4, 6, 3)):
            width = 64 * 2**stage
            strides = [1 if stage == 0 else 2] + [1] * (depth - 1)
            stages.append(
                nn.Sequential(*(_BottleneckA(c_in if i == 0 else 4 * width, width, s) for i, s in enumerate(strides)))
            )
            c_in = 4 * width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, classes]"""
        return self.fc(torch.flatten(self.pool(self.stages(self.stem(x))), 1))
