"""The [calibration] tables of a hardware file: read with their units, and checked against themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel import hardware

HEAD = """
name = "mine"
title = "My CPU"
vendor = "Me"
kind = "cpu"
[units]
count = 2
clock = "2 GHz"
source = "measured"
[vector.fp32]
peak = "100 GFLOP/s"
source = "measured"
[memory.dram]
type = "DRAM"
bandwidth = "20 GB/s"
source = "measured"
"""
COMMON = """
[calibration]
threads = 2
operator_bytes = ["10 kB", "1 MB"]
cold_share = [0.5, 1.0]
page_fault = "1.9 µs"
source = "costmodel calibrate -o mine.toml"
"""
RELU = """
[calibration.relu]
hot = "2 µs"
cold = "18 µs"
elements = [0, 1000]
time = ["0 µs", "3 µs"]
"""


def errors(directory: Path, text: str) -> list[str]:
    path = directory / "mine.toml"
    path.write_text(HEAD + text, encoding="utf-8")
    return [str(problem) for problem in hardware.check(path) if problem.severity == "error"]


def test_figures_are_read_in_si_units(tmp_path: Path) -> None:
    conv = '[calibration.conv_1x1]\nrate = "135 GFLOP/s"\nactivations = "18 GB/s"\nweights = "11 GB/s"\n'
    assert errors(tmp_path, COMMON + RELU + conv) == []
    found = hardware.load(tmp_path / "mine.toml").calibration
    assert found is not None
    assert found.threads == 2 and found.page_fault_s == pytest.approx(1.9e-6)
    assert (found.operator_bytes, found.cold_share) == ((1e4, 1e6), (0.5, 1.0))
    relu, conv_1x1 = found.kernels["relu"], found.kernels["conv_1x1"]
    assert (relu.hot_s, relu.cold_s, *relu.time_s) == pytest.approx((2e-6, 18e-6, 0.0, 3e-6))
    assert relu.elements == (0, 1000)
    assert (conv_1x1.flop_per_s, conv_1x1.activation_bytes_per_s, conv_1x1.weight_bytes_per_s) == (135e9, 18e9, 11e9)


def test_a_profile_without_calibration_has_none() -> None:
    assert hardware.load("epyc-milan-2c").calibration is None


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        (('time = ["0 µs", "3 µs"]', 'time = ["0 µs"]'), "calibration.relu.time", "1 values for 2 elements"),
        (("elements = [0, 1000]", "elements = [1000, 0]"), "calibration.relu.time", "must rise"),
        (('"3 µs"]', '"-3 µs"]'), "calibration.relu.time", "list of texts with a unit of s"),
        (('"0 µs", "3 µs"', '"4 µs", "3 µs"'), "calibration.relu.time", "must not fall"),
        (('cold = "18 µs"', 'cold = "1 µs"'), "calibration.relu.cold", "less than hot"),
        (('hot = "2 µs"', "hot = 2"), "calibration.relu.hot", "unit"),
        (('hot = "2 µs"', 'hott = "2 µs"'), "calibration.relu.hott", "did you mean hot"),
        (("cold_share = [0.5, 1.0]", "cold_share = [0.5, 2.0]"), "calibration.cold_share", "from 0 to 1"),
        (("cold_share = [0.5, 1.0]", "cold_share = [0.5]"), "calibration.cold_share", "1 values for 2"),
        (('operator_bytes = ["10 kB"', 'operator_bytes = ["10 ms"'), "calibration.operator_bytes", "unit of B"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, change: tuple[str, str], where: str, words: str) -> None:
    text = COMMON + RELU
    assert change[0] in text
    found = errors(tmp_path, text.replace(*change))
    assert len(found) == 1
    assert where in found[0] and words in found[0]


def test_hw_show_writes_every_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + COMMON + RELU, encoding="utf-8")
    facts = {(fact.section, fact.key): fact.value for fact in hardware.describe(hardware.load(path))}
    assert facts["calibration.relu", "time"] == "0 µs, 3 µs"
    assert facts["calibration", "operator_bytes"] == "10 kB, 1 MB"
