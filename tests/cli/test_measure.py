"""``costmodel measure`` from recorded traces: pages, data, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from costmodel.cli import main

pytest.importorskip("torch")

from tests.measure.networks import DATA

NETWORKS = Path(__file__).parents[1] / "measure" / "networks.py"
TRACE = str(DATA / "residual_eager.json.gz")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The network of the recorded trace, as a user's file."""
    path = tmp_path / "own.py"
    path.write_text(f"{NETWORKS.read_text()}\n\ndef make():\n    return network('residual')\n")
    return f"{path}:make"


def test_a_recorded_trace_becomes_a_page(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", model, "--batch", "2", "--from-trace", TRACE, "--hw", "epyc-milan-2c"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("predicted", "ratio", "bound", "reason", "conv1", "oneDNN"))
    assert "as recorded" in out and max(map(len, out.splitlines())) <= 100


def test_without_a_machine_the_page_is_measured_alone(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", model, "--batch", "2", "--from-trace", TRACE]) == 0
    out = capsys.readouterr().out
    assert "conv1" in out and "ratio" not in out


def test_json_and_csv_are_written_whole(model: str, tmp_path: Path) -> None:
    rows, nodes = tmp_path / "rows.csv", tmp_path / "nodes.json"
    asked = ["measure", model, "--batch", "2", "--from-trace", TRACE, "--hw", "epyc-milan-2c"]
    assert main([*asked, "--format", "csv", "-o", str(rows)]) == 0
    assert main([*asked, "--format", "json", "-o", str(nodes)]) == 0
    (row,) = csv.DictReader(rows.open())
    value = json.loads(nodes.read_text())
    assert row["device"] == value["device"] == "epyc-milan-2c" and row["batch"] == "2"
    assert float(row["latency_ms"]) == value["latency_ms"]
    assert sum(n["measured_us"] for n in value["nodes"]) < 1e3 * value["latency_ms"]
    assert all(n["predicted_us"] is not None for n in value["nodes"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from-trace", TRACE], "(conv2d, 1x3x16x16"),  # recorded at batch 2
        (["--from-trace", str(DATA / "windows_eager.json.gz"), "--batch", "2"], "another model"),
        (["--from-trace", "nowhere.json"], "cannot read nowhere.json"),
        (["--from-trace", TRACE, "--halve-batch"], "--halve-batch"),
        (["--from-trace", TRACE, "--top", "-1"], "--top -1"),
        (["--device", "tpu"], "cpu, cuda"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    model: str, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.json"
    assert main(["measure", model, *options, "--format", "json", "-o", str(output)]) == 2
    assert said in capsys.readouterr().err and not output.exists()


def test_threads_below_one_are_refused(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["measure", model, "--threads", "0"])
    assert stop.value.code == 2 and "at least 1" in capsys.readouterr().err


def test_a_live_run_keeps_its_trace_and_the_trace_gives_the_same_nodes(model: str, tmp_path: Path) -> None:
    trace, first, second = (tmp_path / name for name in ("trace.json", "first.json", "second.json"))
    asked = ["measure", model, "--batch", "2", "--format", "json"]
    run = ["--repeats", "2", "--steps", "2", "--threads", "1", "--keep-trace", str(trace)]
    assert main([*asked, *run, "-o", str(first)]) == 0
    assert main([*asked, "--from-trace", str(trace), "-o", str(second)]) == 0
    assert json.loads(first.read_text())["nodes"] == json.loads(second.read_text())["nodes"]
