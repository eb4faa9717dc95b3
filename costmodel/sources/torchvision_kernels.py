"""What torchvision's compiled operators compute, on the CPU and in plain torch, for models that must really run.

They stand in where torchvision's own library does not load (:mod:`costmodel.sources.torchvision_ops`), so that a
detector executed for its course keeps the boxes that it would keep. Slow beside compiled ones; results are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["KERNELS", "deform_conv2d", "nms", "roi_align"]

#: Regions handled together: torchvision's formulation in plain torch holds every sample of every region.
_REGIONS = 64


def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes (x1, y1, x2, y2) kept, best first: each drops what it overlaps by more than the threshold.

    >>> import torch
    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    >>> nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist()        # 0 and 1 overlap by 90 %
    [1, 2]
    """
    import torch

    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = torch.ones(len(boxes), dtype=torch.bool)
    kept = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        sides = (torch.minimum(boxes[i, 2:], boxes[i:, 2:]) - torch.maximum(boxes[i, :2], boxes[i:, :2])).clamp_(min=0)
        common = sides[:, 0] * sides[:, 1]
        alive[i:] &= ~(common / (areas[i] + areas[i:] - common) > iou_threshold)
    return order[torch.tensor(kept, dtype=torch.long)]


def roi_align(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """torchvision's own formulation in plain torch, a few regions at a time."""
    import torch
    from torchvision.ops.roi_align import _roi_align

    plain = getattr(_roi_align, "__wrapped__", _roi_align)  # not the compiled one
    parts = [
        plain(input, some, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned)
        for some in rois.split(_REGIONS)
    ]
    return torch.cat(parts) if parts else input.new_zeros(0, input.shape[1], pooled_height, pooled_width)


def deform_conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    bias: torch.Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> torch.Tensor:
    """A convolution whose taps are moved by ``offset`` (y, x a tap) and, with ``use_mask``, weighed by ``mask``.

    Samples are bilinear and zero outside (torchvision/csrc/ops/cpu/deform_conv2d_kernel.cpp).
    """
    import torch
    from torch.nn import functional

    count, channels, height, width = input.shape
    filters, _, kernel_h, kernel_w = weight.shape
    out_h, out_w = offset.shape[2:]
    taps = kernel_h * kernel_w
    moved = offset.view(count * offset_groups, taps, 2, out_h, out_w)
    images = input.reshape(count * offset_groups, channels // offset_groups, height, width)
    rows = torch.arange(out_h).view(-1, 1) * stride_h - pad_h
    columns = torch.arange(out_w).view(1, -1) * stride_w - pad_w
    sampled = []
    for tap in range(taps):
        y = moved[:, tap, 0] + rows + tap // kernel_w * dilation_h
        x = moved[:, tap, 1] + columns + tap % kernel_w * dilation_w
        grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), -1)
        values = functional.grid_sample(images, grid, align_corners=True)
        if use_mask:
            values = values * mask.view(count * offset_groups, taps, 1, out_h, out_w)[:, tap]
        sampled.append(values.reshape(count, channels, out_h * out_w))
    patches = torch.stack(sampled, 2).view(count, groups, channels // groups * taps, out_h * out_w)
    weights = weight.view(groups, filters // groups, -1)
    return (weights @ patches).view(count, filters, out_h, out_w) + bias.view(-1, 1, 1)


#: Operator -> function, for every operator that has one.
KERNELS: dict[str, Callable[..., Any]] = {"nms": nms, "roi_align": roi_align, "deform_conv2d": deform_conv2d}
