"""Kernels as functions of the batch are those that the rules give, and only where the rules go the same way."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import costmodel  # noqa: E402
from costmodel.kernels import by_batch as made  # noqa: E402
from costmodel.kernels.by_batch import Affine, NotAffine, Region  # noqa: E402


class Mixed(torch.nn.Module):
    """Depthwise and dense convolutions, a strided copy, attention scores and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = torch.nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.dense = torch.nn.Conv2d(64, 32, 3)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.dense(self.depthwise(x)).flatten(2).transpose(1, 2)
        scores = (maps @ maps.transpose(1, 2)).softmax(-1)
        return self.head((scores @ maps).mean(1))


def analysis(**conditions: str) -> costmodel.Analysis:
    return costmodel.analyze(Mixed(), (torch.rand(2, 64, 24, 24, device="meta"),), **conditions)


@pytest.mark.parametrize("dtype", ["fp32", "amp_fp16"])
@pytest.mark.parametrize("hw", ["a100", "t4"])
def test_every_batch_gives_the_kernels_of_the_rules(hw: str, dtype: str) -> None:
    again = analysis(hw=hw, dtype=dtype)
    for batch in (3, 4, 5):
        assert again.at(batch=batch).latency > 0
    found = [functions for key, groups in again.record.memo.items() if key[0] == "kernels by batch"
             for known in groups for _, functions in known.functions]  # fmt: skip
    assert found and any(callable(function) for function in found[0])
    for batch in (1, 2, 7, 64, 1000):
        assert again.at(batch=batch).plan.kernels == analysis(hw=hw, dtype=dtype).at(batch=batch).plan.kernels


def test_a_kernel_that_changes_with_the_batch_does_so_here() -> None:
    # channels_last fp16: beyond 2^31 elements another depthwise kernel runs (64 * 24 * 24 elements an image).
    last = (2**31 - 1) // (64 * 24 * 24)
    again = analysis(hw="a100", dtype="fp16", layout="nhwc")
    plans = {batch: again.at(batch=batch).plan for batch in (3, 4, 5, last, last + 1, last + 2, last + 3, last + 4, 6)}
    kinds = {batch: {getattr(kernel.shape, "depthwise", None) for kernel in plan.kernels} - {None}
             for batch, plan in plans.items()}  # fmt: skip
    assert kinds[5] == kinds[last] == kinds[6] != kinds[last + 1]
    assert kinds[last + 1] == kinds[last + 4]


def test_sums_multiples_and_comparisons() -> None:
    region = Region(8)
    batch = Affine(0, 1, region)
    size = math.prod((3, batch, 5)) + 6
    assert made.by_batch(size // 3)(10) == 52  # type: ignore[misc]
    assert (7 * batch) // batch == 7 and type((7 * batch) // batch) is int
    assert size % 3 == 0
    assert max(size, 100) is size and (region.first, region.last) == (7, 2**31)  # 15 * 7 + 6 is the first above 100
    assert batch != 12 and (region.first, region.last) == (7, 11)


@pytest.mark.parametrize("use", [lambda b: b * b, lambda b: b // 3, lambda b: b % 2, float, hash, lambda b: b / 2, int])
def test_other_uses_are_refused(use: object) -> None:
    with pytest.raises(NotAffine):
        use(Affine(0, 1, Region(8)))  # type: ignore[operator]


def test_comparisons_hold_in_the_whole_region() -> None:
    for slope in (-3, -1, 2, 5):
        for constant in range(-20, 21, 3):
            for compare in (int.__lt__, int.__le__, int.__gt__, int.__ge__, int.__eq__, int.__ne__):
                region = Region(4)
                size, name = Affine(constant, slope, region), compare.__name__
                here = getattr(size, name)(0)
                assert 4 in region
                for batch in range(region.first, min(region.last, 40) + 1):
                    assert compare(constant + slope * batch, 0) == here, (constant, slope, name, batch)
