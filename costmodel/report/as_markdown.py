"""Documents as GitHub markdown that also reads well as plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from costmodel.report.document import Code, Document, Figure, KeyValues, Notes, Paragraph, Table
from costmodel.report.escape import for_markdown, markdown_target, visible
from costmodel.report.text import wrap_expression

__all__ = ["render_chapters", "render_markdown"]

_CODE_WIDTH = 100


def render_markdown(document: Document) -> str:
    """The markdown text of ``document``, a newline at its end."""
    parts = [f"# {for_markdown(document.title)}"]
    parts += [_RENDERERS[type(block)](block) for block in document.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_chapters(documents: Sequence[Document]) -> str:
    """One page of several documents: the first gives the title, headings of the others are one level lower."""
    first, *rest = map(render_markdown, documents)
    return "\n".join([first, *(re.sub(r"^(?=#)", "#", text, flags=re.MULTILINE) for text in rest)])


def _paragraph(block: Paragraph) -> str:
    return for_markdown(block.text)


def _key_values(block: KeyValues) -> str:
    return "\n".join(f"- **{for_markdown(label)}**: {for_markdown(value)}" for label, value in block.pairs)


def _notes(block: Notes) -> str:
    title = f"## {for_markdown(block.title)}\n\n" if block.title else ""
    return title + "\n".join(f"- {for_markdown(item)}" for item in block.items)


def _code(block: Code) -> str:
    text, label = visible(block.text, besides="\n\t"), visible(block.label)
    lines = wrap_expression(text, _CODE_WIDTH, first=f"{label} " if label else "")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", f"{label} {text}")), default=0))
    return "\n".join([fence, *lines, fence])


def _figure(block: Figure) -> str:
    image = f"![{for_markdown(block.alt)}]({markdown_target(block.path)})"
    return f"{image}\n\n*{for_markdown(block.caption)}*" if block.caption else image


def _table(block: Table) -> str:
    columns = block.page_columns
    title = f"## {for_markdown(block.title)}\n\n" if block.title else ""
    if not columns:
        return title.rstrip()
    heads = [f"{c.heading} ({c.unit})" if c.unit else c.heading for c in columns]
    rows = [heads, *([c.cell(row) for c in columns] for row in (*block.rows, *block.footer))]
    cells = [[for_markdown(text) for text in row] for row in rows]
    return title + _pipes(cells, [column.align for column in columns])


def _pipes(cells: list[list[str]], align: list[str]) -> str:
    """A pipe table whose columns are padded, so that they line up as plain text too."""
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * (width - 1) + ":" if a == "right" else "-" * width for width, a in zip(widths, align, strict=True)]
    return "\n".join(_pipe_line(row, widths, align) for row in [cells[0], rule, *cells[1:]])


def _pipe_line(row: list[str], widths: list[int], align: list[str]) -> str:
    padded = (
        text.rjust(width) if a == "right" else text.ljust(width)
        for text, width, a in zip(row, widths, align, strict=True)
    )
    return f"| {' | '.join(padded)} |"


_RENDERERS: dict[type, Callable[[Any], str]] = {
    Paragraph: _paragraph,
    KeyValues: _key_values,
    Notes: _notes,
    Code: _code,
    Figure: _figure,
    Table: _table,
}
