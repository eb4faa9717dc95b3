"""``benchmarks/hf_types.py``: a line for each type and phase, kept in a file; what stops one stops no other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

SURVEY = Path(__file__).parents[1] / "benchmarks" / "hf_types.py"


@pytest.fixture
def survey(monkeypatch):
    spec = importlib.util.spec_from_file_location("hf_types", SURVEY)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hf_types", module)
    spec.loader.exec_module(module)
    return module


def run(survey, monkeypatch, *options):
    monkeypatch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "0")
    monkeypatch.setattr(sys, "argv", ["hf_types.py", *options])
    return survey.main()


def test_types_are_analyzed_in_their_phases_or_refused_and_a_file_goes_on(survey, monkeypatch, tmp_path, capsys):
    rows = tmp_path / "rows.csv"
    options = ("--layers", "1", "--rows", str(rows), "--only")
    assert run(survey, monkeypatch, *options, "bert") == 0
    assert run(survey, monkeypatch, *options, "bert,gpt2,aya_vision,vit") == 0
    found = {(row.type, row.phase): row for row in survey.read(rows)}
    # A picture's type is none of text; a type that writes is looked at as a prompt and as a step.
    assert set(found) == {("bert", "inference"), ("gpt2", "prefill"), ("gpt2", "decode"), ("aya_vision", "inference")}
    assert len(survey.read(rows)) == 4  # bert was not worked out again
    counts = {key: row.counts for key, row in found.items() if row.outcome == "analyzed"}
    assert counts == dict.fromkeys([("bert", "inference"), ("gpt2", "prefill"), ("gpt2", "decode")], "equal")
    assert "3 types: 2 analyzed, 1 refused, 0 in some phases" in capsys.readouterr().out


def test_a_slow_type_is_cut_off(survey, monkeypatch, capsys):
    assert run(survey, monkeypatch, "--only", "gpt2", "--phase", "decode", "--seconds", "0") == 1
    assert "not done after 0 s" in capsys.readouterr().out
