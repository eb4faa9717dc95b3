"""A convolution written out as im2col and one matrix product: what "convolution as GEMM" means."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from costmodel.zoo.registry import model

__all__ = ["Im2colConv2d"]


@model(
    "im2col_conv",
    paper="Chellapilla, Puri, Simard: High Performance Convolutional Neural Networks for Document Processing, 2006",
    dims=("batch", 64, "height", "width"),
    sizes={"height": 56, "width": 56},
)
class Im2colConv2d(nn.Module):
    """y = W [C_out, C_in·K·K] @ unfold(x) [C_in·K·K, H_out·W_out]: equal to Conv2d, with the matrix in memory.

    The default is the 3x3 convolution of ResNet's first stage: its matrix is 9 times the input.
    """

    def __init__(self, c_in: int = 64, c_out: int = 64, kernel: int = 3, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = nn.Parameter(torch.empty(c_out, c_in * kernel * kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as Conv2d's own

    def forward(self, x: Tensor) -> Tensor:
        """[batch, C_in, height, width] -> [batch, C_out, H_out, W_out]"""
        height, width = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in x.shape[-2:])
        columns = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)
        return torch.matmul(self.weight, columns).view(x.shape[0], -1, height, width)
