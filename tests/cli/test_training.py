"""``--phase training`` on the command line: options, pages, data, refusals."""

from __future__ import annotations

import json

import pytest

from costmodel.cli import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "cli-training-cache"  # shared by these tests: the trace is made once
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(folder))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(list(arguments))
    except SystemExit as stopped:  # argparse
        status = int(stopped.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


STEP = ("resnet18", "--hw", "a100", "--batch", "8", "--phase", "training")


def data_of(capsys, *arguments: str) -> dict:
    status, out, _ = run(capsys, "analyze", *STEP, "--format", "json", *arguments)
    assert status == 0
    return json.loads(out)


def test_a_page_of_training_says_what_a_step_is_made_of(capsys):
    status, out, _ = run(capsys, "analyze", *STEP, "--by", "phase")
    assert status == 0
    for promised in ("training, momentum", "cross entropy", "forward ", "backward ", "optimizer ", "All 3 phases"):
        assert promised in out
    assert max(map(len, out.splitlines())) <= 100


def test_data_of_training_has_its_optimizer_and_its_phases(capsys):
    import jsonschema

    from costmodel.report.as_json import schema

    data = data_of(capsys, "--optimizer", "adamw", "--by", "phase")
    jsonschema.validate(data, schema())
    assert (data["execution"]["phase"], data["execution"]["optimizer"]) == ("training", "adamw")
    phases = {row["name"]: row for row in data["phases"]}
    assert list(phases) == ["forward", "backward", "optimizer"]
    assert sum(row["flops"] for row in phases.values()) == data["totals"]["flops"]
    assert sum(row["latency_s"] for row in phases.values()) == pytest.approx(data["totals"]["latency_s"])
    assert {row["phase"] for row in data["ops"]} == set(phases)
    assert data["groups"]["rows"] == data["phases"]


def test_options_of_the_optimizer_reach_the_step(capsys):
    """Parameters of ResNet-18: SGD is 2 FLOP each; decay adds 2, momentum 2."""
    params = 11_689_512

    def flops(*options: str) -> int:
        return {row["name"]: row["flops"] for row in data_of(capsys, *options)["phases"]}.get("optimizer", 0)

    assert flops("--optimizer", "sgd") == 2 * params
    assert flops("--optimizer", "sgd", "--weight-decay") == 4 * params
    assert flops() == 4 * params
    assert flops("--optimizer", "none") == 0
    fused = data_of(capsys, "--optimizer", "adam", "--fused-optimizer")
    assert fused["execution"]["optimizer"] == "adam (fused)"
    assert [row["op"] for row in fused["ops"]][-1] == "aten._fused_adam"
    scaled = data_of(capsys, "--dtype", "amp_fp16")
    assert any(row["op"] == "aten._amp_update_scale" for row in scaled["ops"])
    plain = data_of(capsys, "--dtype", "amp_fp16", "--no-grad-scaler")
    assert not any(row["op"] == "aten._amp_update_scale" for row in plain["ops"])


@pytest.mark.parametrize("verb", ["explain", "compare"])
def test_other_verbs_train_too(capsys, verb):
    more = ["resnet34"] if verb == "compare" else []
    status, out, _ = run(capsys, verb, STEP[0], *more, *STEP[1:], "--format", "json")
    data = json.loads(out)
    assert status == 0
    execution = data["execution"] if verb == "explain" else data["executions"][0]
    assert execution["phase"] == "training"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--optimizer", "adam"), "--optimizer is an option of a training step"),
        (("--fused-optimizer",), "--fused-optimizer is an option of a training step"),
        (("--phase", "training", "--mode", "compile"), "a step of training in mode compile is not modelled"),
        (("--phase", "training", "--mode", "cudagraph"), "a step of training in mode cudagraph is not modelled"),
        (("--phase", "training", "--optimizer", "adan"), "invalid choice: 'adan'"),
        (
            (
                "--phase",
                "trainin",
            ),
            "invalid choice: 'trainin'",
        ),
    ],
)
def test_what_is_not_modelled_is_refused_in_a_line(capsys, options, said):
    status, out, err = run(capsys, "analyze", "resnet18", "--hw", "a100", *options)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_step_has_a_closed_form(capsys):
    """Every product of the forward pass comes twice more, but for the first layer's: a picture takes no gradient."""

    def macs(*phase: str) -> int:
        status, out, _ = run(capsys, "formula", "resnet18", "--symbols", "batch", "--of", "macs", *phase)
        assert status == 0
        name, _, form = out.strip().partition(" = ")
        assert (name, form.endswith("*batch")) == ("macs", True)
        return int(form.removesuffix("*batch"))

    stem = 112 * 112 * 64 * 3 * 7 * 7
    assert macs("--phase", "training") == 3 * macs() - stem


def test_a_measured_step_is_explained_under_its_own_conditions(capsys, tmp_path):
    """What measure writes, explain takes over: the phase and the optimizer as it is printed."""
    net = tmp_path / "net.py"
    net.write_text("import torch\ndef net():\n    return torch.nn.Linear(64, 32), torch.zeros(8, 64)\n")
    step = ("--phase", "training", "--optimizer", "adam", "--fused-optimizer", "--weight-decay", "--batch", "8")
    target = tmp_path / "step.json"
    wrote = ("--format", "json", "-o", str(target), "--repeats", "1", "--steps", "1")
    assert run(capsys, "measure", f"{net}:net", *step, *wrote)[0] == 0
    assert json.loads(target.read_text())["optimizer"] == "adam (fused, weight decay)"
    status, out, err = run(
        capsys, "explain", f"{net}:net", "--hw", "xeon-6148", "--measured", str(target), "--format", "json"
    )
    assert status == 0, err
    explained = json.loads(out)
    assert explained["execution"]["optimizer"] == "adam (fused, weight decay)"
    assert explained["measured"]["latency_s"] > 0
    status, _, err = run(
        capsys, "explain", f"{net}:net", "--hw", "xeon-6148", "--measured", str(target), "--optimizer", "sgd"
    )
    assert status == 2
