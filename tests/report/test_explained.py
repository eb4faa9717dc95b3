"""The page of explain: its lines add up as shown, in every format, and fit a terminal of 100 columns."""

from __future__ import annotations

import csv
import io
import json

import pytest

from costmodel.explain import MeasuredSplit, findings, read_measured_run, split
from costmodel.report import Document, render
from costmodel.report.as_json import dump_json, schema
from costmodel.report.explained import explained_document, explained_json, parts_table
from tests.explain.networks import analysis
from tests.explain.test_measured import recorded


@pytest.fixture(scope="module")
def now():
    return analysis("normed", batch=2)


@pytest.fixture(scope="module")
def measured(now, tmp_path_factory):
    path = tmp_path_factory.mktemp("measured") / "run.json"
    path.write_text(json.dumps(recorded(now, scale=1.5, gap_s=1e-4, batch=2)))
    return MeasuredSplit(split(now), read_measured_run(str(path)))


@pytest.mark.parametrize("format", ["table", "markdown", "html"])
def test_every_format_says_where_the_time_is(now, format):
    text = render(explained_document(split(now), findings(now)), format)
    assert "FLOPs alone" in text
    assert "waiting for the host" in text
    assert "launch_bound" in text


def test_the_page_fits_100_columns(now, measured):
    for document in (
        explained_document(split(now), findings(now)),
        explained_document(split(now), findings(now), measured=measured),
    ):
        assert max(map(len, render(document).splitlines())) <= 100


def test_the_lines_of_the_table_add_up_to_the_prediction(now):
    table = explained_document(split(now), ()).tables[0]
    shown = sum(row["seconds"] for row in table.rows)
    assert shown == pytest.approx(now.latency, rel=2e-3)  # lines below a ten-thousandth are left out
    assert table.footer[-1]["seconds"] == pytest.approx(now.latency)
    assert sum(row["share"] for row in table.rows) == pytest.approx(1.0, rel=2e-3)


def test_with_a_measurement_the_lines_go_on_to_what_was_measured(now, measured):
    table = explained_document(split(now), (), measured=measured).tables[0]
    predicted, *unexplained, whole = (row["seconds"] for row in table.footer)
    assert predicted + sum(unexplained) == pytest.approx(whole)
    assert whole == pytest.approx(measured.run.latency_s)
    labels = [row["label"] for row in table.footer]
    assert labels[0] == "predicted" and labels[-1] == "measured"


def test_the_nodes_furthest_from_their_prediction_are_listed(now, measured):
    table = explained_document(split(now), (), measured=measured, top=2).tables[1]
    assert len(table.rows) == 2
    assert table.title.startswith("2 of ")
    assert table.rows[0]["ratio"] == pytest.approx(1.5)


def test_top_keeps_the_first_findings_and_says_how_many_there_are(now):
    found = findings(now)
    text = render(explained_document(split(now), found, top=1))
    assert f", {found[0].rule}: " in text
    assert f", {found[1].rule}: " not in text
    assert f"({len(found) - 1} more with --top 0)" in text
    assert f", {found[-1].rule}: " in render(explained_document(split(now), found, top=0))


def test_silence_is_said():
    assert "FLOPs do not mislead here" in render(explained_document(split(analysis("layers")), ()))


def test_json_is_exact_and_adds_up(now, measured):
    value = json.loads(dump_json(explained_json(split(now), findings(now), measured)))
    assert value["flops_alone_s"] + sum(cause["seconds"] for cause in value["causes"]) == pytest.approx(
        now.latency, rel=1e-9
    )
    for cause in value["causes"]:
        assert sum(node["seconds"] for node in cause["nodes"]) == pytest.approx(cause["seconds"])
    beside = value["measured"]
    assert value["latency_s"] + beside["unexplained_s"] == pytest.approx(beside["latency_s"])
    assert [f["rule"] for f in value["findings"]] == [f.rule for f in findings(now)]


def test_csv_holds_every_part(now):
    rows = list(csv.DictReader(io.StringIO(render(Document("parts", (parts_table(split(now)),)), "csv"))))
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(now.latency, rel=1e-9)
    assert {row["cause"] for row in rows} >= {"flops", "host", "fixed"}


def test_findings_of_an_analysis_follow_the_schema(now):
    jsonschema = pytest.importorskip("jsonschema")
    value = json.loads(now.to_json())
    jsonschema.validate(value, schema())
    assert value["findings"][0]["rule"] == now.findings[0].rule
    assert value["findings"][0]["saving_s"] == now.findings[0].saving_s


def test_the_page_of_an_analysis_names_its_findings(now):
    text = render(now)
    assert "Where FLOPs mislead" in text
    assert now.findings[0].message[:40] in text
