"""Sweeps of small models: rows equal what analyze() says, failures are rows, wherever they are worked out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest

import costmodel
from costmodel.cli import main
from costmodel.errors import InputError, OutputError, UnknownModelError
from costmodel.hardware import load, names
from costmodel.sweeps import Grid, Journal, sweep
from costmodel.sweeps.columns import COLUMNS
from costmodel.sweeps.grid import machines_of, requests_of
from costmodel.sweeps.running import run

pytest.importorskip("torch")

NET = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=8, depth=1):
        super().__init__(*[nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(depth)])

def make(width=8, depth=1):
    if width > 100:
        raise ValueError("too wide")
    return Net(width, depth), torch.zeros(1, 3, 16, 16)
"""


@pytest.fixture
def net(tmp_path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:make"


def test_every_row_is_what_analyze_says(net):
    found = sweep(
        [f"{net}(width={{8,16}})"], hw=["t4", "epyc-7763"], batch="1,4", image_size="16,32x24", dtype="fp32,amp_bf16",
        mode="eager,compile",
    )  # fmt: skip
    assert len(found) == 2 * 2 * 2 * 2 * 2 * 2
    assert not found.failed
    for row in found:
        analysis = costmodel.analyze(
            row["model"], hw=row["hw"], batch=row["batch"], image_size=(row["height"], row["width"]),
            dtype=row["dtype"], mode=row["mode"],
        )  # fmt: skip
        totals = analysis.totals
        assert (row["macs"], row["params"], row["latency_s"]) == (totals.macs, totals.params, totals.latency_s)
        assert (row["latency_low_s"], row["latency_high_s"]) == (totals.latency_low_s, totals.latency_high_s)
        assert row["throughput_per_s"] == row["batch"] / row["latency_s"]
        assert row["bound"] == next(iter(analysis.bounds))
        assert row["fits"] is (True if row["hw"] == "t4" else None)  # this CPU's profile states no capacity
        assert row["peak_memory_bytes"] == totals.peak_memory_bytes
        assert row["macs"] == row["batch"] * row["height"] * row["width"] * 27 * int(row["model"].split("=")[1][:-1])


@pytest.mark.parametrize(
    ("model", "conditions"),
    [
        ("timm:resnet18", {"dtype": ("fp32", "amp_fp16")}),
        ("timm:vit_tiny_patch16_224", {"mode": ("eager", "compile")}),
        ("timm:mobilenetv3_small_050", {"phase": ("training",), "dtype": ("amp_bf16",)}),
        ("timm:densenet121", {"layout": ("nhwc",)}),
    ],
)
def test_points_that_share_their_work_are_each_what_analyze_says_by_itself(model, conditions):
    """Plans, prices and memory are worked out for many machines at once: no number may come from another point."""
    machines = {load(name).generation.title: load(name) for name in names()}.values()  # of each generation the last
    batches = (1, 3, 16, 64, 700)
    rows = run(Grid(models=(model,), machines=tuple(machines), batch=batches, **conditions))
    assert {machine.family.name for machine in machines} == {"cuda", "rocm", "cpu"}
    compared = 0
    for number, row in enumerate(rows):
        if row["reason"] or number % 7:  # batches, dtypes and modes of one machine are 5, 10 or 20 rows
            continue
        analysis = costmodel.analyze(
            model, hw=row["hw"], batch=row["batch"], dtype=row["dtype"], mode=row["mode"], layout=row["layout"],
            phase=row["phase"],
        )  # fmt: skip
        for key in row.keys() & {field.name for field in dataclasses.fields(analysis.totals)}:
            found = getattr(analysis.totals, key)
            assert row[key] == (None if found != found else found), (row["hw"], row["batch"], key)
        assert row["bound"] == next(iter(analysis.bounds))
        assert row["fits"] == analysis.memory.verdict.fits  # simulated, however much it takes
        compared += 1
    assert compared >= 10


def test_the_training_step_is_a_phase_to_sweep(net):
    forward, training = sweep(net, hw="a100", phase="inference,training", batch=4)
    assert (forward["phase"], training["phase"]) == ("inference", "training")
    assert training["macs"] == 2 * forward["macs"]  # the gradient of the weights; that of the picture is not asked for


def test_a_point_that_fails_is_a_row_with_its_reason(net):
    found = sweep([f"{net}(width={{8,101}})", "nosuch", f"{net}(wide=3)"], hw=["t4", "a100"], batch=[1, 2])
    assert [row["reason"] is None for row in found] == [True] * 4 + [False] * 12
    said = {row["reason"] for row in found.failed}
    assert any("too wide" in reason for reason in said)
    assert any("no model is called 'nosuch'" in reason for reason in said)
    assert any("takes no argument 'wide'" in reason for reason in said)
    assert {row["latency_s"] for row in found.failed} == {None}
    assert "Without numbers" in found.to_markdown()


def test_where_no_point_has_numbers_that_is_an_error(net):
    with pytest.raises(InputError, match="no point of the sweep has numbers"):
        sweep([f"{net}(wide=3)", "nosuch"], hw="t4")


def test_what_one_machine_refuses_costs_the_others_nothing(net):
    found = sweep(net, hw=["epyc-7763", "a100"], dtype=["fp16", "fp32"])
    assert [(row["hw"], row["dtype"]) for row in found if not row["reason"]] == [
        ("epyc-7763", "fp32"),
        ("a100-sxm-80gb", "fp16"),
        ("a100-sxm-80gb", "fp32"),
    ]
    assert all("epyc-7763" in row["reason"] for row in found.failed)


@pytest.mark.parametrize(
    "words",
    [{"dtype": "fp33"}, {"mode": "eagre"}, {"layout": "nchv"}, {"phase": "infer"}, {"hw": "t44"}, {"batch": "0"},
     {"batch": "1,2", "hw": ["t4", "t4"]}, {"dtype": ()}, {"where": "latency <"}, {"pareto": ["macs"]}, {"host": "x"}],
)  # fmt: skip
def test_words_that_do_not_exist_are_told_before_anything_runs(net, words):
    with pytest.raises(costmodel.CostmodelError):
        sweep(net, **{"hw": "t4", **words})


def test_rows_are_the_same_in_processes_and_on_a_cluster(net, tmp_path):
    distributed = pytest.importorskip("distributed")
    request = [f"{net}(width={{8,16,24}})", "nosuch"]
    here = sweep(request, hw=["t4", "a100"], batch="1,2,4").to_csv()
    assert sweep(request, hw=["t4", "a100"], batch="1,2,4", jobs=2).to_csv() == here
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        there = sweep(request, hw=["t4", "a100"], batch="1,2,4", dask=cluster.scheduler_address)
    assert there.to_csv() == here


def test_no_cluster_at_an_address_is_said(net, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("costmodel.sweeps.running.ANSWERS_WITHIN", "1s")
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        sweep(net, hw="t4", dask="tcp://127.0.0.1:1")


def test_an_interrupted_sweep_goes_on_where_it_stopped(net, tmp_path, monkeypatch):
    from costmodel.sweeps import running

    words = {"hw": ["t4", "a100"], "batch": [1, 2, 4]}
    whole = sweep(net, **words).to_csv()
    worked_out = []
    evaluate = running.evaluate

    def counting(task):
        for number, record in evaluate(task):
            if len(worked_out) == 4:
                raise KeyboardInterrupt
            worked_out.append(number)
            yield number, record

    monkeypatch.setattr(running, "evaluate", counting)
    with pytest.raises(KeyboardInterrupt):
        sweep(net, **words, resume=tmp_path / "out.csv")
    kept = tmp_path / "out.csv.partial"
    assert len(kept.read_text().splitlines()) == 5
    with kept.open("a") as file:
        file.write('[5, {"model": "cut o')  # the machine went down in the middle of a line
    worked_out[:] = ["not counted"] * 5
    assert sweep(net, **words, resume=tmp_path / "out.csv").to_csv() == whole
    assert len(worked_out) == 5 + 2


def test_what_is_left_of_another_sweep_is_not_taken(net, tmp_path):
    grid = Grid(models=(net,), machines=machines_of(["t4"]), batch=(1,))
    with Journal(tmp_path / "x.partial", grid.fingerprint()) as journal:
        journal.add(0, {"model": "someone else's"})
    path = net.rpartition(":")[0]
    assert Journal(tmp_path / "x.partial", grid.fingerprint()).done
    others = [Grid(models=(net,), machines=machines_of(["t4"]), batch=(2,)),
              Grid(models=(net,), machines=machines_of(["a100"]), batch=(1,))]  # fmt: skip
    assert not any(Journal(tmp_path / "x.partial", other.fingerprint()).done for other in others)
    with open(path, "a") as file:
        file.write("# changed\n")
    assert not Journal(tmp_path / "x.partial", grid.fingerprint()).done


def test_lines_that_hold_no_row_are_worked_out_again(net, tmp_path):
    grid = Grid(models=(net,), machines=machines_of(["t4"]), batch=(1,))
    with Journal(tmp_path / "x.partial", grid.fingerprint()) as journal:
        journal.add(7, run(grid)[0])  # the sweep has one point
    with (tmp_path / "x.partial").open("a") as file:
        file.write('5\n[[1], {}]\n["0", {}]\n[0, "row"]\n[0, {"latency_s": 1.0, "reason": null}]\n')
    with Journal(tmp_path / "x.partial", grid.fingerprint()) as journal:
        assert run(grid, journal=journal) == run(grid)


def test_a_process_that_dies_is_tried_again(net, tmp_path):
    grid = Grid(models=(net,), machines=machines_of(["t4"]), batch=(1,))
    with Journal(tmp_path / "x.partial", grid.fingerprint()) as journal:
        journal.add(0, {"reason": "the process died: BrokenProcessPool"})
    with Journal(tmp_path / "x.partial", grid.fingerprint()) as journal:
        assert run(grid, journal=journal)[0]["reason"] is None


def test_formats_hold_the_same_rows(net, tmp_path):
    found = sweep([net, "nosuch"], hw="t4", batch=[1, 2])
    from_csv = list(csv.DictReader(io.StringIO(found.to_csv())))
    page = json.loads(found.to_json())
    assert [row["macs"] for row in page["rows"]] == [row["macs"] for row in found]
    assert [row["macs"] for row in from_csv] == ["" if row["macs"] is None else str(row["macs"]) for row in found]
    assert [c["key"] for c in page["columns"]] == list(from_csv[0]) == [column.key for column in COLUMNS]
    parquet = pytest.importorskip("pyarrow.parquet")
    found.to_parquet(tmp_path / "rows.parquet")
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == list(found)


def test_parquet_without_pyarrow_says_what_to_install(net, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(OutputError, match="parquet"):
        sweep(net, hw="t4").to_parquet(tmp_path / "rows.parquet")


def test_patterns_stand_for_models():
    found = requests_of(["timm:resnet{18,34}", "zoo:*net", "torchvision:vgg1?(num_classes=10)"])
    assert found[:2] == ("timm:resnet18", "timm:resnet34")
    assert "zoo:zfnet" in found
    assert [each for each in found if "vgg" in each] == [
        f"torchvision:vgg{n}(num_classes=10)" for n in (11, 13, 16, 19)
    ]
    with pytest.raises(UnknownModelError):
        requests_of(["timm:nosuch*"])


def test_all_machines_are_those_with_a_profile():
    from costmodel.hardware import names

    assert [machine.name for machine in machines_of(["all"])] == names()


@pytest.mark.parametrize("kind", ["latency", "throughput", "flops", "pareto"])
def test_figures_are_the_same_bytes_again(net, kind):
    found = sweep(f"{net}(width={{8,16}})", hw=["t4", "a100"], batch=[1, 8])
    drawn = found.figure(kind).svg()
    assert drawn.startswith("<?xml") and drawn == found.figure(kind).svg()
    assert "mathdefault" not in drawn


def test_the_command_prints_a_page_of_a_hundred_columns(net, capsys):
    assert main(["sweep", f"{net}(width={{8,16}})", "nosuch", "--hw", "t4,a100", "--batch", "1..16"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "width=16" in out and "no model is called 'nosuch'" in out


def test_the_title_of_a_table_names_the_quantity_and_not_its_unit(net, capsys):
    for show, title in (("memory_mb", "peak memory by batch"), ("energy", "energy by batch"), ("macs", "macs by batch"),
                        ("throughput", "throughput by batch"), ("power_w", "power by batch")):  # fmt: skip
        assert main(["sweep", net, "--hw", "t4", "--batch", "1,2", "--show", show]) == 0
        assert f"\n{title}\n" in capsys.readouterr().out


def test_pages_say_of_what_a_front_is_and_tell_height_from_width(net, capsys):
    words = ["--image-size", "16,24x32", "--batch", "1,2"]
    assert main(["sweep", net, "--hw", "t4,a100", *words]) == 0
    assert "height  width" in capsys.readouterr().out
    assert main(["sweep", net, "--hw", "t4,a100", *words, "--pareto", "macs,latency"]) == 0
    assert "Pareto front of macs, latency, for each machine and each batch" in " ".join(capsys.readouterr().out.split())


def test_the_command_writes_the_format_of_the_files_name(net, tmp_path, capsys):
    target = tmp_path / "rows.csv"
    words = ["sweep", net, "--hw", "t4", "--batch", "1,2", "-o", str(target)]
    assert main(words) == 0
    assert target.read_text() == sweep(net, hw="t4", batch="1,2").to_csv()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []
    assert main([*words, "--where", "batch == 2", "--pareto", "macs,latency"]) == 0
    assert len(target.read_text().splitlines()) == 2
    assert main(["sweep", net, "--hw", "t4", "--figure", "latency"]) == 2
    assert "-o latency.svg" in capsys.readouterr().err
    assert main(["sweep", net, "--hw", "t4", "--figure", "latency", "-o", str(tmp_path / "f.svg")]) == 2
    assert not (tmp_path / "f.svg").exists()


def test_a_sweep_of_which_no_point_passes_says_so(net, capsys):
    assert main(["sweep", net, "--hw", "t4", "--where", "latency_s > 1", "--no-cache"]) == 0
    said = capsys.readouterr().out
    assert "no point of the sweep passes" in said
    assert "latency_s > 1" in said
    assert "fits" not in said


def test_a_choice_among_rows_names_the_points_that_failed(net, capsys):
    missing = net.replace("net.py", "gone.py")
    assert main(["sweep", net, missing, "--hw", "t4", "--where", "latency_ms < 1e6", "--no-cache"]) == 0
    said = capsys.readouterr().out
    assert "1 point beside these" in said
    assert "1 x there is no file" in said
    assert main(["sweep", net, missing, "--hw", "t4", "--where", "latency_ms > 1e6", "--no-cache"]) == 0
    assert "1 x there is no file" in capsys.readouterr().out


def test_the_dtype_of_a_cache_is_refused_where_it_does_not_go_and_nowhere_else():
    pytest.importorskip("transformers")
    model = "hf:gpt2(n_layer=2,n_embd=64,n_head=2,vocab_size=512)"
    words = {"phase": "decode", "context": 64, "kv_dtype": "fp8"}
    served, eager = sweep(model, hw="l4", dtype="bf16", mode="serving,eager", **words)
    alone = costmodel.analyze(model, hw="l4", dtype="bf16", mode="serving", **words)
    assert (served["latency_s"], served["bytes_read"]) == (alone.latency, alone.totals.bytes_read)
    assert "fp8" in eager["reason"]


def test_a_sweep_of_training_steps_takes_their_options(net, capsys):
    found = {}
    for optimizer in ("sgd", "adam"):
        words = ["--phase", "training", "--optimizer", optimizer, "--format", "json", "--no-cache"]
        assert main(["sweep", net, "--hw", "a100", *words]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        again = costmodel.analyze(net, hw="a100", phase="training", optimizer=optimizer, use_cache=False)
        assert row["flops"] == again.totals.flops
        found[optimizer] = row["flops"]
    assert found["adam"] > found["sgd"]
    assert main(["sweep", net, "--hw", "t4", "--optimizer", "adam"]) == 2
    assert "an option of a training step" in capsys.readouterr().err


def test_rows_and_pages_name_what_a_training_step_is_and_what_issues_it(net, capsys):
    found = sweep(
        net, hw=["t4", "a100"], phase="training,inference", optimizer="adamw", trainable="head", power_limit=60
    )
    training, inference = found[0], found[1]
    assert (training["optimizer"], training["trained"]) == ("adamw", "trains the head alone")
    assert (inference["optimizer"], inference["trained"]) == (None, None)
    assert {row["power_limit_w"] for row in found} == {60.0}
    assert [row["host"] for row in found] == ["cloud-xeon"] * 2 + ["epyc-7742"] * 2  # as the machines' files say
    words = ["--phase", "training", "--optimizer", "adamw", "--trainable", "head", "--power-limit", "60"]
    assert main(["sweep", net, "--hw", "t4", "--batch", "1,2", *words]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for said in ("optimizer adamw", "trains the head alone", "power limit 60 W", "host cloud-xeon"):
        assert said in page
    assert main(["sweep", net, "--hw", "t4", "--phase", "training,inference", "--optimizer", "adamw"]) == 0
    assert "training optimizer adamw" in " ".join(capsys.readouterr().out.split())


def test_contexts_and_stored_weights_are_axes_of_steps_that_write_text(capsys):
    pytest.importorskip("transformers")
    model = "hf:gpt2(n_layer=2,n_embd=64,n_head=2,vocab_size=512)"
    found = sweep(model, hw="t4", phase="prefill,decode", context="64,128", weights="int8,int4", dtype="fp16")
    assert [(row["phase"], row["context"], row["weights"]) for row in found] == [
        ("prefill", None, "int8"), ("decode", 64, "int8"), ("prefill", None, "int4"), ("decode", 64, "int4"),
        ("decode", 128, "int8"), ("decode", 128, "int4"),
    ]  # fmt: skip
    assert all(row["height"] is None for row in found)  # a cache is no picture
    assert {row["seq_len"] for row in found if row["phase"] == "decode"} == {1}
    for row in found:
        words = {"phase": row["phase"], "weights": row["weights"], "dtype": "fp16"}
        context = {} if row["context"] is None else {"context": row["context"]}
        again = costmodel.analyze(model, hw="t4", **words, **context)
        assert (row["macs"], row["bytes_read"]) == (again.totals.macs, again.totals.bytes_read)
    shorter, longer = found[1], found[4]
    # queries and keys, weights and values: width for each of the 2 layers and 64 tokens
    assert longer["macs"] - shorter["macs"] == 2 * 2 * 64 * 64
    words = ["--phase", "decode", "--context", "64..256", "--weights", "int4", "--dtype", "fp16"]
    assert main(["sweep", model, "--hw", "t4", *words]) == 0
    assert "latency by context" in capsys.readouterr().out
