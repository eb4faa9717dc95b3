"""Documents as text for a terminal: never wider than asked, plain without a tty, ASCII where it must be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO

from costmodel.report.document import Block, Code, Column, Document, Figure, KeyValues, Notes, Paragraph, Table
from costmodel.report.escape import for_terminal
from costmodel.report.text import is_unicode, shorten, shorten_list, wrap_expression, wrap_words

__all__ = ["TerminalStyle", "render_terminal"]

DEFAULT_WIDTH = 100
MIN_WIDTH = 40

_GAP = "  "
_EXPRESSION_LINES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalStyle:
    """Width in characters (at least 40), whether only ASCII may be used, and whether bold and colours may."""

    width: int = DEFAULT_WIDTH
    ascii_only: bool = False
    bold: bool = False
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> TerminalStyle:
        """The style that suits ``stream``: a terminal's own width, bold titles and colours, else 100 columns of plain
        text. ``NO_COLOR`` (https://no-color.org) takes the colours, a dumb terminal bold letters as well.
        """
        tty = bool(getattr(stream, "isatty", lambda: False)())
        bold = tty and os.environ.get("TERM", "") != "dumb"  # which shows the codes of both as text
        colour = bold and not os.environ.get("NO_COLOR")
        width = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if tty else DEFAULT_WIDTH
        return cls(width=width, ascii_only=not is_unicode(getattr(stream, "encoding", None)), bold=bold, colour=colour)

    def clean(self, text: str) -> str:
        """``text`` on one line, every character one column wide."""
        return for_terminal(text, ascii_only=self.ascii_only)

    @property
    def ellipsis(self) -> str:
        """The sign for what is left out."""
        return "..." if self.ascii_only else "…"


def render_terminal(document: Document, style: TerminalStyle | None = None) -> str:
    """The text of ``document``, a newline at its end, no line longer than the style's width."""
    style = style or TerminalStyle()
    if style.width < MIN_WIDTH:
        style = replace(style, width=MIN_WIDTH)
    parts = [_titled(wrap_words(style.clean(document.title), style.width), style)]
    for block in document.blocks:
        parts.append(_RENDERERS[type(block)](block, style))
    return "\n".join(_spaced(document.blocks, parts)) + "\n"


def _spaced(blocks: Sequence[Block], parts: list[list[str]]) -> Iterator[str]:
    """All lines, an empty one between blocks; the first paragraph stays with the title."""
    yield from parts[0]
    for number, (block, lines) in enumerate(zip(blocks, parts[1:], strict=True)):
        if number or not isinstance(block, Paragraph):
            yield ""
        yield from lines


def _titled(lines: list[str], style: TerminalStyle) -> list[str]:
    return [f"\x1b[1m{line}\x1b[0m" for line in lines] if style.bold else lines


def _paragraph(block: Paragraph, style: TerminalStyle) -> list[str]:
    return wrap_words(style.clean(block.text), style.width)


def _key_values(block: KeyValues, style: TerminalStyle) -> list[str]:
    pairs = [(style.clean(label), style.clean(value)) for label, value in block.pairs]
    indent = min(max((len(label) for label, _ in pairs), default=0), style.width // 3)
    lines: list[str] = []
    for label, value in pairs:
        first = f"{shorten(label, indent, ellipsis=style.ellipsis):<{indent}}{_GAP}"
        lines += wrap_words(value, style.width, first=first, rest=" " * len(first))
    return lines


def _notes(block: Notes, style: TerminalStyle) -> list[str]:
    title = _titled(wrap_words(style.clean(block.title), style.width), style) if block.title else []
    items = [wrap_words(style.clean(item), style.width, first="- ", rest="  ") for item in block.items]
    return [*title, *(line for item in items for line in item)]


def _code(block: Code, style: TerminalStyle) -> list[str]:
    first = style.clean(block.label)[: style.width // 2]
    lines = wrap_expression(style.clean(block.text), style.width, first=f"{first} " if first else "")
    if len(lines) <= _EXPRESSION_LINES:
        return lines
    cut = f"{style.ellipsis} {len(lines) - _EXPRESSION_LINES} more lines; the formula command prints all of them"
    return [*lines[:_EXPRESSION_LINES], *wrap_words(cut, style.width, first="    ", rest="    ")]


def _figure(block: Figure, style: TerminalStyle) -> list[str]:
    return wrap_words(style.clean(f"[{block.caption or block.alt}: {block.path}]"), style.width)


def _table(block: Table, style: TerminalStyle) -> list[str]:
    title = _titled(wrap_words(style.clean(block.title), style.width), style) if block.title else []
    columns, left_out = _fit(block, style)
    lines = _grid([text for _, text in columns], [column for column, _ in columns], len(block.footer))
    if style.colour:
        lines = _coloured(lines, columns)
    if left_out:
        names = ", ".join(style.clean(column.heading) for column in left_out)
        note = f"left out to fit {style.width} characters: {names} (--format markdown shows all)"
        lines += wrap_words(note, style.width)
    return [*title, *lines]


#: What bounds a kernel -> its colour: busy arithmetic is what one wants to see.
_COLOURS = {"compute": "\x1b[32m", "memory": "\x1b[33m", "launch": "\x1b[31m"}


def _coloured(lines: list[str], columns: list[tuple[Column, list[str]]]) -> list[str]:
    """``lines`` of a table with the words of its column ``bound`` in colours."""
    place = next((i for i, (column, _) in enumerate(columns) if column.key == "bound"), None)
    if place is None:
        return lines
    start = sum(width + len(_GAP) for width in _widths(columns[:place]))
    end = start + _widths(columns[place : place + 1])[0]
    found = []
    for line in lines:
        word = line[start:end].strip()
        colour = _COLOURS.get(word)
        found.append(
            f"{line[:start]}{line[start:end].replace(word, f'{colour}{word}{_PLAIN}')}{line[end:]}" if colour else line
        )
    return found


_PLAIN = "\x1b[0m"


def _fit(table: Table, style: TerminalStyle) -> tuple[list[tuple[Column, list[str]]], list[Column]]:
    """The columns that fit with their cells, headings first, names shortened, and the columns left out."""
    columns = [(column, _cells(column, table, style)) for column in table.page_columns]
    left_out: list[Column] = []
    while len(columns) > 1 and _total_width(_shortest(columns)) > style.width:
        # among equals the rightmost goes first
        index = min(range(len(columns)), key=lambda i: (columns[i][0].importance, -i))
        left_out.append(columns.pop(index)[0])
    return _shortened(columns, style), left_out


def _cells(column: Column, table: Table, style: TerminalStyle) -> list[str]:
    """Heading, unit and the column's cells, footer last, as plain text."""
    rows = (*table.rows, *table.footer)
    return [style.clean(text) for text in (column.heading, column.unit, *(column.cell(row) for row in rows))]


def _widths(columns: list[tuple[Column, list[str]]]) -> list[int]:
    return [max(map(len, cells), default=0) for _, cells in columns]


def _shortest(columns: list[tuple[Column, list[str]]]) -> list[int]:
    """Width of each column when its names are as short as they may become."""
    return [
        width if column.shortest is None else min(width, max(column.shortest, len(cells[0])))
        for width, (column, cells) in zip(_widths(columns), columns, strict=True)
    ]


def _total_width(widths: list[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _shortened(columns: list[tuple[Column, list[str]]], style: TerminalStyle) -> list[tuple[Column, list[str]]]:
    """The same columns, made narrower where there is most room for it, a character at a time, until all fit."""
    widths = _widths(columns)
    least = _shortest(columns) if len(columns) > 1 else [0] * len(columns)
    for _ in range(_total_width(widths) - style.width):
        widths[max(range(len(widths)), key=lambda i: widths[i] - least[i])] -= 1
    return [
        (column, [_shortener(column)(cell, width, ellipsis=style.ellipsis) for cell in cells])
        for width, (column, cells) in zip(widths, columns, strict=True)
    ]


def _shortener(column: Column) -> Callable[..., str]:
    return shorten_list if column.listed else shorten


def _grid(cells: list[list[str]], columns: list[Column], footer: int) -> list[str]:
    """Aligned lines: headings over units, a rule, the rows, a rule, the footer."""
    if not columns:
        return []
    from tabulate import DataRow as Line
    from tabulate import TableFormat, tabulate

    bare = TableFormat(None, None, None, None, Line("", _GAP, ""), Line("", _GAP, ""), padding=0, with_header_hide=None)
    align = [column.align for column in columns]
    text = tabulate(list(zip(*cells, strict=True)), tablefmt=bare, disable_numparse=True, colalign=align)
    lines = [line.rstrip() for line in text.split("\n")]
    heads = 2 if any(column.unit for column in columns) else 1
    body = lines[2:]
    rule = "-" * max(map(len, lines))
    ends = [rule, *body[len(body) - footer :]] if footer else []
    return [*lines[:heads], rule, *body[: len(body) - footer], *ends]


_RENDERERS: dict[type, Callable[[Any, TerminalStyle], list[str]]] = {
    Paragraph: _paragraph,
    KeyValues: _key_values,
    Notes: _notes,
    Code: _code,
    Figure: _figure,
    Table: _table,
}
