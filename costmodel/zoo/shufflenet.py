"""ShuffleNet V1: grouped 1x1 convolutions, and a shuffle so that the groups hear of each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from costmodel.zoo.registry import model

__all__ = ["ShuffleNetV1", "channel_shuffle"]

#: Output channels of stage 2 by number of groups; stages 3 and 4 double them (the paper's table 1).
STAGE2_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel i*n + j moves to j*groups + i (n channels a group): no arithmetic, one read and write of the tensor."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class _Unit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to the shortcut, or set beside it at stride 2."""

    def __init__(self, c_in: int, c_out: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        middle = c_out // 4
        self.groups, self.stride = groups, stride
        c_branch = c_out - c_in if stride == 2 else c_out
        self.conv1 = nn.Conv2d(c_in, middle, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, c_branch, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(c_branch)

    def forward(self, x: Tensor) -> Tensor:
        y = channel_shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        if self.stride == 1:
            return F.relu(x + y)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, stride=2, padding=1), y], dim=1))


@model(
    "shufflenet_v1",
    paper="Zhang, Zhou, Lin, Sun: ShuffleNet, CVPR 2018 (arXiv 1707.01083), table 1, g=3, 1x: 140 M multiply-adds",
)
class ShuffleNetV1(nn.Module):
    """Stages of 4, 8 and 4 units; the very first 1x1 has few channels and is not grouped."""

    def __init__(self, groups: int = 3, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        c_in, units = 24, []
        for stage, depth in enumerate((4, 8, 4)):
            c_out = STAGE2_CHANNELS[groups] * 2**stage
            for i in range(depth):
                first_groups = 1 if stage == i == 0 else groups
                units.append(_Unit(c_in, c_out, 2 if i == 0 else 1, groups, first_groups))
                c_in = c_out
        self.stages = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, classes]"""
        return self.fc(torch.flatten(self.pool(self.stages(self.stem(x))), 1))
