"""The page of compare: it reads in 100 columns, and its numbers are those of the comparison."""

from __future__ import annotations

import json

import pytest
import torch

import costmodel
from costmodel.report import Document, render
from costmodel.report.as_json import dump_json
from costmodel.report.compared import compared_document, compared_json, contenders_table
from costmodel.report.document import Notes
from tests.test_comparison import Narrow, Narrowing, Wide, macs


@pytest.fixture(scope="module")
def found():
    return costmodel.compare([Wide().eval(), Narrow().eval()], torch.empty(4, 8, 32, 32), hw=["a100", "t4"])


@pytest.mark.parametrize("format", ["table", "markdown", "html"])
def test_every_format_has_networks_stages_and_causes(found, format):
    text = render(compared_document(found, details=True), format)
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


@pytest.mark.parametrize("details", [False, True])
def test_the_page_fits_100_columns(found, details):
    assert max(map(len, render(compared_document(found, details=details)).splitlines())) <= 100


@pytest.fixture(scope="module")
def eight():
    """Eight models on four machines."""
    models = [Narrowing(channels, gated) for channels in (8, 16, 24, 32) for gated in (False, True)]
    hw = ["a100", "t4", "h100", "i9-10940x"]
    return costmodel.compare([model.eval() for model in models], torch.empty(4, 8, 32, 32), hw=hw)


def test_eight_models_on_four_machines_are_one_page_and_every_column_names_machine_and_unit(eight):
    text = render(compared_document(eight))
    lines = text.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 100
    assert "left out to fit" not in text.replace("left out to fit 100 characters: params", "")
    (table,) = compared_document(eight).tables
    for machine, label in zip(eight.machines, ("a100", "t4", "h100", "i9-10940x"), strict=True):
        seconds, ratio = (c for c in table.page_columns if c.key in (f"latency_s_{machine}", f"shown_{machine}"))
        assert (seconds.heading, ratio.heading, ratio.unit) == (label, label, "×")
        assert seconds.unit in ("ms", "µs", "s")
    assert [block.title for block in compared_document(eight).blocks if isinstance(block, Notes)] == [
        "What FLOPs do not say, and the share of it"
    ]


def test_places_gained_are_counted_by_hand(eight):
    (table,) = compared_document(eight).tables
    by_macs = [row["model"] for row in table.rows]
    assert [row["macs_per_sample"] for row in table.rows] == sorted(row["macs_per_sample"] for row in table.rows)
    for machine in eight.machines:
        by_time = sorted(table.rows, key=lambda row: row[f"latency_s_{machine}"])
        for row in table.rows:
            gained = by_macs.index(row["model"]) - [other["model"] for other in by_time].index(row["model"])
            assert row[f"places_gained_{machine}"] == gained


def test_the_first_line_a_sample_is_counted_by_hand(found):
    wide = next(row for row in found.to_rows() if row["model"] == "Wide")
    assert wide["batch"] == 4
    assert wide["macs_per_sample"] == macs(32) // 4
    assert wide["activations_per_sample"] == 32 * 32 * 32 + 16 * 16 * 32 + 10


def test_facts_weigh_what_parts_add_up_to(found):
    assert sum(fact.weight for fact in found.facts) == pytest.approx(1.0)
    host = next(fact for fact in found.facts if fact.cause == "host")
    for model, machine, seconds, share in host.effects:
        assert seconds == next(a.seconds for a in found.apart(model, machine) if a.cause == "host")
        times = [c.latency_s for c in found.contenders if c.machine == machine]
        assert share == pytest.approx(seconds / max(times))


def test_a_comparison_shows_itself(found):
    assert "<table>" in found._repr_html_()
    assert "| Narrow " in found.to_markdown() and "Stages on a100" in found.to_markdown(details=True)
    assert json.loads(found.to_json())["models"] == ["Wide", "Narrow"]
    rows = found.to_rows()
    assert len(rows) == 4 and rows[0]["latency_s"] == found.contenders[0].latency_s


def test_causes_of_a_column_add_up_as_shown(found):
    table = compared_document(found, details=True).tables[-1]
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
    page = compared_document(found, details=True)
    why = next(block for block in page.blocks if isinstance(block, Notes) and block.title == "Why")
    assert " ".join(why.items).count("Narrow on ") == len(found.machines)


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
