"""What a step holds in memory, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

import costmodel


class Holds(nn.Module):
    """A product with a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.zeros(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.matrix


def test_tensors_that_are_plain_attributes_lie_in_memory() -> None:
    """Input 2 x 8, constant 8 x 4, result 2 x 4: 16 + 32 + 8 elements of 4 B."""
    memory = costmodel.analyze(Holds(), torch.empty(2, 8), hw="a100").memory
    assert memory.constant_bytes == 32 * 4
    assert memory.peak_bytes == (16 + 32 + 8) * 4
