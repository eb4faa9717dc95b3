"""What a row does not say of its run: intervals hold both cases, and one host is found for each machine."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from costmodel.traced import load_trace
from costmodel.validate import Flags, ModelRow, Validation, by_regime, read_measured, validate
from costmodel.validate.conditions import unsaid
from costmodel.validate.fitted_hosts import machine_of

from .measured_files import MODEL_HEADER, model_row, write


def judged(tmp_path: Path, header: str = MODEL_HEADER, *rows: str, fit_host: bool = False, **flags: str) -> Validation:
    """AlexNet's step on a T4 unless ``rows`` say otherwise: few operators, much device time at this batch."""
    return validate(
        read_measured([write(tmp_path, header, *rows)], Flags(conditions=flags)), trace=load_trace, fit_host=fit_host
    )


ALEXNET = {"model": "torchvision:alexnet", "image_size": 224, "batch": 2}


def test_a_release_and_a_place_that_are_said_leave_nothing_open(tmp_path: Path) -> None:
    (row,) = read_measured([write(tmp_path, MODEL_HEADER + ",inputs", model_row() + ",device")]).rows
    assert isinstance(row, ModelRow)
    assert unsaid(row) == {}
    assert set(unsaid(replace(row, torch="", conditions={}))) == {"torch", "inputs"}


def test_a_script_that_is_known_times_inputs_on_the_device(tmp_path: Path) -> None:
    name = "benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv"
    header = "model,infer_samples_per_sec,infer_step_time,infer_batch_size,infer_img_size"
    (row,) = read_measured([write(tmp_path, header, "resnet18,100,10,1,224", name=name)]).rows
    assert isinstance(row, ModelRow)
    assert unsaid(row) == {}


def test_an_interval_holds_the_cases_that_a_row_leaves_open(tmp_path: Path) -> None:
    """The step as predicted stays; the upper end moves by the copy at least, and further for an older PyTorch."""
    header = MODEL_HEADER + ",inputs"
    said, place, both = judged(
        tmp_path,
        header,
        model_row(**ALEXNET) + ",device",
        model_row(**ALEXNET) + ",",
        model_row(**ALEXNET, torch="") + ",",
    ).judged
    assert said.predicted_s == place.predicted_s == both.predicted_s
    assert place.low_s <= said.low_s
    images = 2 * 3 * 224 * 224 * 2
    assert place.high_s > said.high_s + images / 5e9
    assert both.high_s > place.high_s


def test_rows_that_name_the_same_release_are_one_machines(tmp_path: Path) -> None:
    rows = read_measured([write(tmp_path, MODEL_HEADER, model_row(), model_row(batch=4), model_row(torch=""))]).rows
    assert [machine_of(row)[2] for row in rows] == ["2.9.1", "2.9.1", ""]


@pytest.mark.parametrize("slowdown", [1.5, 3.0])
def test_the_host_that_made_the_rows_is_found_again(tmp_path: Path, slowdown: float) -> None:
    """Rows written from predictions under a host of this slowdown: the fit must find it, and then miss nothing."""
    host = tmp_path / "h.toml"
    host.write_text(f'name = "h"\ntitle = "H"\nslowdown = {slowdown}\nsource = "made up"\n')
    models = ("torchvision:resnet18", "torchvision:squeezenet1_1")
    rows = [model_row(model=name, image_size=224, batch=1) for name in models]
    made = validate(
        read_measured([write(tmp_path, MODEL_HEADER, *rows)]), trace=load_trace, hosts={"t4": str(host)}
    ).judged
    again = [
        model_row(model=name, image_size=224, batch=1, latency_ms=1e3 * item.predicted_s)
        for name, item in zip(models, made, strict=True)
    ]
    found = judged(tmp_path, MODEL_HEADER, *again, fit_host=True, inputs="device")
    (machine,) = found.hosts
    assert (machine.device, machine.torch, machine.rows) == ("t4", "2.9.1", 2)
    assert abs(math.log(machine.slowdown / slowdown)) < 0.03
    assert max(abs(item.error) for item in found.judged) < 0.03


def test_rows_part_by_how_long_the_device_waits(tmp_path: Path) -> None:
    """One picture through ResNet-18 in half precision leaves a T4 waiting for its host, 64 through AlexNet keep it
    busy; on a CPU nothing waits, and there is no such row."""
    rows = [
        model_row(model="torchvision:resnet18", image_size=224, batch=1),
        model_row(**{**ALEXNET, "batch": 64}),
        model_row(**ALEXNET, device="i9-10940x", dtype="fp32"),
    ]
    result = judged(tmp_path, MODEL_HEADER, *rows)
    assert [(group.keys["regime"], group.score.n) for group in by_regime(result.judged)] == [
        ("host-bound", 1), ("device-bound", 1),
    ]  # fmt: skip
    by_model = {item.row.model + item.row.device: item.waiting_share for item in result.judged}
    assert by_model["torchvision:alexneti9-10940x"] is None


@pytest.mark.parametrize(
    ("note", "request_end", "mode"),
    [
        ("HF ResNet-50; reduce-overhead run", "resnet50.json", "reduce-overhead"),
        ("HF ResNet-50", "resnet50.json", "cudagraph"),
        ("third run", "timm:resnet50", "cudagraph"),
    ],
)
def test_a_note_says_whose_model_ran_and_how(tmp_path: Path, note: str, request_end: str, mode: str) -> None:
    line = model_row(model="resnet50", mode="cudagraph") + f",{note}"
    (row,) = read_measured([write(tmp_path, MODEL_HEADER + ",note", line)]).rows
    assert isinstance(row, ModelRow)
    assert row.request.endswith(request_end) and row.mode == mode


@pytest.mark.parametrize(
    ("name", "params"),
    # Published: 86.6 M of ViT-B/16 (Dosovitskiy et al.), 198 M of ConvNeXt-L (Liu et al.), 25.6 M of ResNet-50.
    [("vit_base", 86.6e6), ("convnext_large", 198e6), ("resnet50", 25.6e6)],
)
def test_configurations_of_transformers_are_the_published_networks(name: str, params: float) -> None:
    pytest.importorskip("transformers")
    path = Path(validate.__code__.co_filename).parent / "transformers" / f"{name}.json"
    assert load_trace(f"hf:{path}").graph.param_count == pytest.approx(params, rel=0.005)


def test_a_row_with_the_columns_of_timms_script_had_its_inputs_on_the_device():
    """timm's benchmark.py makes its example inputs on the device; a copy of 616 MB would hide everything else."""
    row = ModelRow(
        file="", line=2, model="m", request="timm:m", device="t4", dtype="fp32", layout="nchw", mode="eager",
        phase="inference", batch=1024, latency_s=1.0, torch="2.4.0", conditions={"gmacs": "4.1"},
    )  # fmt: skip
    assert unsaid(row) == {}
    assert unsaid(replace(row, conditions={})) == {"inputs": "host"}
