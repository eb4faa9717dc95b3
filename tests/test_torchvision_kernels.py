"""Plain kernels for torchvision's operators: by definition, and against the operators that they generalize."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from costmodel.sources.torchvision_kernels import deform_conv2d, nms, roi_align  # noqa: E402
from costmodel.sources.torchvision_ops import make_importable  # noqa: E402


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_what_nms_keeps_overlaps_little_and_what_it_drops_overlaps_a_better_box(threshold: float) -> None:
    corners = _random(60, 2) * 50
    boxes, scores = torch.cat([corners, corners + 5 + _random(60, 2, seed=1) * 20], 1), _random(60, seed=2)
    kept = nms(boxes, scores, threshold).tolist()
    assert [scores[i] for i in kept] == sorted((scores[i] for i in kept), reverse=True)
    rows = boxes.tolist()
    for i in range(60):
        better = [j for j in kept if scores[j] > scores[i]]
        assert (i in kept) == all(_iou(rows[i], rows[j]) <= threshold for j in better)


def test_nms_of_nothing_is_nothing() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def _moved(offset_groups: int, dy: float, dx: float, size: int) -> torch.Tensor:
    return torch.tensor([dy, dx]).repeat(offset_groups * 9).view(1, -1, 1, 1).expand(1, -1, size, size).contiguous()


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1)])
def test_without_offsets_a_deformable_convolution_is_a_convolution(stride, padding, dilation, groups) -> None:
    image, weight, bias = _random(1, 4, 9, 9), _random(6, 4 // groups, 3, 3), _random(6)
    expected = torch.nn.functional.conv2d(image, weight, bias, stride, padding, dilation, groups)
    offset = _moved(2, 0.0, 0.0, expected.shape[-1])
    steps = (stride, stride, padding, padding, dilation, dilation)
    found = deform_conv2d(image, weight, offset, torch.zeros(1, 0), bias, *steps, groups, 2, False)
    torch.testing.assert_close(found, expected)


def test_offsets_of_whole_pixels_move_the_picture_and_the_mask_weighs_it() -> None:
    image, weight, bias = _random(1, 2, 8, 8), _random(3, 2, 3, 3), torch.zeros(3)
    shifted = torch.zeros_like(image)
    shifted[:, :, :-1, :-2] = image[:, :, 1:, 2:]
    expected = torch.nn.functional.conv2d(shifted, weight)  # valid: no tap lies outside
    offset, mask = _moved(1, 1.0, 2.0, 6), torch.full((1, 9, 6, 6), 0.5)
    found = deform_conv2d(image, weight, offset, mask, bias, 1, 1, 0, 0, 1, 1, 1, 1, True)
    torch.testing.assert_close(found[..., :5, :4], 0.5 * expected[..., :5, :4])


@pytest.mark.parametrize("count", [0, 1, 70])
def test_roi_align_of_a_plane_is_its_value_at_the_middle_of_each_bin(count: int) -> None:
    pytest.importorskip("torchvision") if not make_importable() else None
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    plane = (3 * row + column).view(1, 1, 16, 16)
    corners = 1 + _random(count, 2) * 4
    rois = torch.cat([torch.zeros(count, 1), corners, corners + 8], 1)
    found = roi_align(plane, rois, 1.0, 2, 2, 2, True)
    assert found.shape == (count, 1, 2, 2)
    for region, pooled in zip(rois, found, strict=True):
        for i in range(2):
            for j in range(2):
                y, x = region[2] - 0.5 + 8 * (i + 0.5) / 2, region[1] - 0.5 + 8 * (j + 0.5) / 2
                assert pooled[0, i, j] == pytest.approx(float(3 * y + x), rel=1e-5)
