"""The terminal: never wider than asked, whatever the names and values; nothing left out silently."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.report.as_terminal import TerminalStyle, render_terminal
from costmodel.report.columns import quantity_column, text_column
from costmodel.report.document import Code, Column, Document, Figure, KeyValues, Notes, Paragraph, Table
from costmodel.report.summary import analysis_document, machines_document

NAMES = st.text(max_size=120)
COLUMNS = st.builds(
    Column,
    key=st.sampled_from("abc"), heading=NAMES, unit=st.text(max_size=8), shortest=st.none() | st.integers(0, 30),
    align=st.sampled_from(["left", "right"]), importance=st.integers(0, 9),
)  # fmt: skip
ROWS = st.lists(st.fixed_dictionaries({}, optional={"a": NAMES, "b": st.integers(), "c": st.floats()}), max_size=4)
TABLES = st.builds(
    Table, columns=st.lists(COLUMNS, max_size=6).map(tuple), rows=ROWS.map(tuple), footer=ROWS.map(tuple), title=NAMES
)
BLOCKS = st.one_of(
    st.builds(Paragraph, NAMES),
    st.builds(KeyValues, st.lists(st.tuples(NAMES, NAMES), max_size=4).map(tuple)),
    st.builds(Notes, st.lists(NAMES, max_size=3).map(tuple), NAMES),
    st.builds(Code, st.text(alphabet="ab*+- ()1", max_size=900), NAMES),
    st.builds(Figure, NAMES, NAMES, NAMES),
    TABLES,
)
DOCUMENTS = st.builds(Document, NAMES, st.lists(BLOCKS, max_size=4).map(tuple))


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.integers(40, 140), st.booleans())
def test_no_line_is_wider_than_asked(document, width, ascii_only):
    text = render_terminal(document, TerminalStyle(width=width, ascii_only=ascii_only))
    assert max(map(len, text.split("\n"))) <= width
    assert text.replace("\n", "").isprintable()
    assert text.isascii() or not ascii_only


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("by", ["op", "module", "type"])
def test_a_real_page_fits(fake, width, by):
    for document in (analysis_document(fake.realistic(), by=by), machines_document([fake.realistic()] * 2)):
        lines = render_terminal(document, TerminalStyle(width=width)).split("\n")
        assert max(map(len, lines)) <= width


def test_every_line_of_a_table_has_its_columns_below_one_another():
    table = Table(
        columns=(text_column("name", "name"), quantity_column("flops", "FLOPs", "FLOP", [30, 1000])),
        rows=({"name": "a", "flops": 30}, {"name": "longer", "flops": 1000}),
        footer=({"name": "total", "flops": 1030},),
    )
    lines = render_terminal(Document("t", (table,))).splitlines()[2:]
    assert lines == [
        "name    FLOPs",
        "         FLOP",
        "-------------",
        "a          30",
        "longer  1,000",
        "-------------",
        "total   1,030",
    ]


def test_what_is_left_out_is_named_least_important_first():
    columns = [Column(key=k, heading=k * 30, importance=i) for k, i in (("a", 3), ("b", 1), ("c", 2))]
    text = render_terminal(Document("t", (Table(columns=tuple(columns), rows=()),)), TerminalStyle(width=40))
    assert "a" * 30 in text.splitlines()[2]
    assert " ".join(text.split()).split("characters: ")[1].startswith("b" * 30 + ", " + "c" * 30)


def test_long_module_names_keep_both_ends_before_columns_are_dropped(fake):
    path = "backbone.stages.2.blocks.17.mlp.very_long_name_of_a_projection_layer.fc1"
    operators = fake.with_shares([fake.conv(path, 1, 8, 8, 3, 32)])
    document = analysis_document(fake.FakeAnalysis(operators=operators))
    text = render_terminal(document, TerminalStyle(width=100))
    line = next(line for line in text.split("\n") if line.startswith("backbone"))
    assert "…" in line and line.split()[0].endswith(".fc1") and "implicit_gemm" in line
    wide = render_terminal(document, TerminalStyle(width=200))
    assert path in wide


def test_a_long_formula_says_how_much_more_there_is():
    terms = " + ".join(f"{n}*height*width*batch" for n in range(100_000, 100_100))
    text = render_terminal(Document("t", (Code(terms, label="FLOPs ="),)))
    shown = [line for line in text.splitlines() if "height" in line]
    assert len(shown) == 8 and "more lines; the formula command" in text


def test_colour_only_where_it_is_a_terminal(fake, monkeypatch):
    class Tty(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    document = analysis_document(fake.realistic(), top=3)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[1m" in render_terminal(document, TerminalStyle.of(Tty()))
    assert "\x1b" not in render_terminal(document, TerminalStyle.of(io.StringIO()))
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in render_terminal(document, TerminalStyle.of(Tty()))


def test_a_stream_that_is_not_utf8_gets_ascii(fake):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    text = render_terminal(analysis_document(fake.realistic()), TerminalStyle.of(stream))
    stream.write(text)  # would raise UnicodeEncodeError
    assert "8x3x224x224" in text and " us" in text
