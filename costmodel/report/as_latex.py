"""Documents as LaTeX: tables in booktabs' style to be put into a paper, everything else as comments around them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from costmodel.report.document import Code, Column, Document, Figure, KeyValues, Notes, Paragraph, Row, Table
from costmodel.report.escape import for_latex, one_line

__all__ = ["render_latex"]

#: Rows beyond which a table may break over pages.
_LONG = 45
#: Columns beyond which a table is set small.
_WIDE = 8


def render_latex(documents: Sequence[Document]) -> str:
    """Tables of all documents, one below the other, for a preamble with ``booktabs`` (and ``longtable``).

    Cells and headings are those of pages for people: rounded, one unit a column. Headings that neighbours share stand
    once above them. Raises nothing: a document without tables is comments alone.
    """
    parts = []
    for document in documents:
        parts.append(_comment(document.title))
        parts += [_RENDERERS[type(block)](block) for block in document.blocks]
    packages = r"\usepackage{booktabs}" + (
        r", \usepackage{longtable}" if r"\begin{longtable}" in "".join(parts) else ""
    )
    return "\n\n".join([f"% in the preamble: {packages}", *filter(None, parts)]) + "\n"


def _comment(text: str) -> str:
    return "\n".join(f"% {line}" for line in textwrap.wrap(one_line(text), 110, break_on_hyphens=False))


def _notes(block: Notes) -> str:
    return "\n".join([*([_comment(f"{block.title}:")] if block.title else []), *map(_comment, block.items)])


def _key_values(block: KeyValues) -> str:
    lines = [f"{for_latex(label)} & {for_latex(value)} \\\\" for label, value in block.pairs]
    body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
    return f"\\begin{{tabular}}{{lp{{0.72\\linewidth}}}}\n{body}\n\\end{{tabular}}"


def _table(block: Table) -> str:
    columns = block.page_columns
    if not columns:
        return ""
    align = "".join(column.align[0] for column in columns)
    heads = list(_heads(columns))
    rows = [_line(columns, row) for row in block.rows]
    foot = [r"\midrule", *(_line(columns, row) for row in block.footer)] if block.footer else []
    caption = f"\\caption{{{for_latex(block.title)}}}" if block.title else ""
    small = "\\footnotesize\\setlength{\\tabcolsep}{3pt}" if len(columns) > _WIDE else "\\small"
    if len(rows) > _LONG:
        top = [f"{caption}\\\\"] if caption else []
        head = [*top, r"\toprule", *heads, r"\midrule", r"\endhead"]
        body = [*head, *rows, *foot, r"\bottomrule"]
        return "\n".join([f"{{{small}", f"\\begin{{longtable}}{{{align}}}", *body, r"\end{longtable}}"])
    body = [r"\toprule", *heads, r"\midrule", *rows, *foot, r"\bottomrule"]
    inner = [f"\\begin{{tabular}}{{{align}}}", *body, r"\end{tabular}"]
    return "\n".join([r"\begin{table}", r"\centering", small, *([caption] * bool(caption)), *inner, r"\end{table}"])


def _heads(columns: Sequence[Column]) -> Iterator[str]:
    """Headings, one for neighbours that share theirs, then units."""
    cells, rules, place = [], [], 1
    for heading, group in groupby(columns, key=lambda column: column.heading):
        members = list(group)
        align = members[0].align[0] if len(members) == 1 else "c"
        cells.append(f"\\multicolumn{{{len(members)}}}{{{align}}}{{{for_latex(heading)}}}")
        if len(members) > 1:
            rules.append(f"\\cmidrule(lr){{{place}-{place + len(members) - 1}}}")
        place += len(members)
    yield " & ".join(cells) + r" \\"
    if rules:
        yield "".join(rules)
    if any(column.unit for column in columns):
        yield " & ".join(for_latex(column.unit) for column in columns) + r" \\"


def _line(columns: Sequence[Column], row: Row) -> str:
    return " & ".join(for_latex(column.cell(row)) for column in columns) + r" \\"


_RENDERERS: dict[type, Callable[[Any], str]] = {
    Paragraph: lambda block: _comment(block.text),
    KeyValues: _key_values,
    Notes: _notes,
    Code: lambda block: _comment(f"{block.label} {block.text}"),
    Figure: lambda block: _comment(f"{block.caption or block.alt}: {block.path}"),
    Table: _table,
}
