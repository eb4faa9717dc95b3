"""What a measurement is written as, and that `validate` reads it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from costmodel.execution import Execution
from costmodel.measure.measurement import CSV_COLUMNS, Measurement, NodeMeasurement
from costmodel.report import render
from costmodel.report.measured import Work, measured_csv, measured_document
from costmodel.validate import read_measured


def measurement(**changes: Any) -> Measurement:
    """A step of 100 µs: 60 on a convolution of two kernels, 20 on what runs in it, 15 without a node, 5 outside."""
    nodes = (
        NodeMeasurement(
            name="conv1", op="aten.conv2d", module="conv1", measured_us=60.0,
            kernels=(("aten::mkldnn_convolution", 50.0), ("aten::conv2d", 10.0)),
        ),
        NodeMeasurement(name="relu", op="aten.relu", module="", measured_us=20.0, kernels=(("aten::relu_", 20.0),)),
        NodeMeasurement(name="add", op="aten.add", module="", measured_us=0.0, runs_in="relu"),
    )  # fmt: skip
    fields: dict[str, Any] = {
        "model": "timm:resnet18",
        "device": "my-machine",
        "execution": Execution.of(batch=8, dtype="bf16", layout="nhwc"),
        "sizes": {"height": 64, "width": 64},
        "latency_s": 90e-6,
        "latency_spread": 0.04,
        "repeats": 20,
        "nodes": nodes,
        "unattributed": (("aten::dropout", 15.0),),
        "step_us": 100.0,
        "torch": "2.13.0",
        "threads": 2,
    }
    return Measurement(**{**fields, **changes})


WORKS = (
    Work(flops=6_000_000, matrix_flops=6_000_000, nbytes=1000, predicted_s=30e-6, bound="compute"),
    Work(flops=100, matrix_flops=0, nbytes=40_000, predicted_s=20e-6, bound="memory"),
    Work(flops=100, matrix_flops=0, nbytes=40_000, predicted_s=0.0, bound="free"),
)


def test_a_row_is_what_validate_reads(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(render(measured_csv(measurement()), "csv"))
    read = read_measured([path])
    (row,) = read.rows
    assert read.unusable == ()
    assert (row.request, row.device, row.phase, row.mode) == ("timm:resnet18", "my-machine", "inference", "eager")
    assert (row.dtype, row.layout, row.batch, row.torch) == ("bf16", "nhwc", 8, "2.13.0")
    assert row.sizes == {"height": 64, "width": 64}
    assert row.latency_s == pytest.approx(90e-6)


@pytest.mark.parametrize("sizes", [{"height": 64, "width": 96}, {"seq_len": 128}])
def test_sizes_that_are_no_square_have_columns_of_their_own(tmp_path: Path, sizes: dict[str, int]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(render(measured_csv(measurement(sizes=sizes)), "csv"))
    (row,) = read_measured([path]).rows
    assert row.sizes == sizes


def test_the_columns_begin_with_those_of_the_format() -> None:
    (row,) = csv.DictReader(io.StringIO(render(measured_csv(measurement()), "csv")))
    assert list(row)[:10] == "model device phase dtype layout mode torch batch image_size latency_ms".split()
    assert tuple(row) == CSV_COLUMNS and row["threads"] == "2"


def test_json_has_every_node_with_its_kernels_and_what_has_no_node() -> None:
    value = measurement().json([30.0, 20.0, 0.0])
    conditions = {"model", "device", "phase", "dtype", "layout", "mode", "torch", "batch", "image_size", "threads"}
    assert conditions | {"latency_ms", "latency_spread", "nodes", "unattributed", "schema_version"} <= set(value)
    assert value["latency_ms"] == pytest.approx(0.09) and value["image_size"] == 64
    assert value["nodes"][0] == {
        "name": "conv1",
        "op": "aten.conv2d",
        "module": "conv1",
        "phase": "forward",
        "measured_us": 60.0,
        "predicted_us": 30.0,
        "kernels": [{"name": "aten::mkldnn_convolution", "us": 50.0}, {"name": "aten::conv2d", "us": 10.0}],
    }
    assert value["nodes"][2]["runs_in"] == "relu"
    assert value["unattributed"] == [{"name": "aten::dropout", "us": 15.0}]
    assert measurement().json()["nodes"][0]["predicted_us"] is None


def test_json_goes_to_explain(tmp_path: Path) -> None:
    from costmodel.explain.measured import read_measured_run
    from costmodel.report.as_json import dump_json

    path = tmp_path / "measured.json"
    path.write_text(dump_json(measurement().json()))
    run = read_measured_run(str(path))
    assert run.latency_s == pytest.approx(90e-6)
    assert run.nodes == pytest.approx({"conv1": 60e-6, "relu": 20e-6, "add": 0.0})
    assert run.unattributed == pytest.approx({"aten::dropout": 15e-6})


def page(**options: Any) -> str:
    return render(measured_document(measurement(), WORKS, predicted_s=50e-6, **options), "table")


def test_the_page_holds_the_sum_against_the_whole() -> None:
    text = page()
    assert "measured            90.0 µs" in text
    assert "predicted           50.0 µs, 0.56 times the measured" in text  # 50 / 90
    assert "80.0 µs, 84 % of all operators" in text  # 80 / (80 + 15)
    assert "100 µs: 5.00 µs of it Python and the profiler" in text  # 100 - 80 - 15
    assert "without a node: aten::dropout 15.0 µs" in text


def test_rows_say_ratio_and_reason() -> None:
    lines = {line.split()[0]: line for line in page().splitlines() if line.strip()}
    assert "0.50" in lines["conv1"] and "oneDNN, 100 GFLOP/s" in lines["conv1"]  # 30/60; 6 MFLOP in 60 µs
    assert "1.00" in lines["relu"] and "2.00 GB/s" in lines["relu"]  # 40 kB in 20 µs
    assert "in the kernel of relu" in lines["add"]


def test_the_longest_rows_and_the_rest_make_the_whole() -> None:
    text = page(top=1)
    assert "conv1" in text and "the other 2" in text
    total = next(line for line in text.splitlines() if line.startswith("all nodes"))
    assert "80.0" in total and "50.0" in total


@pytest.mark.parametrize(("by", "names"), [("module", ["conv1", "(model)"]), ("type", ["aten.conv2d"])])
def test_rows_can_be_added_up(by: str, names: list[str]) -> None:
    text = page(by=by)
    assert all(name.removeprefix("aten.") in text for name in names)


def test_a_page_warns_of_a_machine_that_was_disturbed() -> None:
    disturbed = measured_document(measurement(latency_spread=0.5), WORKS)
    assert "kept this machine busy" in render(disturbed, "table")
    assert "kept this machine busy" not in page()


def test_no_line_is_wider_than_the_page() -> None:
    assert max(len(line) for line in page().splitlines()) <= 100
