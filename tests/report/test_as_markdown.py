"""Markdown: a table stays a table whatever its cells hold, and signs show as themselves."""

import re

from hypothesis import given
from hypothesis import strategies as st

from costmodel.report.as_markdown import render_markdown
from costmodel.report.document import Code, Column, Document, Figure, KeyValues, Notes, Paragraph, Table
from costmodel.report.escape import for_markdown, one_line
from costmodel.report.summary import analysis_document


def cells(line):
    """The cells of a pipe table's line: pipes that no backslash escapes divide it."""
    parts, escaped, current = [], False, ""
    for character in line.strip()[1:-1]:
        if character == "|" and not escaped:
            parts, current = [*parts, current.strip()], ""
        else:
            current += character
        escaped = character == "\\" and not escaped
    return [*parts, current.strip()]


@given(st.lists(st.tuples(st.text(), st.text(alphabet="|\\`*_<ab\n")), min_size=1, max_size=5))
def test_every_line_of_a_table_has_as_many_cells(rows):
    columns = (Column(key="a", heading="a|b", align="left"), Column(key="b", heading="c", unit="µs"))
    table = Table(columns=columns, rows=tuple({"a": a, "b": b} for a, b in rows))
    lines = render_markdown(Document("t", (table,))).split("\n")[2:-1]
    assert [len(cells(line)) for line in lines] == [2] * (len(rows) + 2)
    assert cells(lines[0]) == ["a\\|b", "c (µs)"]
    assert re.fullmatch(r"\| -+ \| -+: \|", lines[1])


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="\r\n\t\x0b\x0c\x1c\x1d\x1e\x1f")))
def test_taking_the_backslashes_away_gives_the_text_again(text):
    shown = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", for_markdown(text))
    assert shown == one_line(text)


def test_signs_of_markdown_show_as_themselves():
    assert for_markdown("# title") == "\\# title"
    assert for_markdown("1. first") == "1\\. first"
    assert for_markdown("__init__") == "\\_\\_init\\_\\_"
    assert for_markdown("layer1.batch_norm") == "layer1.batch_norm"
    assert for_markdown("[x](y)") == "\\[x\\](y)"
    assert for_markdown("<img src=x>") == "\\<img src=x>"


def test_code_is_fenced_by_more_ticks_than_it_holds():
    text = render_markdown(Document("t", (Code("a ``` b"),)))
    assert "````\na ``` b\n````" in text


def test_all_blocks_in_order():
    blocks = (
        Paragraph("p"),
        KeyValues((("k", "v"),)),
        Notes(("n",), "N"),
        Code("x*y", "f ="),
        Figure("a b.svg", "alt", "c"),
    )
    assert render_markdown(Document("t", blocks)) == (
        "# t\n\np\n\n- **k**: v\n\n## N\n\n- n\n\n```\nf = x*y\n```\n\n![alt](a%20b.svg)\n\n*c*\n"
    )


def test_a_real_page_shows_every_row(fake):
    analysis = fake.realistic()
    text = render_markdown(analysis_document(analysis))
    table = [line for line in text.split("\n") if line.startswith("|")]
    assert len(table) == 2 + len(analysis.operators) + 1  # heading, rule, operators, total
    assert len({len(line) for line in table}) == 1  # padded: readable as plain text
