"""The command line: exit statuses, one clear message, nothing half-written."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from costmodel.cli import main
from costmodel.symbols import compile_codes

SIZES = {"batch": 1, "height": 224, "width": 224}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "cli-cache"  # shared by these tests: the trace is made once
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(folder))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(list(arguments))
    except SystemExit as stopped:  # argparse
        status = int(stopped.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_analyze_prints_what_a_user_was_promised(capsys):
    status, out, _ = run(capsys, "analyze", "resnet18", "--hw", "a100")
    assert status == 0
    for promised in (
        "latency",
        "FLOPs = ",
        "batch*ceiling(height/",
        "parameters",
        "11.7 M",
        "peak memory",
        "Coverage",
        "Conventions",
    ):
        assert promised in out
    assert max(map(len, out.splitlines())) <= 100


def test_json_has_the_fixed_keys_and_fits_the_schema(capsys, tmp_path):
    import jsonschema

    from costmodel.report.as_json import schema

    target = tmp_path / "out.json"
    status, out, _ = run(
        capsys, "analyze", "resnet18", "--hw", "t4", "--batch", "4", "--format", "json", "-o", str(target)
    )
    assert (status, out) == (0, "")
    page = json.loads(target.read_text())
    jsonschema.validate(page, schema())
    assert page["execution"]["batch"] == 4
    assert page["totals"]["macs"] == 4 * 1_814_073_344
    assert sum(op["macs"] for op in page["ops"]) == page["totals"]["macs"]
    assert page["coverage"]["uncosted"] == []


def test_csv_rows_sum_to_the_totals(capsys):
    status, out, _ = run(capsys, "analyze", "resnet18", "--hw", "t4", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert sum(int(row["macs"]) for row in rows) == 1_814_073_344


def test_several_machines_side_by_side(capsys):
    status, out, _ = run(capsys, "analyze", "resnet18", "--hw", "t4,l4,a100")
    assert status == 0
    assert all(name in out for name in ("t4", "l4", "a100"))
    said = " ".join(out.partition("Fastest first")[0].split())  # each machine has the host that it is met with
    assert "host of t4 cloud-xeon" in said and "host of a100-sxm-80gb epyc-7742" in said


def test_several_modes_are_said_in_the_table_alone(capsys):
    status, out, _ = run(capsys, "analyze", "resnet18", "--hw", "a100", "--mode", "compile,eager")
    head, _, table = out.partition("Fastest first")
    assert status == 0
    assert "nchw, inference, host epyc-7742" in " ".join(head.split())
    assert "compile" in table and "eager" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--hw", "a100,a100-sxm-80gb"), "a100-sxm-80gb"), (("--hw", "t4", "--mode", "eager,eager"), "eager")],
)
def test_what_is_asked_for_twice_is_refused(capsys, arguments, said):
    status, out, err = run(capsys, "analyze", "resnet18", *arguments)
    assert (status, out) == (2, "")
    assert f"{said} is asked for twice" in err


@pytest.mark.parametrize("syntax", ["text", "latex", "python"])
def test_formula_evaluates_to_the_count(capsys, syntax):
    status, out, _ = run(capsys, "formula", "resnet18", "--of", "macs", "--syntax", syntax)
    assert status == 0
    assert out.startswith("macs = ")
    if syntax == "python":
        assert compile_codes([out.removeprefix("macs = ").strip()], list(SIZES))(SIZES) == [1_814_073_344]


def test_hw_verbs(capsys):
    listed = run(capsys, "hw", "list")[1]
    assert "epyc-7742" in listed and "server-2021" in listed
    assert "AMD EPYC 7742" in run(capsys, "hw", "show", "epyc-7742")[1]
    assert run(capsys, "hw", "check", "epyc-7742")[:2] == (0, "epyc-7742.toml: ok\n")
    assert run(capsys, "hw", "list")[1].count("\n") > 30
    assert "2,039" in run(capsys, "hw", "show", "a100")[1] or "2039" in run(capsys, "hw", "show", "a100")[1]
    status, out, _ = run(capsys, "hw", "check", "a100", "t4")
    assert (status, "ok" in out) == (0, True)


def test_models_lists_by_pattern(capsys):
    status, out, _ = run(capsys, "models", "*shufflenet*")
    assert status == 0
    assert "shufflenet_v1" in out
    assert "shufflenet_v2_x1_0" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["analyze", "resnet5O", "--hw", "a100"], "did you mean resnet50"),
        (["analyze", "resnet18", "--hw", "a1000"], "no hardware profile is called 'a1000'"),
        (["analyze", "resnet18", "--hw", "a100", "--batch", "0"], "at least 1"),
        (["analyze", "resnet18", "--hw", "a100", "--input-shape", "4,224,224"], "input"),
        (["analyze", "resnet18", "--hw", "a100", "--input-shape", "a,b"], "sizes such as 3,224,224"),
        (["analyze", "resnet18", "--hw", "a100", "-o", "no/such/folder/out.md"], "cannot write"),
        (["analyze", "nowhere/net.py:make", "--hw", "a100"], "net.py"),
        (["analyze", "resnet18", "--hw", "a100", "--symbols", "hieght"], "did you mean height"),
        (["formula", "resnet18", "--of", "flips"], "did you mean flops"),
        (["hw", "show", "a1000"], "no hardware profile"),
        (["models", "zzz*"], "no model matches"),
    ],
)
def test_bad_input_is_one_message_and_status_2(capsys, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_factory_that_raises_names_its_line(capsys, tmp_path):
    file = tmp_path / "net.py"
    file.write_text("def make():\n    raise ValueError('no such variant')\n")
    status, _, err = run(capsys, "analyze", f"{file}:make", "--hw", "t4")
    assert status == 2
    assert "no such variant" in err
    assert "net.py" in err
    assert "2" in err


def test_a_contradicting_profile_is_refused_with_both_numbers(capsys, tmp_path):
    from costmodel.hardware import find

    wrong = tmp_path / "wrong.toml"
    wrong.write_text(find("t4").read_text().replace('"8.1', '"9.9', 1).replace('peak = "8.141', 'peak = "9.9', 1))
    status, out, err = run(capsys, "hw", "check", str(wrong))
    assert status == 2
    assert "9.9" in out + err


def test_strict_is_status_1_for_an_operator_without_a_formula(capsys, tmp_path):
    file = tmp_path / "custom.py"
    file.write_text(
        "import torch\n"
        "lib = torch.library.Library('costmodel_cli', 'DEF')\n"
        "lib.define('odd(Tensor x) -> Tensor')\n"
        "lib.impl('odd', lambda x: torch.empty_like(x), 'Meta')\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.ops.costmodel_cli.odd(x)\n"
        "def make():\n"
        "    return Net(), (torch.empty(1, 3, device='meta'),)\n"
    )
    status, out, err = run(capsys, "analyze", f"{file}:make", "--hw", "t4", "--strict")
    assert status == 1
    assert "costmodel_cli.odd" in err
    assert "costmodel_cli.odd" in out
    assert run(capsys, "analyze", f"{file}:make", "--hw", "t4")[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_behind_standard_output_is_one_message():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "costmodel", "hw", "list"], stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["costmodel: cannot write to standard output: No space left on device"]


def test_python_dash_m_and_a_closed_pipe():
    listing = subprocess.Popen(
        [sys.executable, "-m", "costmodel", "hw", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    listing.stdout.close()
    assert b"Traceback" not in listing.stderr.read()
    listing.wait()
