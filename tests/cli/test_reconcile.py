"""costmodel reconcile: one page in every format, whose numbers are those of the rules."""

from __future__ import annotations

import csv
import io
import json

import pytest

from costmodel.cli import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cli-cache"))


def said(capsys, *arguments: str) -> str:
    assert main(["reconcile", *arguments]) == 0
    return capsys.readouterr().out


def test_the_page_says_what_each_tool_prints_and_why(capsys):
    text = said(capsys, "resnet18")
    assert max(map(len, text.splitlines())) <= 100
    for promised in ("1,814,073,344", "fvcore", "1,819,065,856", "normalization counted, 2 an element", "torchinfo"):
        assert promised in text  # fvcore's figure: 2 FLOP an element of batch norm, one of pooling, by hand below
    normalized = 64 * 112**2 + 4 * 64 * 56**2 + 5 * (128 * 28**2 + 256 * 14**2 + 512 * 7**2)
    assert 1_814_073_344 + 2 * normalized + 512 * 7**2 == 1_819_065_856


def test_data_hold_every_reason_and_add_up(capsys):
    value = json.loads(said(capsys, "resnet18", "--format", "json"))
    for tool in value["tools"]:
        assert tool["ours"] + sum(reason["amount"] for reason in tool["differences"]) == tool["total"]
    rows = list(csv.DictReader(io.StringIO(said(capsys, "resnet18", "--format", "csv"))))
    totals = {(row["tool"], row["prints"]): int(row["amount"]) for row in rows if row["reason"] == "total"}
    assert totals == {(tool["tool"], tool["prints"]): tool["total"] for tool in value["tools"]}
    half = json.loads(said(capsys, "resnet18", "--image-size", "112", "--format", "json"))
    assert half["macs"] < 0.3 * value["macs"]


@pytest.mark.parametrize("format", ["markdown", "html", "latex"])
def test_pages_have_every_tool(capsys, format):
    text = said(capsys, "resnet18", "--format", format)
    assert all(name in text for name in ("FlopCounterMode", "thop", "ptflops", "calflops"))


def test_a_file_without_modules_is_refused(capsys, tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    assert main(["reconcile", str(path)]) == 2
    assert "give the model that it was exported from" in capsys.readouterr().err
