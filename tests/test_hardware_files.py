"""Hardware files of the user's own: where they are found, and what is said of a broken one."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest

from costmodel import hardware
from costmodel.errors import ProfileError, UnknownHardwareError
from costmodel.hardware import load

FILES = sorted((Path(__file__).parent.parent / "hw_profiles").glob("*.toml"))


@pytest.fixture(autouse=True)
def _no_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSTMODEL_HW_PATH", raising=False)


GOOD = """
name = "mine"
title = "My accelerator"
vendor = "Me"
kind = "gpu"
compute_capability = "8.0"
aliases = ["my-card"]

[units]
count = 100
clock = "1 GHz"
source = "measured"

[matrix.fp16]
peak = "204.8 TFLOP/s"
accumulate = "fp32"
made_of = { units = 100, clock = "1 GHz", flop_per_clock = 2048 }
source = "measured"

[matrix.fp16_acc16]
peak = "204.8 TFLOP/s"
made_of = { units = 100, clock = "1 GHz", flop_per_clock = 2048 }
source = "measured"

[vector.fp32]
peak = "12.8 TFLOP/s"
made_of = { units = 100, clock = "1 GHz", flop_per_clock = 128 }
source = "measured"

[memory.dram]
type = "HBM2"
bandwidth = "1000 GB/s"
made_of = { bus_bits = 4000, rate = "2 Gbit/s" }
source = "measured"
"""


def written(directory: Path, text: str = GOOD, name: str = "mine") -> Path:
    path = directory / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_path_and_the_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    assert load(path).peak("matrix", "fp16").flop_per_s == 204.8e12
    assert hardware.check(path) == []
    with pytest.raises(UnknownHardwareError):
        load("mine")
    monkeypatch.setenv("COSTMODEL_HW_PATH", os.pathsep.join([str(tmp_path), ""]))
    assert load("mine").path == load("my-card").path == path
    assert "mine" in hardware.names()
    assert "t4" in hardware.names()


def test_a_users_file_wins_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = next(path for path in FILES if path.stem == "t4")
    text = shipped.read_text(encoding="utf-8").replace('tdp = "70 W"', 'tdp = "50 W"')
    own = written(tmp_path, text, "t4")
    assert load("t4").power_w == 70
    assert not any("wins over" in fact.value for fact in hardware.describe(load("t4")))
    monkeypatch.setenv("COSTMODEL_HW_PATH", str(tmp_path))
    assert (load("t4").power_w, load("t4").path) == (50, own)
    assert any("wins over" in fact.value for fact in hardware.describe(load("t4")))


def test_a_search_path_that_is_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTMODEL_HW_PATH", str(tmp_path / "absent"))
    with pytest.raises(ProfileError, match=r"COSTMODEL_HW_PATH names .*absent, which is no directory"):
        load("t4")


def test_an_alias_taken_twice(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace('"my-card"', '"A-100"'))
    (problem,) = hardware.check(path)
    assert str(problem) == "warning: aliases: 'A-100' already means a100-sxm-80gb; remove it from one of them"


def test_a_name_that_is_not_the_files(tmp_path: Path) -> None:
    assert [p.where for p in hardware.check(written(tmp_path, name="other"))] == ["name"]


BROKEN = {
    "syntax": ('clock = "1 GHz"', "clock = 1 GHz", r"line 11"),
    "wrong product": ('"12.8 TFLOP/s"', '"15 TFLOP/s"', r"vector.fp32.peak: 15.00 TFLOP/s .* 12.80 TFLOP/s .*correct"),
    "sparse peak": ('"204.8 TFLOP/s"', '"409.6 TFLOP/s"', r"matrix.fp16.peak: 409.6 TFLOP/s .* 204.8 .*sparse"),
    "sparse rate": ("2048 }", "4096 }", r"made_of"),
    "wrong bandwidth": ('"1000 GB/s"', '"1555 GB/s"', r"memory.dram.bandwidth: 1.555 TB/s .* 1.000 TB/s"),
    "unknown key": ("bandwidth =", "bandwith =", r"unknown key 'bandwith'; did you mean bandwidth"),
    "unknown table": ("[matrix.fp16]", "[matrix.fp61]", r"unknown table \[matrix.fp61\]; did you mean .*matrix.fp16"),
    "unknown engine": ("[matrix.fp16]", "[matrx.fp16]", r"unknown table \[matrx\]"),
    "wrong unit": ('"12.8 TFLOP/s"', '"12.8 TB/s"', r"vector.fp32.peak: .*not one of FLOP/s"),
    "no unit": ('"12.8 TFLOP/s"', "12.8", r"vector.fp32.peak: must be a text with a unit"),
    "negative": ('"12.8 TFLOP/s"', '"-12.8 TFLOP/s"', r"must be positive"),
    "negative count": ("count = 100", "count = -100", r"units.count: must be a whole number above 0"),
    "other units": ("count = 100", "count = 108", r"made_of.units: is 100, but units.count is 108"),
    "accumulate": ('accumulate = "fp32"', 'accumulate = "fp16"', r"matrix.fp16.accumulate: is 'fp16'"),
    "geforce": ('"My accelerator"', '"GeForce 1"', r"is 1.00 times .* on GeForce cards it is 2"),
    "kind": ('kind = "gpu"', 'kind = "gppu"', r"'gppu' is not one of gpu, cpu, accelerator"),
    "no kind": ('kind = "gpu"', "", r"kind: is missing"),
    "made_of": ("rate =", "ratio =", r"memory.dram.made_of: must have exactly the keys bus_bits, rate"),
    "tolerance": ('type = "HBM2"', 'type = "HBM2"\ntolerance = "2 %"', r"a tolerance needs a why"),
    "no percent": ('type = "HBM2"', 'type = "HBM2"\ntolerance = "0.02"', r"must be a percentage"),
    "unverified": ('type = "HBM2"', 'type = "HBM2"\nunverified = ["x"]', r"'x' is not a key of this table"),
    "achievable": ('type = "HBM2"', 'type = "HBM2"\nachievable = 85', r"must be a fraction above 0 and up to 1"),
    "no memory": (GOOD[GOOD.index("[memory") :], "", r"the table \[memory.dram\] is missing"),
    "no peaks": (GOOD[GOOD.index("[matrix.fp16]") : GOOD.index("[memory")], "", r"at least \[vector.fp32\]"),
    "same peak twice": ("[matrix.fp16_acc16]", "[matrix.fp16_acc32]", r"states the same peak as \[matrix.fp16\]"),
    "bare value": ("[matrix.fp16]", '[matrix]\nbf16 = "1 TFLOP/s"\n[matrix.fp16]', r"unknown table"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case: str, tmp_path: Path) -> None:
    old, new, says = BROKEN[case]
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert re.search(says, str(caught.value)), str(caught.value)


def test_a_sparse_figure_that_agrees_with_its_product(tmp_path: Path) -> None:
    text = GOOD.replace("2048 }", "4096 }").replace('"204.8 TFLOP/s"', '"409.6 TFLOP/s"')
    with pytest.raises(
        ProfileError, match=r"4096 FLOP per clock and SM, but the dense rate of .*Ampere, GA100 is 2048"
    ):
        load(written(tmp_path, text))


def test_a_tolerance_with_its_reason(tmp_path: Path) -> None:
    text = GOOD.replace('type = "HBM2"', 'type = "HBM2"\ntolerance = "3 %"\nwhy = "rounded"')
    assert load(written(tmp_path, text.replace('"1000 GB/s"', '"1025 GB/s"'))).dram_bytes_per_s == 1025e9
    with pytest.raises(ProfileError, match=r"allowed now: 3 %"):
        load(written(tmp_path, text.replace('"1000 GB/s"', '"1035 GB/s"')))


def test_missing_sources_and_checks_are_warnings(tmp_path: Path) -> None:
    text = GOOD.replace('source = "measured"', "") + '[sources]\nsheet = "a datasheet"\n'
    text = text.replace('made_of = { units = 100, clock = "1 GHz", flop_per_clock = 128 }', "verified = false")
    found = hardware.check(written(tmp_path, text))
    assert [p.where for p in found if p.severity == "warning"] == [
        "vector.fp32.made_of", "units", "matrix.fp16", "matrix.fp16_acc16", "vector.fp32", "memory.dram",
        "sources.sheet",
    ]  # fmt: skip
    assert [p.where for p in found if p.severity == "note"] == ["vector.fp32"]
    peak = load(tmp_path / "mine.toml").peak("vector", "fp32")
    assert (peak.units, peak.clock_hz, peak.flop_per_clock, peak.verified, peak.source) == (None, None, None, False, "")


def test_own_overheads_and_dram_share(tmp_path: Path) -> None:
    text = GOOD.replace('type = "HBM2"', 'type = "HBM2"\nachievable = 0.5')
    profile = load(written(tmp_path, text + '[overheads]\ndispatch = "7 us"\nkernel_fixed_cycles = 2000\n'))
    assert (profile.overheads.dispatch_s, profile.kernel_fixed_s) == (7e-6, pytest.approx(2e-6))
    assert profile.overheads.sync_s == load("a100").overheads.sync_s
    assert profile.achievable_dram_fraction == 0.5


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ProfileError, match="is not valid TOML"):
        load(path)


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_machine_can_be_sent_to_another_process(name: str) -> None:
    assert pickle.loads(pickle.dumps(load(name))) == load(name)  # noqa: S301
