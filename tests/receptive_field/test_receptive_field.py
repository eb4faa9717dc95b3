"""Receptive fields against what a gradient really reaches, published figures, and windows counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from costmodel.receptive_field import Field, receptive_fields
from costmodel.traced import load_trace


def reached(module: nn.Module, side: int, channels: int = 2) -> tuple[int, int]:
    """Elements of the input, along height and width, that the middle position of the output depends on.

    All weights are positive and nothing saturates, so that no two paths cancel; the picture is large enough for
    the window not to touch its edges.
    """
    module = module.double().eval()
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.5)
    x = torch.ones(1, channels, side, side, dtype=torch.float64, requires_grad=True)
    y = module(x)
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    touched = x.grad[0].abs().sum(0) > 0
    spans = [torch.nonzero(touched.any(axis)).flatten() for axis in (1, 0)]
    return tuple(int(s[-1] - s[0] + 1) for s in spans)


class Branches(nn.Module):
    """Branches of unequal fields, added and concatenated, with channels shuffled between."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(2, 2, 5, padding=2)
        self.narrow = nn.Conv2d(2, 2, 1)
        self.tall = nn.Conv2d(2, 2, (7, 1), padding=(3, 0))
        self.last = nn.Conv2d(4, 2, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 2, H, W] -> [1, 2, H/2, W/2]"""
        both = torch.cat([self.wide(x) + self.narrow(x), self.tall(x)], 1)
        n, c, h, w = both.shape
        return self.last(both.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class OffCentre(nn.Module):
    """Two branches of the same size that look to different sides: together they see more than either."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 2, H, W] -> the same"""
        pad = nn.functional.pad
        return self.left(pad(x, (2, 0, 2, 0))) + self.right(pad(x, (0, 2, 0, 2)))


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


CASES = {
    "dilated": chain(nn.Conv2d(2, 2, 3, padding=2, dilation=2), nn.Conv2d(2, 2, 3, padding=3, dilation=3)),
    "strided": chain(nn.Conv2d(2, 2, 7, stride=2, padding=3), nn.AvgPool2d(3, 2, 1), nn.Conv2d(2, 2, 3, padding=1)),
    "grouped": chain(nn.Conv2d(2, 2, (3, 5), groups=2, padding=(1, 2)), nn.BatchNorm2d(2), nn.ReLU()),
    "branches": Branches(),
    "off centre": OffCentre(),
    "transposed": chain(nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)),
    "resampled": chain(nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 1)),
    "unshuffled": chain(nn.PixelUnshuffle(2), nn.Conv2d(8, 2, 3, padding=1)),
    "same": chain(nn.Conv2d(2, 2, 4, padding="same")),
}


@pytest.mark.parametrize("name", CASES)
def test_field_is_what_a_gradient_reaches(name: str, traced) -> None:
    module, side = CASES[name], 48
    graph = traced(module, torch.empty(1, 2, side, side, device="meta"))
    fields = receptive_fields(graph)[-1]
    assert fields is not None
    assert tuple(f.size for f in fields) == reached(module, side)


class Pooled(nn.Module):
    """A gate from the mean of the map: every position sees all of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 2, H, W] -> the same"""
        return x * x.mean((2, 3), keepdim=True)


class Tokens(nn.Module):
    """Patches, flattened to tokens, attended over."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.attends = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 2, H, W] -> [1, H*W/16, 8]"""
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        heads = tokens.unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads).squeeze(1) if self.attends else tokens


class WrittenOut(Tokens):
    """The same attention as products and a softmax."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 2, H, W] -> [1, H*W/16, 8]"""
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        return (tokens @ tokens.transpose(-2, -1)).softmax(-1) @ tokens


def last_sizes(graph) -> tuple[int, ...] | None:
    fields = receptive_fields(graph)[-1]
    return None if fields is None else tuple(f.size for f in fields)


def test_pooling_attention_and_flattening_see_the_whole_map(traced) -> None:
    x = torch.empty(1, 2, 16, 12, device="meta")
    assert last_sizes(traced(Pooled(), x)) == (16, 12)
    tokens = Tokens()
    assert last_sizes(traced(tokens, x)) == (4, 4)
    tokens.attends = True
    assert last_sizes(traced(tokens, x)) == (16, 12)
    assert last_sizes(traced(WrittenOut(), x)) == (16, 12)
    flat = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 16 * 12, 5))
    assert last_sizes(traced(flat, x)) == (16 + 2, 12 + 2)


def test_what_no_window_describes_is_not_guessed(traced) -> None:
    class Rolled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.roll(x, 3, 2) + x

    class Windows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, c, h, w = x.shape
            return x.view(n, c, h // 4, 4, w)

    for module in (Rolled(), Windows()):
        assert receptive_fields(traced(module, torch.empty(1, 2, 16, 16, device="meta")))[-1] is None


#: The last map's field: Araujo et al., Distill 2019, table of networks (their VGG-16 counts the last pooling,
#: their AlexNet is alexnet_v2, which torchvision ships too).
PUBLISHED = {
    "alexnet": ("aten.max_pool2d", 195),
    "vgg16": ("aten.max_pool2d", 212),
    "mobilenet_v1": ("aten.conv2d", 315),
    "torchvision:inception_v3": ("aten.cat", 1311),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_receptive_fields(name: str) -> None:
    op, size = PUBLISHED[name]
    graph = load_trace(name).graph.bind({"batch": 1})
    found = [f for node, f in zip(graph.nodes, receptive_fields(graph), strict=True) if node.op == op and f]
    assert [axis.size for axis in found[-1]] == [size, size]
    assert {axis.jump for axis in found[-1]} == {32}


def test_closed_form_of_a_chain() -> None:
    """1 + sum of (k - 1) * d * (product of the strides before), by loop."""
    layers = [(7, 2, 1), (3, 2, 1), (3, 1, 2), (5, 3, 1), (1, 2, 1)]
    size, jump, field = 1, 1, Field()
    for kernel, stride, dilation in layers:
        size += (kernel - 1) * dilation * jump
        jump *= stride
        field = field.through(kernel, stride=stride, dilation=dilation)
    assert (field.size, field.jump) == (size, jump)
