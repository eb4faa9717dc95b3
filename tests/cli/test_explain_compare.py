"""``costmodel explain`` and ``costmodel compare`` as their users call them."""

from __future__ import annotations

import json

import pytest

from costmodel.cli import main

PARALLEL, SERIES = "shufflenetv2_g3_4fragment_parallel", "shufflenetv2_g3_4fragment_series"


@pytest.fixture
def measured(tmp_path, capsys):
    """A measurement in which every node takes a tenth of a millisecond."""

    def write(**changes):
        assert main(["analyze", PARALLEL, "--hw", "a100", "--format", "json"]) == 0
        names = [op["name"] for op in json.loads(capsys.readouterr().out)["ops"]]
        value = {
            "schema_version": 1, "model": PARALLEL, "device": "bench", "batch": 4, "dtype": "fp16", "layout": "nchw",
            "mode": "eager", "latency_ms": 0.1 * len(names),
            "nodes": [{"name": name, "op": "", "module": "", "measured_us": 100.0} for name in names],
        }  # fmt: skip
        path = tmp_path / "run.json"
        path.write_text(json.dumps(value | changes))
        return str(path)

    return write


def test_explain_prints_the_split_and_the_findings(capsys):
    assert main(["explain", PARALLEL, "--hw", "gtx1080ti"]) == 0
    text = capsys.readouterr().out
    assert "FLOPs alone" in text and "Findings" in text
    assert max(map(len, text.splitlines())) <= 100


def test_explain_writes_json_that_adds_up(capsys, tmp_path):
    path = tmp_path / "why.json"
    assert main(["explain", PARALLEL, "--hw", "gtx1080ti", "--batch", "8", "--format", "json", "-o", str(path)]) == 0
    value = json.loads(path.read_text())
    whole = value["flops_alone_s"] + sum(cause["seconds"] for cause in value["causes"])
    assert whole == pytest.approx(value["latency_s"], rel=1e-9)
    assert capsys.readouterr().out == ""


def test_explain_takes_the_conditions_of_a_measurement_over(measured, capsys):
    path = measured()
    assert main(["explain", PARALLEL, "--hw", "a100", "--measured", path, "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["execution"]["batch"], value["execution"]["dtype"]) == (4, "fp16")
    assert value["latency_s"] + value["measured"]["unexplained_s"] == pytest.approx(value["measured"]["latency_s"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch", "8"], "measured with --batch 4"),
        (["--dtype", "bf16"], "measured with --dtype fp16"),
        (["--top", "-1"], "--top -1"),
    ],
)
def test_explain_refuses_what_does_not_fit(measured, capsys, arguments, said):
    path = measured()
    assert main(["explain", PARALLEL, "--hw", "a100", "--measured", path, *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == ""


def test_explain_refuses_a_measurement_of_another_model(measured, capsys):
    path = measured()
    assert main(["explain", "shufflenetv2_g1_1to1", "--hw", "a100", "--measured", path]) == 2
    assert "measures nodes that" in capsys.readouterr().err


def test_compare_prints_networks_stages_and_causes(capsys):
    asked = ["compare", SERIES, PARALLEL, "--hw", "a100,t4", "--batch", "8"]
    assert main(asked) == 0
    short = capsys.readouterr().out
    assert "What FLOPs do not say" in short and "56x56" not in short
    assert main([*asked, "--details"]) == 0
    text = capsys.readouterr().out
    assert "56x56" in text and "Why" in text
    assert max(map(len, [*short.splitlines(), *text.splitlines()])) <= 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([SERIES, "--hw", "a100"], "two models or more"),
        ([SERIES, SERIES, "--hw", "a100"], "asked for twice"),
        ([SERIES, PARALLEL, "--hw", "a1000"], "a1000"),
        ([SERIES, PARALLEL, "--hw", ","], "no machine"),
        ([SERIES, "no_such_model", "--hw", "a100"], "no_such_model"),
    ],
)
def test_compare_refuses_what_it_cannot_compare(capsys, arguments, said):
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == ""


def test_a_power_limit_is_asked_for_in_watts(capsys: pytest.CaptureFixture[str]) -> None:
    said = ["analyze", "resnet18", "--hw", "a40", "--batch", "64", "--dtype", "amp_fp16"]
    assert main([*said, "--power-limit", "150"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "power limit 150 W" in page and "of 150 W, which holds the clock at" in page
    assert main([*said, "--power-limit", "9000"]) == 2
    assert "draws 300 W at most" in capsys.readouterr().err


def test_both_say_which_host_issued_the_work_and_take_another(capsys):
    """A host that takes 2.7 times the reference core's time, as its file says, and the one that an A100 usually has."""
    latencies = {}
    for host, name in (("usual", "epyc-7742"), ("cloud-xeon", "cloud-xeon")):
        assert main(["explain", PARALLEL, "--hw", "a100", "--host", host, "--format", "json"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert value["execution"]["host"] == name
        latencies[name] = value["latency_s"]
        assert main(["compare", PARALLEL, SERIES, "--hw", "a100,i9-10940x", "--host", host, "--format", "json"]) == 0
        gpu, cpu = json.loads(capsys.readouterr().out)["executions"]
        assert (gpu["machine"], gpu["host"], cpu["host"]) == ("a100-sxm-80gb", name, "itself")
    assert latencies["cloud-xeon"] > latencies["epyc-7742"]
