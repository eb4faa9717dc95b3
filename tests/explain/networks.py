"""Small networks, each with one thing that FLOPs do not show, and their analyses."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import costmodel
from costmodel.analysis import Analysis


class Excited(nn.Module):
    """A convolution whose channels are scaled by a gate computed from their means."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.reduce, self.expand = nn.Conv2d(channels, channels // 16, 1), nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x):
        x = self.conv(x)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Scaled(nn.Module):
    """A convolution whose channels are scaled by weights."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        return self.conv(x) * self.scale


class Branches(nn.Module):
    """Convolutions side by side, added; or one after the other."""

    def __init__(self, count: int, parallel: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(count))
        self.parallel = parallel

    def forward(self, x):
        if not self.parallel:
            return nn.Sequential(*self.convs)(x)
        return sum(conv(x) for conv in self.convs)


class Joined(nn.Module):
    def forward(self, x):
        return torch.cat([x, x], dim=1)


class Windows(nn.Module):
    """A 3x3 convolution by hand: the matrix of windows, and a product."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 9 * channels))

    def forward(self, x):
        return self.weight @ F.unfold(x, 3, padding=1)


class Attention(nn.Module):
    """One block of a transformer."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return x + F.gelu(self.out(y.transpose(1, 2).flatten(2)))


class Projections(nn.Module):
    """Queries, keys and values of a decoder's layer, and attention over them."""

    def __init__(self, width: int = 4096) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x):
        q, k, v = (part(x).unflatten(-1, (32, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class ReadsBack(nn.Module):
    """Convolutions, before each of which the host reads a number from the device, or from its own memory."""

    def __init__(self, on_device: bool) -> None:
        super().__init__()
        self.convs = convs(*[256] * 9, bias=False)
        gain = torch.tensor(2.0)
        self.register_buffer("gain", gain) if on_device else setattr(self, "gain", gain)

    def forward(self, x):
        for conv in self.convs:
            x = conv(x) * self.gain.item()
        return x


class Checkpointed(nn.Module):
    """Two blocks whose inside is not kept for the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(normed(64) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


def convs(*channels: int, kernel: int = 3, **options) -> nn.Sequential:
    """Convolutions one after the other, maps kept."""
    dilation = options.get("dilation", 1)
    options.setdefault("padding", dilation * (kernel - 1) // 2)
    return nn.Sequential(*(nn.Conv2d(a, b, kernel, **options) for a, b in pairwise(channels)))


def separable(kernel: int) -> nn.Sequential:
    """A depthwise convolution and a 1x1 convolution."""
    return nn.Sequential(convs(64, 64, kernel=kernel, groups=64, bias=False), convs(64, 64, kernel=1, bias=False))


def normed(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )


def image(channels: int = 64, size: int = 56, batch: int = 1) -> torch.Tensor:
    return torch.empty(batch, channels, size, size)


#: Name -> (module, input). Built when asked for.
NETWORKS = {
    "one relu": lambda: (nn.ReLU(), image(batch=64)),
    "two relus": lambda: (nn.Sequential(nn.Tanh(), nn.ReLU()), image(batch=64)),
    "3x3": lambda: (convs(64, 64, bias=False), image(batch=64)),
    "3x3 with bias": lambda: (convs(64, 64), image(batch=64)),
    "3x3 of 256": lambda: (convs(256, 256, 256, 256, bias=False), image(256, 28, 64)),
    "3x3 on 7x7": lambda: (convs(512, 512, 512, bias=False), image(512, 7, 64)),
    "3x3 dilated": lambda: (convs(256, 256, 256, dilation=2, bias=False), image(256, 28, 64)),
    "1x1": lambda: (convs(64, 64, kernel=1, bias=False), image(batch=64)),
    "1x1 of 128": lambda: (convs(128, 128, 128, kernel=1, bias=False), image(128, batch=64)),
    "1x1 of 68": lambda: (convs(68, 68, 68, kernel=1, bias=False), image(68, batch=64)),
    "1x1 and 3x3": lambda: (nn.Sequential(convs(128, 128, kernel=1), convs(128, 128)), image(128, batch=64)),
    "conv and head": lambda: (
        nn.Sequential(convs(128, 128, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1000)),
        image(128, batch=64),
    ),
    "reads the device": lambda: (ReadsBack(True), image(256, 28, 8)),
    "reads the host": lambda: (ReadsBack(False), image(256, 28, 8)),
    "small convs": lambda: (convs(*[32] * 21, bias=False), image(32, 14)),
    "checkpointed": lambda: (Checkpointed(), image(batch=32)),
    "normed": lambda: (nn.Sequential(normed(64), normed(64)), image(batch=32)),
    "depthwise 3x3": lambda: (separable(3), image(batch=32)),
    "depthwise 7x7": lambda: (separable(7), image(batch=32)),
    "grouped": lambda: (convs(360, 360, 360, kernel=1, groups=8, bias=False), image(360, batch=32)),
    "stem": lambda: (nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), convs(64, 64, 64, 64)), image(3, 224, 16)),
    "excited": lambda: (Excited(), image(batch=16)),
    "scaled": lambda: (Scaled(), image(batch=16)),
    "branches": lambda: (Branches(4, parallel=True), image(batch=16)),
    "series": lambda: (Branches(4, parallel=False), image(batch=16)),
    "joined": lambda: (Joined(), image(batch=16)),
    "windows": lambda: (Windows(), image(batch=16)),
    "layer": lambda: (nn.Linear(4096, 4096), torch.empty(1, 4096)),
    "layers": lambda: (nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(4))), torch.empty(4096, 4096)),
    "q, k, v": lambda: (Projections(), torch.empty(1, 4096, 4096)),
    "tiny layers": lambda: (nn.Sequential(*(nn.Linear(8, 8) for _ in range(9))), torch.empty(1, 8)),
    "attention": lambda: (Attention(), torch.empty(2, 197, 128)),
}


@cache
def traced(name: str, layout: str = "nchw") -> Analysis:
    """The analysis of a network on an A100, at the batch of its input."""
    module, x = NETWORKS[name]()
    return costmodel.analyze(module.eval(), x, hw="a100", layout=layout)


def analysis(name: str, layout: str = "nchw", **changes) -> Analysis:
    """A network under other conditions, traced once a session."""
    return traced(name, layout).at(**changes)
