"""Network in Network: 1x1 convolutions between, global average pooling at the end, no fully connected layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from costmodel.zoo.registry import model

__all__ = ["NetworkInNetwork"]


def _mlpconv(c_in: int, c_out: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    """A convolution and two 1x1 convolutions: a small perceptron slid over the picture."""
    layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, kernel, stride, padding), nn.ReLU(inplace=True)]
    for _ in range(2):
        layers += [nn.Conv2d(c_out, c_out, 1), nn.ReLU(inplace=True)]
    return layers


@model("nin", paper="Lin, Chen, Yan: Network In Network, ICLR 2014 (arXiv 1312.4400); the authors' ImageNet model")
class NetworkInNetwork(nn.Module):
    """Four mlpconv blocks; the last one puts out a map per class, whose mean is the score."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_mlpconv(3, 96, 11, 4, 0),
            nn.MaxPool2d(3, stride=2),
            *_mlpconv(96, 256, 5, 1, 2),
            nn.MaxPool2d(3, stride=2),
            *_mlpconv(256, 384, 3, 1, 1),
            nn.MaxPool2d(3, stride=2),
            nn.Dropout(),
            nn.Conv2d(384, 1024, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, classes, 1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, classes]"""
        return torch.flatten(self.pool(self.features(x)), 1)
