"""Documents as one HTML page that needs nothing besides: no scripts, no fonts, no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from costmodel.report.document import Block, Code, Document, Figure, KeyValues, Notes, Paragraph, Row, Table
from costmodel.report.escape import for_html

__all__ = ["html_fragment", "render_html"]

_CSS = """
:root { color-scheme: light dark; --soft: light-dark(#59636e, #98a3b0); --line: light-dark(#8a929b, #4a5563); }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em;
  color: light-dark(#1f2328, #e3e8ee); background: light-dark(#ffffff, #12161c); }
h1 { font-size: 1.6em; } h2 { font-size: 1.15em; margin: 1.8em 0 .5em; }
tbody tr:hover { background: light-dark(#eef3fb, #222b37); } figure { margin: 1em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .15em .7em; text-align: left; vertical-align: top; }
th.right, td.right { text-align: right; }
thead th { border-bottom: 1px solid var(--line); } tfoot tr:first-child td { border-top: 1px solid var(--line); }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1.2em; }
dt { color: var(--soft); } dd { margin: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.unit { font-weight: normal; color: var(--soft); } img { max-width: 100%; }
"""


def render_html(documents: Sequence[Document]) -> str:
    """A whole page with the documents one below the other."""
    title = for_html("; ".join(document.title for document in documents))
    body = "\n".join(map(html_fragment, documents))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_CSS}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def html_fragment(document: Document) -> str:
    """The document as HTML to be put inside a page, as notebooks do."""
    blocks = "\n".join(_RENDERERS[type(block)](block) for block in document.blocks)
    return f"<h1>{for_html(document.title)}</h1>\n{blocks}"


def _paragraph(block: Paragraph) -> str:
    return f"<p>{for_html(block.text)}</p>"


def _key_values(block: KeyValues) -> str:
    return "<dl>" + "".join(f"<dt>{for_html(k)}</dt><dd>{for_html(v)}</dd>" for k, v in block.pairs) + "</dl>"


def _notes(block: Notes) -> str:
    title = f"<h2>{for_html(block.title)}</h2>" if block.title else ""
    return title + "<ul>" + "".join(f"<li>{for_html(item)}</li>" for item in block.items) + "</ul>"


def _code(block: Code) -> str:
    return f"<pre>{for_html(f'{block.label} {block.text}'.strip(), keep_lines=True)}</pre>"


def _figure(block: Figure) -> str:
    caption = f"<figcaption>{for_html(block.caption)}</figcaption>" if block.caption else ""
    return f'<figure><img src="{for_html(block.path)}" alt="{for_html(block.alt)}">{caption}</figure>'


def _table(block: Table) -> str:
    columns = block.page_columns
    title = f"<h2>{for_html(block.title)}</h2>" if block.title else ""
    heads = "".join(
        f'<th class="{c.align}">{for_html(c.heading)}<br><span class="unit">{for_html(c.unit)}</span></th>'
        for c in columns
    )

    def line(row: Row) -> str:
        return "<tr>" + "".join(f'<td class="{c.align}">{for_html(c.cell(row))}</td>' for c in columns) + "</tr>"

    body, foot = "".join(map(line, block.rows)), "".join(map(line, block.footer))
    return f"{title}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"


_RENDERERS: dict[type[Block], Callable[[Any], str]] = {
    Paragraph: _paragraph,
    KeyValues: _key_values,
    Notes: _notes,
    Code: _code,
    Figure: _figure,
    Table: _table,
}
