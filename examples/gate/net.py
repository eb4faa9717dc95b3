"""A small network whose costs are held to costs.json."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x + self.conv2(torch.relu(self.conv1(x)))


class Net(nn.Module):
    """A stem, three blocks and a classifier."""

    def __init__(self, inner: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.blocks = nn.Sequential(*(Block(64, inner) for _ in range(3)))
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 10)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def make(inner: int = 64) -> tuple[nn.Module, torch.Tensor]:
    """The network and a picture."""
    return Net(inner), torch.zeros(1, 3, 64, 64)
