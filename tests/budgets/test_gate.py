"""The gate: budgets, a baseline, and the layer that made a model grow named; renamed layers cost what they did."""

from __future__ import annotations

import json

import pytest

from costmodel.budgets import parse_allowance, parse_budget, read_baseline
from costmodel.budgets.layers import Layer, aligned, grown_by
from costmodel.cli import main
from costmodel.errors import InputError
from costmodel.testing import CostBaseline, assert_within
from costmodel.timing import at_confidence

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.{first} = nn.Conv2d(16, inner, 3, padding=1)
        self.{second} = nn.Conv2d(inner, 16, 3, padding=1)

    def forward(self, x):
        return x + self.{second}(torch.relu(self.{first}(x)))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.{stem} = nn.Conv2d(3, 16, 3, padding=1)
        self.{blocks} = nn.Sequential(*[Block(inner) for inner in {inner}])
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.{blocks}(self.{stem}(x)).mean((2, 3)))

def make():
    return Net(), torch.zeros(1, 3, 16, 16)
"""
NAMES = {"first": "conv1", "second": "conv2", "stem": "stem", "blocks": "blocks"}
#: 3x3 convolutions from 16 channels to ``inner`` and back on 16x16 maps: MACs of one block.
PER_CHANNEL = 2 * 16 * 16 * 16 * 9


@pytest.fixture
def net(tmp_path, monkeypatch):
    """Writes net.py anew, and is its request."""
    monkeypatch.chdir(tmp_path)

    def write(inner=(32, 32, 32), **names: str) -> str:
        (tmp_path / "net.py").write_text(NET.format(inner=tuple(inner), **{**NAMES, **names}))
        return "net.py:make"

    write()
    return write


def check(capsys, *words: str) -> tuple[int, str, str]:
    try:
        status = main(["check", *words])
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def written(net, capsys):
    """costs.json of the network as it is at first."""
    words = ["net.py:make", "--hw", "t4,a100", "--batch", "4", "--baseline", "costs.json"]
    assert check(capsys, *words, "--write-baseline")[0] == 0
    return net


def test_budgets_are_kept_or_broken(net, capsys):
    status, out, _ = check(
        capsys, "net.py:make", "--hw", "t4", "--budget", "latency=10ms,macs=5G,params=30M,memory=8GiB,throughput=1"
    )
    assert status == 0 and "all 5 limits kept" in out
    macs = 3 * 32 * PER_CHANNEL + 3 * 16 * 9 * 256 + 160
    assert check(capsys, "net.py:make", "--hw", "t4", "--budget", f"macs={macs}")[0] == 0
    status, out, _ = check(capsys, "net.py:make", "--hw", "t4", "--budget", f"macs={macs - 1}")
    assert status == 1 and "BROKEN" in out and "blocks.0.conv1" in out  # one of those that take most
    assert max(map(len, out.splitlines())) <= 100


def test_growth_of_three_percent_is_refused_and_the_layer_named(written, capsys):
    inner = (32, 35, 32)  # 3 of 96 inner channels more: 3 % of the MACs
    written(inner)
    status, out, _ = check(capsys, "--baseline", "costs.json", "--max-regression", "2%", "--format", "json")
    page = json.loads(out)
    assert status == 1 and page["ok"] is False
    macs = next(each for each in page["checks"] if each["quantity"] == "macs" and each["hw"] == "t4")
    assert macs["value"] - macs["before"] == 4 * 3 * PER_CHANNEL
    assert 1.029 < macs["value"] / macs["before"] < 1.031
    assert [growth["layer"] for growth in macs["by"]] == ["blocks.1.conv1", "blocks.1.conv2"]
    assert sum(growth["now"] - growth["before"] for growth in macs["by"]) == macs["value"] - macs["before"]
    text = check(capsys, "--baseline", "costs.json", "--max-regression", "2%")[1]
    assert "blocks.1.conv1" in text and "blocks.0" not in text and "blocks.2" not in text
    assert check(capsys, "--baseline", "costs.json", "--max-regression", "5%")[0] == 0


def test_a_rename_passes_and_what_grew_under_a_new_name_is_found(written, capsys):
    renamed = {"first": "expand", "second": "project", "stem": "entry", "blocks": "stages"}
    written(**renamed)
    status, out, _ = check(capsys, "--baseline", "costs.json", "--max-regression", "0%")
    assert status == 0, out
    written((32, 32, 40), **renamed)
    page = json.loads(check(capsys, "--baseline", "costs.json", "--format", "json")[1])
    macs = next(each for each in page["checks"] if each["quantity"] == "macs")
    assert [(g["was"], g["layer"]) for g in macs["by"]] == [
        ("blocks.2.conv1", "stages.2.expand"),
        ("blocks.2.conv2", "stages.2.project"),
    ]


def test_a_block_more_is_new_and_a_block_less_passes(written, capsys):
    written((32, 32, 32, 32))
    page = json.loads(check(capsys, "--baseline", "costs.json", "--format", "json")[1])
    macs = next(each for each in page["checks"] if each["quantity"] == "macs")
    assert {(g["was"], g["layer"]) for g in macs["by"]} == {(None, "blocks.3.conv1"), (None, "blocks.3.conv2")}
    memory = next(each for each in page["checks"] if each["quantity"] == "params")
    assert sum(g["now"] - g["before"] for g in memory["by"]) == memory["value"] - memory["before"]
    written((32, 32))
    status, out, _ = check(capsys, "--baseline", "costs.json")
    assert status == 0 and "--write-baseline holds later changes" in out


def test_a_file_grows_by_entries_and_is_read_as_it_was_written(written, capsys):
    assert len(read_baseline("costs.json").entries) == 2
    assert check(capsys, "net.py:make", "--hw", "l4", "--baseline", "costs.json", "--write-baseline")[0] == 0
    baseline = read_baseline("costs.json")
    assert [(entry.hw, dict(entry.conditions)) for entry in baseline.entries.values()] == [
        ("t4", {"batch": 4}), ("a100-sxm-80gb", {"batch": 4}), ("l4", {}),
    ]  # fmt: skip
    with open("costs.json") as file:
        assert baseline.to_json() == file.read()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no model is named|neither a budget"),
        (["net.py:make", "--hw", "t4"], "neither a budget nor a baseline"),
        (["net.py:make", "--budget", "macs=5G"], "--hw names no machine"),
        (["net.py:make", "--hw", "t4", "--budget", "latency=10"], "has no unit"),
        (["net.py:make", "--hw", "t4", "--budget", "latencey=10ms"], "did you mean latency"),
        (["net.py:make", "--hw", "t4", "--budget", "macs=many"], "macs=5M"),
        (["net.py:make", "--hw", "t4", "--budget", "macs"], "is no budget"),
        (["net.py:make", "--hw", "t4", "--budget", "macs=1,macs=2"], "twice"),
        (["net.py:make", "--hw", "epyc-7763", "--budget", "energy=1J"], "not modelled"),
        (["--baseline", "none.json"], "there is no baseline"),
        (["--write-baseline", "net.py:make", "--hw", "t4"], "say --baseline"),
        (["net.py:make", "--hw", "t4", "--baseline", "costs.json"], "no entry for net.py:make on t4"),
        (["--baseline", "costs.json", "--hw", "l4"], "no entry for l4"),
        (["--baseline", "costs.json", "--max-regression", "much"], "is no share"),
        (["--baseline", "costs.json", "--max-regression", "2"], "'2' is 200 %"),
        (["--baseline", "net.py", "--write-baseline"], "or remove it"),
        (["--baseline", "net.py"], "is no baseline"),
    ],
)
def test_bad_input_is_one_message_and_status_2(written, capsys, words, said):
    import re

    status, out, err = check(capsys, *words)
    assert (status, out) == (2, "")
    assert re.search(said, err)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda entry: entry["totals"].update(latency=float("nan")), "latency is nan, which is no number"),
        (lambda entry: entry["totals"].update(flops="x"), "flops is 'x', which is no number"),
        (lambda entry: entry["totals"].clear(), "net.py:make has no latency, flops"),
        (lambda entry: entry["layers"].append([1]), r"\[1\] is no layer"),
        (lambda entry: entry["layers"][0].__setitem__(3, None), "flops is None, which is no number"),
        (lambda entry: entry["conditions"].update(speed=3), "made under speed, which is no condition"),
    ],
)
def test_a_baseline_that_holds_nothing_to_keep_to_does_not_pass(written, capsys, spoil, said):
    import re
    from pathlib import Path

    costs = json.loads(Path("costs.json").read_text())
    spoil(costs["entries"][0])
    Path("costs.json").write_text(json.dumps(costs))
    status, out, err = check(capsys, "--baseline", "costs.json")
    assert (status, out) == (2, "")
    assert re.search(said, err)


def test_a_broken_baseline_is_said_and_not_overwritten(net, capsys, tmp_path):
    (tmp_path / "costs.json").write_text('{"schema_version": 1}')
    before = (tmp_path / "costs.json").read_text()
    words = ["net.py:make", "--hw", "t4", "--baseline", "costs.json"]
    assert check(capsys, *words, "--write-baseline")[0] == 2
    assert (tmp_path / "costs.json").read_text() == before


def test_limits_and_allowances():
    assert parse_budget("latency=10ms, macs=5G,params=30M,memory=8GiB,energy=2 mJ,kernels=1e3") == {
        "latency": 0.01, "macs": 5e9, "params": 30e6, "memory": 8 * 2**30, "energy": 0.002, "kernels": 1000,
    }  # fmt: skip
    assert parse_allowance("2%")["flops"] == 0.02
    assert parse_allowance("0,latency=0.05") == {"latency": 0.05, "flops": 0, "macs": 0, "params": 0, "memory": 0}


def layer(name: str, flops: int, op: str = "aten.conv2d") -> Layer:
    return Layer(
        name, op, "1x8", {"flops": flops, "params": 0, "macs": 0, "activations": 0, "kernels": 1, "latency_s": 0.0}
    )


def test_layers_are_aligned_by_name_then_work_then_kind():
    before = [layer("a", 1), layer("b", 2), layer("c", 2), layer("d", 3)]
    assert aligned(before, before) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert aligned(before, [layer("a", 1), layer("c", 2), layer("d", 3)]) == [(0, 0), (1, None), (2, 1), (3, 2)]
    assert aligned(before, [layer(n, f) for n, f in (("w", 1), ("x", 2), ("y", 5), ("z", 3))]) == [
        (0, 0), (1, 1), (2, 2), (3, 3),
    ]  # fmt: skip
    assert aligned([], before) == [(None, 0), (None, 1), (None, 2), (None, 3)]
    growth = grown_by("flops", before, [layer("a", 1), layer("b", 2), layer("c", 9), layer("d", 4)])
    assert [(g.name, g.amount_now - g.amount_before) for g in growth] == [("c", 7), ("d", 1)]


def test_what_is_the_same_on_two_machines_is_told_once(net, capsys):
    net()
    words = ["--hw", "t4,a100", "--baseline", "costs.json"]
    assert main(["check", "net.py:make", *words, "--write-baseline"]) == 0
    net((48, 48, 48, 48))
    assert main(["check", "--baseline", "costs.json"]) == 1
    page = capsys.readouterr().out
    assert page.count(": macs, layers that grew (5 of 8)") == 1 == page.count("on t4 and a100-sxm-80gb: macs")
    assert "aten." not in page and max(map(len, page.splitlines())) <= 100


def test_assert_within_names_the_layers(net):
    net()
    assert_within("net.py:make", hw="t4", latency="10 ms", params="30k", memory="1 GiB")
    with pytest.raises(AssertionError, match=r"params of net\.py:make on t4 is 28\.\d k, the budget 1\.00 k .*conv"):
        assert_within("net.py:make", hw="t4", params="1k")
    module = torch.nn.Linear(8, 8)
    assert_within(module, torch.zeros(2, 8), hw="t4", macs=128)
    with pytest.raises(AssertionError, match="macs of Linear on t4"):
        assert_within(module, torch.zeros(2, 8), hw="t4", macs=127)
    with pytest.raises(InputError, match="holds nothing"):
        assert_within("net.py:make", hw="t4", batch=3)


def test_confidence_holds_the_end_of_the_interval(net):
    import costmodel

    totals = costmodel.analyze(net(), hw="t4").totals
    between = (totals.latency_s + totals.latency_high_s) / 2
    assert_within("net.py:make", hw="t4", latency=between)
    with pytest.raises(AssertionError):
        assert_within("net.py:make", hw="t4", latency=between, confidence=0.95)
    assert_within("net.py:make", hw="t4", throughput=1 / totals.latency_s * 0.999)
    with pytest.raises(AssertionError, match="throughput"):
        assert_within("net.py:make", hw="t4", throughput=1 / totals.latency_s * 0.999, confidence=0.95)


def test_confidence_is_monotone_and_exact_at_the_ends():
    found = [at_confidence(2.0, 3.0, 6.0, p) for p in (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(2.0, rel=1e-4) and found[2] == 3.0 and found[4] == pytest.approx(6.0, rel=1e-4)


def test_a_baseline_in_tests(net):
    baseline = CostBaseline("costs.json", update=True)
    baseline.assert_kept("net.py:make", hw="t4")
    baseline.save()
    CostBaseline("costs.json").assert_kept(net(first="other"), hw="t4")
    with pytest.raises(AssertionError, match=r"macs of net\.py:make on t4 grew by \+6\.\d %.*by blocks\.0\.conv1"):
        CostBaseline("costs.json").assert_kept(net((38, 32, 32)), hw="t4")


def test_the_pytest_plugin_updates_and_checks(net, tmp_path):
    import os
    import subprocess
    import sys
    from importlib.metadata import entry_points
    from pathlib import Path

    installed = any(point.value == "costmodel.pytest_plugin" for point in entry_points(group="pytest11"))
    (tmp_path / "test_it.py").write_text(
        "def test_costs(cost_baseline):\n    cost_baseline.assert_kept('net.py:make', hw='t4')\n"
    )
    root = str(Path(__file__).parents[2])
    plugin = [] if installed else ["-p", "costmodel.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", *plugin, "-p", "no:cacheprovider", "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": root}

    def ran(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert "there is no baseline" in ran().stdout
    assert ran("--update-costs").returncode == 0
    assert ran().returncode == 0
    net((40, 32, 32))
    failed = ran()
    assert failed.returncode == 1 and "by blocks.0.conv1" in failed.stdout
