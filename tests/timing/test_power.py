"""Power and energy: laws that hold whatever the constants are."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

from costmodel import analyze
from costmodel.analysis import Analysis
from costmodel.errors import InputError
from costmodel.hardware import load, names
from costmodel.kernels.shapes import Window
from costmodel.timing import KernelSeconds
from costmodel.timing.convolution import executed_share
from costmodel.timing.gpu import gpu_model
from costmodel.timing.power import POWER, Load, Power, slowed, windows

GPUS = sorted(name for name in names() if load(name).is_gpu)


@pytest.fixture(scope="module")
def resnet() -> Analysis:
    return analyze("resnet18", hw="a40", batch=64, dtype="amp_fp16")


def test_energies_of_rows_add_up_to_the_step_and_are_watts_times_seconds(resnet: Analysis) -> None:
    totals = resnet.totals
    assert sum(row.energy_j for row in resnet.rows()) == pytest.approx(totals.energy_j)
    assert sum(row.energy_j for row in resnet.rows("type")) == pytest.approx(totals.energy_j)
    assert totals.power_w is not None
    assert totals.energy_j == pytest.approx(totals.power_w * totals.latency_s)


def test_a_lower_limit_never_takes_less_time_nor_draws_more_than_it_allows(resnet: Analysis) -> None:
    assert resnet.hardware.power_w == 300
    before = resnet.at(power_limit=300)
    for watts in (250, 200, 160, 140, 120):
        now = resnet.at(power_limit=watts)
        assert now.latency >= before.latency * (1 - 1e-9)
        least = Power(now.hardware).waiting_w(Power(now.hardware).least_hz)
        assert now.timeline.power_w <= max(watts, least) * 1.01
        before = now
    assert before.latency > 1.2 * resnet.latency


def test_a_limit_that_nothing_reaches_changes_nothing(resnet: Analysis) -> None:
    unlimited = dataclasses.replace(resnet.hardware, power_w=None)
    free = resnet.at(hw=unlimited)
    drawn = free.timeline.power_w
    roomy = resnet.at(hw=dataclasses.replace(resnet.hardware, power_w=1.5 * drawn))
    assert roomy.latency == free.latency
    assert roomy.totals.energy_j == free.totals.energy_j
    assert all(slot.held_hz is None for slot in roomy.timeline)


def test_what_a_limit_costs_is_a_line_of_the_split_and_a_finding(resnet: Analysis) -> None:
    from costmodel.explain import findings, split

    capped = resnet.at(power_limit=150)
    parts = split(capped)
    assert parts.latency_s == pytest.approx(capped.latency)
    free = split(resnet.at(hw=dataclasses.replace(resnet.hardware, power_w=None)))
    assert parts.seconds("power") == pytest.approx(capped.latency - free.latency_s, rel=0.1)
    assert free.seconds("power") == 0
    said = [finding for finding in findings(capped) if finding.rule == "power_limited"]
    assert len(said) == 1 and "150 W" in said[0].message
    assert not [finding for finding in findings(free.analysis) if finding.rule == "power_limited"]


def test_a_limit_above_the_boards_own_is_refused(resnet: Analysis) -> None:
    with pytest.raises(InputError, match="300 W at most"):
        resnet.at(power_limit=400)
    for wrong in (0, -5, "much", True):
        with pytest.raises(InputError):
            resnet.at(power_limit=wrong)
    assert resnet.at(power_limit="0.2 kW").latency == resnet.at(power_limit=200).latency


def test_a_limit_holds_on_every_machine_that_it_was_asked_for() -> None:
    capped = analyze("resnet18", hw="a40", batch=64, dtype="amp_fp16", power_limit=200)
    assert capped.at(hw="rtx3090").hardware.power_limit_w == 200
    assert capped.at(batch=8).hardware.power_limit_w == 200
    with pytest.raises(InputError, match="70 W at most"):
        capped.at(hw="t4")


@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_has_a_process_and_fits_into_its_limit_when_it_idles(name: str) -> None:
    profile = load(name)
    power = Power(profile)
    assert 0 < power.static_w < power.waiting_w(profile.clock_hz)
    assert profile.power_w is None or power.waiting_w(power.least_hz) < profile.power_w


def test_voltage_never_falls_below_its_floor_nor_rises_as_the_clock_falls() -> None:
    for process in POWER.processes.values():
        volts = [process.voltage(share * process.reference_hz) for share in (1.0, 0.9, 0.7, 0.5, 0.1)]
        assert volts == sorted(volts, reverse=True)
        assert volts[0] == 1.0 and volts[-1] >= process.least_voltage > 0


def test_a_kernel_of_traffic_alone_is_not_slowed_and_one_of_arithmetic_is() -> None:
    traffic, arithmetic = KernelSeconds(0.0, 1.0, 0.0), KernelSeconds(1.0, 0.0, 0.0)
    assert slowed(traffic, 2e9, 1e9).seconds() == 1.0
    assert slowed(arithmetic, 2e9, 1e9).seconds() == 2.0


def test_idle_time_around_a_kernel_lets_it_run_faster() -> None:
    power = Power(load("t4"))
    one = Load(KernelSeconds(1e-3, 0.0, 0.0), 1.0, 1.59e9, 0.15, 0.0)
    load_ = [(one, power.kind(one), 1)]
    steady, between_pauses = power.held_hz(load_, 0.0), power.held_hz(load_, 0.0, 2e-3)
    assert power.least_hz < steady < between_pauses


def test_windows_cover_a_step_without_gaps() -> None:
    seconds = [0.01 * (1 + i % 7) for i in range(100)]
    found = list(windows(seconds, 0.1))
    assert found[0][0] == 0 and found[-1][1] == len(seconds)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    assert len(found) == int(math.fsum(seconds) / 0.1)


def test_a_cpu_draws_its_package_limit_and_slows_below_it() -> None:
    base = analyze("resnet18", hw="i7-12700h", batch=1)
    assert base.totals.power_w == pytest.approx(45)
    capped = base.at(power_limit=28)
    assert capped.latency > base.latency
    assert capped.totals.power_w == pytest.approx(28)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_winograd_executes_what_its_tiles_multiply(size):
    """F(m x m, r x r): (m + r - 1)^2 products for m^2 outputs of r^2 taps each, counted product by product."""
    window = Window(batch=8, in_channels=64, height=56, width=56, out_channels=64, kernel=(3, 3), padding=(1, 1))
    five = dataclasses.replace(window, kernel=(5, 5), padding=(2, 2))
    cases = {
        2: ("winograd", window, 2, 3),
        3: ("winograd_nonfused", window, 4, 3),
        5: ("winograd_nonfused", five, 4, 5),
    }
    name, shape, m, r = cases[size]
    products = sum(1 for _ in range(m + r - 1) for _ in range(m + r - 1))
    taps = sum(1 for _ in range(m * m) for _ in range(r * r))
    assert executed_share(name, shape) == pytest.approx(products / taps)
    assert executed_share("implicit_gemm", shape) == 1


def test_a_convolution_by_winograd_draws_less_than_the_same_products():
    """On a V100 a large 3x3 convolution in fp32 runs by Winograd, and pays for the products that Winograd makes."""
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False)
    now = analyze(layer, torch.empty(64, 256, 56, 56), hw="v100")
    (kernel,) = (kernel for kernel in now.plan.kernels if kernel.matrix_flops)
    model = gpu_model(now.hardware)
    direct, executed = model.power.switched_j(kernel), model.switched_j(kernel)
    arithmetic = model.power.process.lane_pj_per_flop * kernel.matrix_flops * 1e-12
    share = executed_share(model.convolved(kernel.shape.window).algorithm, kernel.shape.window)
    assert share < 1
    assert direct - executed == pytest.approx((1 - share) * arithmetic)
