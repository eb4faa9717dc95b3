"""emit(): one answer in every format, where data formats hold something of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from costmodel.report import write
from costmodel.report.as_json import dump_json
from costmodel.report.document import Document
from costmodel.report.output import put

__all__ = ["Page", "emit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer, each form of it made when asked for.

    ``document``  what people read, as a table, markdown or HTML
    ``data``      the JSON value
    ``table``     the document whose tables CSV holds
    """

    document: Callable[[], Document]
    data: Callable[[], Any]
    table: Callable[[], Document]


def emit(page: Page, format: str, path: str | os.PathLike[str] | None = None) -> None:
    """Print ``page`` or, where ``path`` is given and not ``-``, write it to that file, whole or not at all.

    Raises InputError for an unknown format, OutputError when the file cannot be written.
    """
    if format == "json":
        put(dump_json(page.data()), None if path is None or str(path) == "-" else path)
    else:
        write(page.table() if format == "csv" else page.document(), format, path)
