"""``costmodel validate``: formats, exit status, one message for bad input, several processes, a model end to end."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from costmodel.cli import main

from .measured_files import MODEL_HEADER, OPERATOR_HEADER, model_row, operator_row, write


@pytest.fixture
def operators(tmp_path: Path) -> Path:
    lines = [operator_row(input=f"{n}x512", other="512x512", latency_us=n, algorithm="gemm") for n in (64, 512, 4096)]
    return write(tmp_path, OPERATOR_HEADER, *lines, operator_row(op="teleport"))


def test_json_has_the_keys_of_the_contract(operators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(operators), "--format", "json", "--jobs", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    (group,) = report["groups"]
    assert (group["device"], group["dtype"], group["op"], group["algorithm"]) == ("t4", "fp32", "linear", "gemm")
    assert {"layout", "mode", "phase", "n", "median_ape", "p90_ape", "bias", "spearman", "interval_coverage"} <= set(
        group
    )
    assert set(group["baselines"]) == {"flops", "roofline", "roofs_85"}
    assert all({"median_ape", "p90_ape", "bias", "spearman"} <= set(b) for b in group["baselines"].values())
    assert group["n"] == len(report["rows"]) == 3
    assert [row["reason"] for row in report["unusable"]] == ["unknown operator: teleport"]
    errors = sorted(abs(row["predicted_s"] / row["measured_s"] - 1) for row in report["rows"])
    assert group["median_ape"] == pytest.approx(errors[1])


@pytest.mark.parametrize("format", ["table", "markdown", "html"])
def test_pages_name_scores_baselines_and_reasons(operators: Path, format: str, tmp_path: Path) -> None:
    target = tmp_path / "report"
    assert main(["validate", str(operators), "--format", format, "--jobs", "1", "-o", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    for word in ("linear", "Spearman", "unknown operator: teleport", "Conventions"):
        assert word in text


def test_csv_is_one_line_a_row(operators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(operators), "--format", "csv", "--jobs", "1"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(row["measured_s"]) for row in rows] == pytest.approx([64e-6, 512e-6, 4096e-6])
    assert all(
        float(row["error"]) == pytest.approx(float(row["predicted_s"]) / float(row["measured_s"]) - 1) for row in rows
    )


def test_budgets_set_the_exit_status(operators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["validate", str(operators), "--jobs", "1"]
    assert main([*common, "--max-median", "100000", "--max-p90", "100000%"]) == 0
    assert main([*common, "--max-median", "0"]) == 1
    assert "the median of |error| is" in capsys.readouterr().err


def test_limit_and_seed(operators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for seed in ("1", "1"):
        assert (
            main(["validate", str(operators), "--format", "json", "--limit", "2", "--seed", seed, "--jobs", "1"]) == 0
        )
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]
    assert (len(reports[0]["rows"]), reports[0]["not_sampled"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "cannot read nowhere.csv"),
        (["FILE", "--hw", "nowhere.toml"], "nowhere.toml"),
        (["FILE", "--set", "colour=blue"], "no condition of a run is called 'colour'"),
        (["FILE", "-o", "no/such/folder/x.json"], "cannot write"),
    ],
)
def test_bad_input_is_one_message_and_status_2(
    operators: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", *(str(operators) if a == "FILE" else a for a in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--max-median", "x"], ["--max-p90", "-1"], ["--set", "fast"], ["--limit", "0"]])
def test_flags_that_make_no_sense_exit_with_2(operators: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["validate", str(operators), *arguments])
    assert caught.value.code == 2


def test_several_processes_find_what_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [operator_row(op="relu", input=f"{n}", other="", latency_us=10 + n / 1000) for n in range(1, 601)]
    path = write(tmp_path, OPERATOR_HEADER, *lines)
    texts = []
    for jobs in ("1", "2"):
        code = "import sys; from costmodel.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "validate", str(path), "--format", "json", "--jobs", jobs]
        texts.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert json.loads(texts[0]) == json.loads(texts[1])


def test_a_model_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3x3 convolution of 3 to 8 channels on 16x16: 8 * 16 * 16 * 27 MACs a picture, and as many adds of a bias."""
    source = tmp_path / "tiny.py"
    source.write_text("from torch import nn\n\n\ndef net():\n    return nn.Conv2d(3, 8, 3, padding=1)\n")
    rows = [
        model_row(model=f"{source}:net", image_size=16, batch=batch, latency_ms=batch, layout=layout)
        for batch in (1, 32)
        for layout in ("nchw", "nhwc")
    ]
    assert main(["validate", str(write(tmp_path, MODEL_HEADER, *rows)), "--format", "json", "--jobs", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unusable"] == []
    outputs = 8 * 16 * 16
    assert [row["flops"] for row in report["rows"]] == [batch * outputs * (2 * 27 + 1) for batch in (1, 1, 32, 32)]
    assert all(row["predicted_s"] > 0 for row in report["rows"])
