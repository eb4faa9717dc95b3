"""The page of compare: it reads in 100 columns, and its numbers are those of the comparison."""

from __future__ import annotations

import json

import pytest
import torch

import costmodel
from costmodel.report import Document, render
from costmodel.report.as_json import dump_json
from costmodel.report.compared import compared_document, compared_json, contenders_table
from tests.test_comparison import Narrow, Wide


@pytest.fixture(scope="module")
def found():
    return costmodel.compare([Wide().eval(), Narrow().eval()], torch.empty(4, 8, 32, 32), hw=["a100", "t4"])


@pytest.mark.parametrize("format", ["table", "markdown", "html"])
def test_every_format_has_networks_stages_and_causes(found, format):
    text = render(compared_document(found), format)
    for word in (
        "Narrow",
        "NVIDIA A100-SXM4-80GB (a100)",
        "t4",
        "32x32",
        "head",
        "FLOPs alone",
        "waiting for the host",
    ):
        assert word in text


def test_the_page_fits_100_columns(found):
    assert max(map(len, render(compared_document(found)).splitlines())) <= 100


def test_causes_of_a_column_add_up_as_shown(found):
    table = compared_document(found).tables[-1]
    for machine in found.machines:
        key = f"seconds_Narrow_{machine}"
        shown = sum(row.get(key, 0.0) for row in table.rows)
        assert shown == pytest.approx(table.footer[0][key], rel=1e-2)  # small lines are left out
        narrow, wide = (
            next(c.latency_s for c in found.contenders if (c.model, c.machine) == (model, machine))
            for model in ("Narrow", "Wide")
        )
        assert table.footer[0][key] == pytest.approx(narrow - wide)


def test_a_sentence_a_model_and_machine_says_why(found):
    text = render(compared_document(found))
    assert " ".join(text.split()).count("Narrow on ") == len(found.machines)


def test_json_holds_all_of_it(found):
    value = json.loads(dump_json(compared_json(found)))
    assert len(value["networks"]) == 4
    assert {row["stage"] for row in value["stages"]} == {"32x32", "16x16", "head"}
    for machine in value["machines"]:
        seconds = sum(c["seconds"] for c in value["causes"] if c["machine"] == machine)
        times = {n["model"]: n["latency_s"] for n in value["networks"] if n["machine"] == machine}
        assert seconds == pytest.approx(times["Narrow"] - times["Wide"], rel=1e-9)


def test_csv_is_a_row_a_model_and_machine(found):
    lines = render(Document("models", (contenders_table(found),)), "csv").splitlines()
    assert len(lines) == 1 + 4
    assert lines[0].startswith("model,machine,params,flops,flops_ratio,latency_s,latency_ratio")
