"""A report without a format: what is said, and the exact values behind it.

A :class:`Document` is a title and blocks. Each format (``as_terminal``, ``as_markdown``, ``as_csv``,
``as_json``) renders the same documents. A table keeps the raw value of every cell: pages for people
show it rounded, with the unit in the heading; data formats give it exactly, with the unit in the
column's key (``latency_s``, ``bytes_read``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Block", "Code", "Column", "Document", "Figure", "KeyValues", "Notes", "Paragraph", "Row", "Table"]

#: Raw values by column key. A key that is absent shows as an empty cell.
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Labels with their values, aligned."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Notes:
    """A list of remarks, under an optional title."""

    items: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be copied: an expression or a command. ``label`` names it (``FLOPs =``)."""

    text: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture by its path relative to the document; formats without pictures show the caption."""

    path: str
    alt: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    ``key``         name of the raw value, unit included (``latency_s``)
    ``heading``     what a page calls it (``time``)
    ``unit``        the unit of the rendered cells (``µs``)
    ``render``      raw value -> text of a cell
    ``importance``  the least important column is left out first where a page is narrow
    ``shortest``    characters to which long cells may be shortened in the middle; None: never
    ``listed``      cells are lists: they are shortened by leaving out their last items
    ``on_page``     whether pages show it; ``in_data`` whether data formats do
    """

    key: str
    heading: str
    unit: str = ""
    align: Literal["left", "right"] = "right"
    render: Callable[[Any], str] = str
    importance: int = 50
    shortest: int | None = None
    listed: bool = False
    on_page: bool = True
    in_data: bool = True

    def cell(self, row: Row) -> str:
        """Text of this column's cell in ``row``; empty where the row has no such value.

        >>> Column(key="flops", heading="FLOPs", render="{:,}".format).cell({"flops": 8192})
        '8,192'
        """
        return self.render(row[self.key]) if self.key in row else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns, rows of raw values, and ``footer`` rows (the rest, the total).

    Data formats leave the footer out, so that a sum over their rows counts nothing twice.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footer: tuple[Row, ...] = ()
    title: str = ""

    @property
    def page_columns(self) -> tuple[Column, ...]:
        """Columns that a page for people shows."""
        return tuple(column for column in self.columns if column.on_page)

    @property
    def data_columns(self) -> tuple[Column, ...]:
        """Columns that a data format writes."""
        return tuple(column for column in self.columns if column.in_data)

    def records(self) -> list[dict[str, Any]]:
        """Exact values of the rows by data column; None where a row has no value."""
        return [{column.key: row.get(column.key) for column in self.data_columns} for row in self.rows]


Block: TypeAlias = "Paragraph | KeyValues | Notes | Code | Figure | Table"


@dataclass(frozen=True, slots=True)
class Document:
    """A title and what follows it, in reading order."""

    title: str
    blocks: tuple[Block, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables among the blocks."""
        return tuple(block for block in self.blocks if isinstance(block, Table))
