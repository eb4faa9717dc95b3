"""A small character CNN in three versions: fully connected, with a 1x1 bottleneck, with global average pooling.

Embedding, a convolution over three characters and the whole embedding (1 to 24 maps), a Conv1d over three (24 to
48), the maps of both set side by side, and a head for two classes. The article that teaches it writes ``nn.Conv1d``
with a two-dimensional kernel, which PyTorch refuses; this is what it means. Its figures fix the sizes: at 300
characters, maps halved after each convolution give 24*150 + 48*75 = 7200 features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from costmodel.zoo.registry import model

__all__ = ["CharCNN", "CharCNNWithPooling"]

LENGTH = 300
#: Zhang, Zhao, LeCun: Character-level Convolutional Networks for Text Classification, NIPS 2015: 70 characters.
ALPHABET, EMBEDDING = 70, 16
CLASSES = 2
PAPER = "after Kim: Convolutional Neural Networks for Sentence Classification, EMNLP 2014; and Zhang et al., NIPS 2015"


class _TwoMaps(nn.Module):
    """Characters to the maps of both convolutions: [batch, 24, length/2] and [batch, 48, length/4]."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ALPHABET, EMBEDDING)
        self.first = nn.Conv2d(1, 24, (3, EMBEDDING), padding=(1, 0))
        self.bn1 = nn.BatchNorm1d(24)
        self.second = second
        self.bn2 = nn.BatchNorm1d(48)
        self.pool = nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(x).unsqueeze(1)
        first = self.pool(torch.relu(self.bn1(self.first(embedded).squeeze(-1))))
        return first, self.pool(torch.relu(self.bn2(self.second(first))))


def plain_second() -> nn.Module:
    """Conv1d 24 to 48 over three characters: 3*24*48 + 48 = 3504 parameters."""
    return nn.Conv1d(24, 48, 3, padding=1)


def bottleneck_second() -> nn.Module:
    """A 1x1 to 12 channels first: 24*12 + 12 + 3*12*48 + 48 = 2076 parameters."""
    return nn.Sequential(nn.Conv1d(24, 12, 1), nn.Conv1d(12, 48, 3, padding=1))


@model(
    "char_cnn", paper=PAPER, dims=("batch", "seq_len"), dtype="int64", sizes={"seq_len": LENGTH}, second=plain_second
)
@model(
    "char_cnn_bottleneck",
    paper=PAPER,
    dims=("batch", "seq_len"),
    dtype="int64",
    sizes={"seq_len": LENGTH},
    second=bottleneck_second,
)
class CharCNN(nn.Module):
    """Both maps flattened into 7200 features and two fully connected layers: 300 characters, no more, no fewer."""

    def __init__(self, second: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.maps = _TwoMaps(second())
        self.head = nn.Sequential(
            nn.Linear(24 * LENGTH // 2 + 48 * LENGTH // 4, 128), nn.ReLU(inplace=True), nn.Linear(128, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 300] of character numbers -> [batch, 2]"""
        maps = [torch.flatten(m, 1) for m in self.maps(x)]
        return self.head(torch.cat(maps, dim=1))


@model("char_cnn_gap", paper=PAPER, dims=("batch", "seq_len"), dtype="int64", sizes={"seq_len": LENGTH})
class CharCNNWithPooling(nn.Module):
    """1x1 convolutions to a map per class, averaged: any length, and 1 328 parameters where the head had 921 986.

    Head of the first maps: 24*2 + 2 and a BN of 2*2, 54. Of the second: 48*24 + 24, a BN of 2*24, 24*2 + 2: 1274.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps = _TwoMaps(bottleneck_second())
        self.head1 = nn.Sequential(nn.Conv1d(24, CLASSES, 1), nn.BatchNorm1d(CLASSES), nn.AdaptiveAvgPool1d(1))
        self.head2 = nn.Sequential(
            nn.Conv1d(48, 24, 1),
            nn.BatchNorm1d(24),
            nn.ReLU(inplace=True),
            nn.Conv1d(24, CLASSES, 1),
            nn.AdaptiveAvgPool1d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, seq_len] of character numbers -> [batch, 2]"""
        first, second = self.maps(x)
        return (self.head1(first) + self.head2(second)).squeeze(-1)
