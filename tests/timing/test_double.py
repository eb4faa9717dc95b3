"""Double precision: at the peak that a profile states for it, and said where none is known."""

from __future__ import annotations

import pytest

from costmodel import analyze
from costmodel.hardware import load

torch = pytest.importorskip("torch")
N = 2048


class Product(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


class Power(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.pow(x, 2.5)


class Filter(torch.nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def seconds(module: torch.nn.Module, x: torch.Tensor, hw: str, **how: str) -> tuple[float, float]:
    """Device seconds in fp32 and in fp64."""
    single = analyze(module.float(), x.float(), hw=hw, host="instant", **how)
    double = analyze(module.double(), x.double(), hw=hw, host="instant", **how)
    return single.latency, double.latency


@pytest.mark.parametrize("hw", ["rtx3090", "t4", "l40s", "gtx1080ti", "a100", "h100-sxm-80gb", "mi210", "rx6800"])
@pytest.mark.parametrize("mode", ["eager", "compile"])
def test_no_product_is_faster_than_its_peak(hw: str, mode: str) -> None:
    profile = load(hw)
    peaks = [peak for engine in ("vector", "matrix") if (peak := profile.find_peak(engine, "fp64"))]
    assert peaks
    _, double = seconds(Product(), torch.empty(N, N, device="meta"), hw, mode=mode)
    assert double >= 2 * N**3 / max(peak.flop_per_s for peak in peaks)


@pytest.mark.parametrize(("hw", "ratio"), [("rtx3090", 64), ("gtx1080ti", 32), ("v100-pcie-32gb", 2)])
def test_products_on_lanes_take_longer_by_the_ratio_of_the_peaks(hw: str, ratio: float) -> None:
    single, double = seconds(Product(), torch.empty(N, N, device="meta"), hw)
    assert double / single == pytest.approx(ratio, rel=0.25)


@pytest.mark.parametrize("hw", ["rtx3090", "a100"])
def test_a_sum_moves_twice_the_bytes(hw: str) -> None:
    single, double = seconds(Sum(), torch.empty(64, N, N, device="meta"), hw)
    assert double / single == pytest.approx(2, rel=0.05)


def test_what_calculates_long_is_held_to_the_lanes() -> None:
    """A power is 45 lane cycles: hidden by the traffic in fp32, 64 times as long on a GeForce in fp64."""
    x = torch.empty(64, N, N, device="meta")
    single, double = seconds(Power(), x, "rtx3090")
    on_data_centre_lanes = seconds(Power(), x, "a100")
    assert double / single > 10
    assert on_data_centre_lanes[1] / on_data_centre_lanes[0] < 4


@pytest.mark.parametrize("groups", [1, 64])
@pytest.mark.parametrize("phase", ["inference", "training"])
def test_convolutions_are_no_faster_than_the_lanes(groups: int, phase: str) -> None:
    x = torch.empty(32, 64, 28, 28, device="meta")
    macs = 32 * 28 * 28 * 64 * 9 * 64 // groups
    _, double = seconds(Filter(groups), x, "rtx3090", phase=phase)
    assert double >= 2 * macs * (1 if phase == "inference" else 2) / load("rtx3090").peak("vector", "fp64").flop_per_s


def test_kernels_name_the_units_that_they_run_on() -> None:
    found = analyze(Power().double(), torch.empty(4, 4, dtype=torch.float64), hw="rtx3090")
    assert {kernel.dtype for kernel in found.plan.kernels if kernel.vector_flops} == {"fp64"}


def test_a_machine_without_a_figure_says_so() -> None:
    linear, x = torch.nn.Linear(8, 8).double(), torch.empty(2, 8, dtype=torch.float64)
    (note,) = analyze(linear, x, hw="jetson-agx-orin-64gb").dtype_notes
    assert "no peak in fp64 is known" in note
    (note,) = analyze(linear, x, hw="rtx3090").dtype_notes
    assert "64 times slower" in note
    (note,) = analyze(linear, x, hw="mi250x").dtype_notes
    assert "as fast as in fp32" in note
