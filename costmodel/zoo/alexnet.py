"""AlexNet as the paper drew it, over two GPUs, and ZFNet, which looked inside and widened it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from costmodel.zoo.registry import model

__all__ = ["AlexNet2012", "ZFNet"]


def _classifier(features: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(features, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, classes),
    )


@model(
    "alexnet_2012",
    paper="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012",
)
class AlexNet2012(nn.Module):
    """Convolutions 2, 4 and 5 see only the maps of their own GPU: two groups.

    The paper says 224x224 pictures; its 55x55 maps need 227, or a padding of 2, which is used here.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        normalize = nn.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            normalize,
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            normalize,
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = _classifier(256 * 6 * 6, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, 224, 224] -> [batch, classes]"""
        return self.classifier(torch.flatten(self.features(x), 1))


@model("zfnet", paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4.1")
class ZFNet(nn.Module):
    """7x7 stride 2 first, then 512, 1024, 512 maps in convolutions 3 to 5 (the paper's table 3, last row).

    Maps are 110, 55, 26, 13 and 6 wide, as in the paper's figure 3.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        normalize = nn.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            normalize,
            nn.Conv2d(96, 256, 5, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            normalize,
            nn.Conv2d(256, 512, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(512, 1024, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 512, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = _classifier(512 * 6 * 6, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, 224, 224] -> [batch, classes]"""
        return self.classifier(torch.flatten(self.features(x), 1))
