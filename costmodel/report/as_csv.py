"""Tables as CSV: exact values, units in the header's keys, no footer rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from costmodel.errors import OutputError
from costmodel.report.document import Document, Table
from costmodel.report.escape import for_csv

__all__ = ["render_csv"]


def render_csv(documents: Sequence[Document]) -> str:
    """One CSV table: the rows of every document's table, one header, lines ended by a newline.

    Integers are written in full and floats in the shortest form that reads back as the same float; a
    value that does not exist is an empty cell. Text that a spreadsheet would take for a formula stands behind an
    apostrophe (:func:`~costmodel.report.escape.for_csv`). Raises OutputError unless every document has one table
    and all of them have the same columns.
    """
    tables = [_only_table(document) for document in documents]
    keys = [column.key for column in tables[0].data_columns] if tables else []
    if any([column.key for column in table.data_columns] != keys for table in tables):
        raise OutputError(
            "these reports have different columns and do not fit one CSV table\n  --format json holds all"
        )
    out = io.StringIO()
    writer = csv.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        writer.writerows({key: for_csv(value) for key, value in record.items()} for record in table.records())
    return out.getvalue()


def _only_table(document: Document) -> Table:
    if len(document.tables) != 1:
        raise OutputError(
            f"CSV holds one table, this report has {len(document.tables)}: {document.title}\n"
            "  --format json or --format markdown holds all of it"
        )
    return document.tables[0]
