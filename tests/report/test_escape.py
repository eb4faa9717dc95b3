"""Names from a model, however they are spelt, show as themselves in every format and do nothing else."""

from __future__ import annotations

import html
import unicodedata
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from costmodel.report import render
from costmodel.report.as_markdown import render_markdown
from costmodel.report.document import Code, Column, Document, Figure, KeyValues, Notes, Paragraph, Table
from costmodel.report.escape import for_csv, for_html, for_markdown, for_terminal, markdown_target, one_line, visible

#: Any text, and texts made of what means something somewhere.
NAMES = st.text(max_size=30) | st.text(alphabet="|\\`*_~<>&[]()!#\"'=+-@\n\r\t\x00\x1b\u202e0.a ;/:", max_size=30)

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def page_of(name: str) -> Document:
    """A document that says ``name`` in every place that it has."""
    columns = (Column(key="name", heading=name, align="left"), Column(key="n", heading="n"))
    table = Table(columns=columns, rows=({"name": name, "n": 1},), footer=({"name": name, "n": 1},), title=name)
    return Document(
        name, (Paragraph(name), KeyValues(((name, name),)), Notes((name,), name), Figure("f.svg", name, name), table)
    )


def texts_and_tags(page: str) -> tuple[list[str], list[str]]:
    found: tuple[list[str], list[str]] = ([], [])

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found[1].append(tag)

        def handle_data(self, data: str) -> None:
            found[0].append(data)

    reader = Reader()
    reader.feed(page)
    reader.close()
    return found


@given(NAMES)
def test_a_paragraph_of_markdown_shows_the_name(name: str) -> None:
    shown = GITHUB.render(for_markdown(name))
    texts, tags = texts_and_tags(shown)
    assert "".join(texts).strip("\n") == one_line(name)
    assert set(tags) <= {"p"}


@given(NAMES)
def test_a_cell_of_markdown_shows_the_name_and_the_table_stays_a_table(name: str) -> None:
    table = Table(columns=(Column(key="a", heading="h", align="left"), Column(key="n", heading="n")),
                  rows=({"a": name, "n": 7},))  # fmt: skip
    texts, tags = texts_and_tags(GITHUB.render(render_markdown(Document("t", (table,)))))
    assert tags.count("td") == 2 and set(tags) == {"h1", "table", "thead", "tbody", "tr", "th", "td"}
    cells = [text for text in texts if text.strip("\n")]
    assert cells == ["t", "h", "n", *[one_line(name)] * bool(one_line(name)), "7"]


@given(NAMES)
def test_a_page_of_markdown_has_the_same_parts_whatever_the_name(name: str) -> None:
    def parts(word: str) -> list[str]:
        return texts_and_tags(GITHUB.render(render_markdown(page_of(word))))[1]

    assert parts(f"x{name}") == parts("x")


@given(NAMES)
def test_html_has_the_same_parts_whatever_the_name_and_shows_it(name: str) -> None:
    texts, tags = texts_and_tags(render(page_of(f"x{name}"), "html"))
    assert tags == texts_and_tags(render(page_of("x"), "html"))[1]
    assert texts.count(one_line(f"x{name}")) >= 8
    assert html.unescape(for_html(name)) == one_line(name)


@given(NAMES)
def test_nothing_unseen_is_left_in_any_format(name: str) -> None:
    shown = [for_terminal(name), for_markdown(name), for_html(name)]
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") for text in shown for c in text)
    document = page_of(name)
    for format in ("table", "markdown", "html"):
        text = render(document, format)
        assert all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text)


@given(NAMES)
def test_code_keeps_its_lines_and_stays_inside_its_fence(name: str) -> None:
    texts, tags = texts_and_tags(GITHUB.render(render_markdown(Document("t", (Code(name, name), Paragraph("after"))))))
    assert tags == ["h1", "pre", "code", "p"] and "after" in texts


@given(NAMES)
def test_a_target_never_ends_its_link(name: str) -> None:
    target = markdown_target(name.encode("utf-8", "replace").decode())
    assert not set(target) & set("()<> \n\\\"'")


def test_spreadsheets_run_no_name() -> None:
    assert for_csv('=HYPERLINK("http://x")') == '\'=HYPERLINK("http://x")'
    assert [for_csv(text) for text in ("+1", "-1", "@a", "\ta", "\ra")] == ["'+1", "'-1", "'@a", "'\ta", "'\ra"]
    assert for_csv("'=1") == "''=1"  # so that taking one away gives the name again
    assert for_csv("a=1") == "a=1" and for_csv("'a'") == "'a'"
    assert for_csv(-3) == -3 and for_csv(None) is None and for_csv(-0.5) == -0.5


def test_marks_that_turn_text_around_are_spelt_out() -> None:
    assert visible("user\u202egnp.exe") == "user\\u202egnp.exe"
    assert visible("a\nb", besides="\n") == "a\nb"
