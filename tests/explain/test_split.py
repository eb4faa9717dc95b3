"""The split adds up whatever the model, machine and mode; each cause appears where it must and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costmodel.explain import CAUSES, split
from costmodel.hardware import load
from costmodel.hardware.calibration import Calibration, KernelTime
from tests.explain.networks import NETWORKS, analysis

MACHINES = ("a100", "h100", "v100", "t4", "p100", "rtx4090", "mi100", "epyc-milan-2c", "i9-10940x")


def parts(name, layout="nchw", **changes):
    return split(analysis(name, layout, **changes))


# -- the sum --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eager", "compile"])
@pytest.mark.parametrize("hw", MACHINES)
@pytest.mark.parametrize(
    "name", ["excited", "normed", "grouped", "depthwise 7x7", "attention", "small convs", "windows"]
)
def test_what_flops_say_and_the_parts_are_the_latency(name, hw, mode):
    for dtype in ("fp32", "fp16", "amp_fp16") if not load(hw).is_cpu else ("fp32",):
        found = parts(name, hw=hw, mode=mode, dtype=dtype)
        assert found.latency_s == pytest.approx(found.analysis.latency, rel=1e-9)
        assert sum(c.seconds for c in found.causes) == pytest.approx(found.latency_s - found.flops_alone_s, rel=1e-9)
        assert {part.cause for part in found.parts} <= set(CAUSES)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("hw", ["a100", "v100", "epyc-milan-2c"])
def test_the_parts_of_a_node_are_its_row(name, hw):
    for mode in ("eager", "compile"):
        found = parts(name, hw=hw, mode=mode)
        for node, row in enumerate(found.analysis.rows()):
            got = sum(found.by_node.get(node, {}).values())
            never_run = row.latency_s == 0 and row.flops > 0  # FLOPs alone, taken back as work that is not run
            assert got == pytest.approx(row.latency_s, rel=1e-9, abs=1e-15), (row.name, never_run)


def test_a_network_of_a_library_adds_up_too():
    import costmodel

    whole = costmodel.analyze("torchvision:shufflenet_v2_x0_5", hw="a100")
    for changes in ({}, {"mode": "compile"}, {"hw": "t4", "batch": 16}, {"hw": "epyc-milan-2c"}, {"dtype": "amp_bf16"}):
        other = whole.at(**changes)
        assert split(other).latency_s == pytest.approx(other.latency, rel=1e-9)


# -- FLOPs alone ----------------------------------------------------------------------------------


def test_flops_alone_are_all_flops_at_the_peak_of_most_of_them():
    found = parts("3x3")  # fp32 convolutions run in TF32 on an A100: 156 TFLOP/s dense
    macs = 64 * 56 * 56 * 64 * 64 * 9
    assert found.peak.flop_per_s == pytest.approx(156e12, rel=0.01)
    assert found.flops_alone_s == pytest.approx(2 * macs / found.peak.flop_per_s)
    assert parts("3x3", dtype="fp16").peak.flop_per_s == pytest.approx(312e12, rel=0.01)
    assert parts("3x3", hw="v100").peak.flop_per_s == pytest.approx(15.7e12, rel=0.02)
    assert parts("one relu").peak.flop_per_s == pytest.approx(19.5e12, rel=0.01)  # no products: the vector lanes


# -- causes, each against its counterexample ------------------------------------------------------


def test_a_host_that_takes_no_time_keeps_nobody_waiting():
    now = analysis("small convs")
    assert split(now).seconds("host") > 0.5 * now.latency
    assert split(now.at(host="instant")).seconds("host") == pytest.approx(0, abs=1e-15)
    assert split(now).seconds("host") == pytest.approx(now.latency - now.at(host="instant").latency)


def test_casts_are_those_of_autocast():
    assert parts("3x3", dtype="amp_fp16").seconds("casts") > 0
    assert parts("3x3", dtype="fp16").seconds("casts") == 0


def test_layout_copies_vanish_in_channels_last():
    assert parts("3x3").seconds("layout") > 0
    assert parts("3x3", "nhwc").seconds("layout") == 0
    assert parts("3x3", hw="v100").seconds("layout") == 0  # fp32 lanes take NCHW as it lies


def test_half_of_two_chained_kernels_is_their_intermediate_result():
    """Two kernels read N and write N values each; a fused one would read N and write N: half of the traffic."""
    found = parts("two relus")
    kernels_s = found.seconds("elementwise", "unfused")
    assert found.seconds("unfused") == pytest.approx(kernels_s / 2, rel=0.01)
    assert parts("one relu").seconds("unfused") == 0
    assert parts("two relus", mode="compile").seconds("unfused") == 0


def test_winograd_is_a_gain_where_it_runs():
    assert parts("3x3 of 256", hw="v100").seconds("winograd") < 0
    assert parts("3x3 dilated", hw="v100").seconds("winograd") == 0
    assert parts("3x3 of 256").seconds("winograd") == 0  # tensor cores: implicit GEMM


def test_channels_cost_where_they_are_no_multiple_of_64():
    assert parts("1x1 of 68").seconds("channels") > 0
    assert parts("1x1 of 128").seconds("channels") == 0


def test_depthwise_and_groups_have_causes_of_their_own():
    assert parts("depthwise 3x3").seconds("depthwise") > parts("depthwise 3x3").seconds("tiles")
    assert parts("3x3").seconds("depthwise") == 0
    narrow = parts("grouped", dtype="fp16")
    assert narrow.seconds("grouping") == 0  # groups of 45 channels fill a tile's depth of 32 by themselves


def test_an_explicit_matrix_of_windows_is_im2col():
    assert parts("windows").seconds("im2col") > 0
    assert parts("3x3").seconds("im2col") == 0


def test_products_on_other_units_are_named():
    """In an fp32 network on an A100 convolutions run on TF32 tensor cores, a head on the fp32 lanes."""
    found = parts("conv and head")
    macs = 64 * 128 * 1000  # the head's
    lanes, tensor_cores = (
        found.analysis.hardware.peak(*of).flop_per_s for of in (("vector", "fp32"), ("matrix", "tf32"))
    )
    assert found.seconds("other_units") == pytest.approx(2 * macs / lanes - 2 * macs / tensor_cores, rel=1e-6)
    assert parts("conv and head", dtype="tf32").seconds("other_units") == pytest.approx(0, abs=1e-15)
    assert parts("attention").seconds("other_units") == 0


def test_a_cpu_faults_in_the_pages_of_large_results_only():
    large = parts("3x3", hw="epyc-milan-2c", batch=64)  # 64 x 64 x 56 x 56 x 4 B = 51 MB
    small = parts("3x3", hw="epyc-milan-2c", batch=16)
    assert large.seconds("page_faults") > 0
    assert small.seconds("page_faults") == 0
    assert small.seconds("framework") > 0
    assert small.seconds("host") == 0


def test_a_calibrated_cpu_adds_up_and_names_what_it_has_measured():
    """20 us of fixed time a convolution; 64 x 64 x 56 x 56 results of 4 B are 12 544 pages of 1 us on one thread."""
    kinds = {
        "conv_kxk": KernelTime(hot_s=20e-6, cold_s=20e-6, flop_per_s=100e9),
        "reorder_activations": KernelTime(activation_bytes_per_s=20e9),
        "reorder_weights": KernelTime(weight_bytes_per_s=10e9),
    }
    measured = Calibration(kernels=kinds, operator_bytes=(1.0,), cold_share=(1.0,), page_fault_s=1e-6, threads=1)
    found = parts("3x3", hw=replace(load("epyc-milan-2c"), calibration=measured))
    assert found.latency_s == pytest.approx(found.analysis.latency, rel=1e-9)
    assert found.seconds("framework") == pytest.approx(20e-6)
    assert found.seconds("layout") > 0
    macs = 64 * 56 * 56 * 64 * 64 * 9
    arithmetic = found.flops_alone_s + found.seconds("achievable")
    assert arithmetic == pytest.approx(2 * macs / 100e9, rel=1e-6)


def test_caches_only_gain():
    for hw in MACHINES:
        assert parts("normed", hw=hw).seconds("cache_hits") <= 0
    assert parts("normed", batch=1).seconds("cache_hits") < 0


def test_an_unknown_cause_is_refused():
    with pytest.raises(KeyError):
        parts("one relu").seconds("phlogiston")


def test_every_cause_has_words():
    for name, cause in CAUSES.items():
        assert cause.name == name
        assert cause.label and cause.meaning
