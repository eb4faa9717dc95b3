"""emit(): each format asks for its own form of an answer, and for no other."""

from __future__ import annotations

import json

import pytest

from costmodel.errors import InputError
from costmodel.report import FORMATS, Document
from costmodel.report.columns import text_column
from costmodel.report.document import Paragraph, Table
from costmodel.report.page import Page, emit


def page(asked):
    table = Table(columns=(text_column("key", "key"),), rows=({"key": "from the table"},))

    def form(name, value):
        return lambda: asked.append(name) or value

    return Page(
        document=form("document", Document("read", (Paragraph("from the document"),))),
        data=form("data", {"key": "from the data"}),
        table=form("table", Document("rows", (table,))),
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_asks_for_one_form(format, tmp_path):
    asked = []
    path = tmp_path / "out"
    emit(page(asked), format, path)
    expected = {"json": "data", "csv": "table"}.get(format, "document")
    assert asked == [expected]
    assert f"from the {expected}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [None, "-"])
def test_without_a_file_it_is_printed(path, capsys):
    emit(page([]), "json", path)
    assert json.loads(capsys.readouterr().out) == {"key": "from the data"}


def test_an_unknown_format_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="yaml"):
        emit(page([]), "yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
