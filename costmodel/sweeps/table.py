"""Sweep: the rows of a grid, to be narrowed, shown and written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.errors import InputError, OutputError, librarian
from costmodel.sweeps.columns import COLUMNS, COORDINATES
from costmodel.sweeps.evaluate import Record
from costmodel.sweeps.pareto import pareto
from costmodel.sweeps.where import condition

if TYPE_CHECKING:
    from costmodel.report.figures import Picture

__all__ = ["Sweep"]


class Sweep(Sequence[Record]):
    """A tidy table: one row a point, the same columns in all of them, units in their names.

    ``axes`` are the values that were asked for; ``said`` how the rows were chosen from those of the grid.
    """

    def __init__(
        self, rows: Sequence[Record], axes: Mapping[str, tuple[Any, ...]], said: tuple[str, ...] = (),
        objectives: tuple[str, ...] = (), unjudged: tuple[Record, ...] = (),
    ) -> None:  # fmt: skip
        self.rows, self.axes, self.said, self.objectives = tuple(rows), dict(axes), said, objectives
        #: Points that failed before rows were chosen: no condition can judge them, and a page names them.
        self.unjudged = unjudged
        #: What a Pareto front was chosen from; else the rows themselves.
        self.among = self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"<Sweep of {len(self.rows)} points, {len(self.failed)} failed>"

    @property
    def failed(self) -> tuple[Record, ...]:
        """Rows without numbers; their ``reason`` says why."""
        return tuple(row for row in self.rows if row["reason"])

    @property
    def varying(self) -> tuple[str, ...]:
        """Coordinates that differ between rows, in the order of the columns."""
        return tuple(c.key for c in COORDINATES if len({row[c.key] for row in self.rows}) > 1)

    # -- narrower ------------------------------------------------------------------------------

    def where(self, text: str) -> Sweep:
        """The rows for which a condition such as ``latency_ms < 5 and fits`` is true (:mod:`costmodel.sweeps.where`).

        Raises InputError for what is no condition.
        """
        holds = condition(text)
        return self._chosen([row for row in self.rows if holds(row)], text)

    def pareto(self, *objectives: str) -> Sweep:
        """The rows of each machine and batch that no other beats in all ``objectives``, such as "macs", "latency".

        See :func:`costmodel.sweeps.pareto.pareto`. Raises InputError for fewer than two, or for no quantity.
        """
        several = [f"each {word}" for key, word in (("hw", "machine"), ("batch", "batch")) if key in self.varying]
        of = f", for {' and '.join(several)}" if several else ""
        found = self._chosen(pareto(self.rows, objectives), f"Pareto front of {', '.join(objectives)}{of}")  # type: ignore[arg-type]
        found.objectives, found.among = objectives, self.rows
        return found

    def _chosen(self, rows: Sequence[Record], said: str) -> Sweep:
        kept = {id(row) for row in rows}
        unjudged = (*self.unjudged, *(row for row in self.failed if id(row) not in kept))
        return Sweep(rows, self.axes, (*self.said, said), self.objectives, unjudged)

    # -- out -----------------------------------------------------------------------------------

    def to_csv(self) -> str:
        """All columns, exact, as CSV."""
        from costmodel.report import Document, render
        from costmodel.sweeps.page import rows_table

        return render(Document("sweep", (rows_table(self),)), "csv")

    def to_json(self) -> str:
        """``{"schema_version", "axes", "chosen", "columns", "rows"}`` as JSON text."""
        from costmodel.report.as_json import dump_json
        from costmodel.sweeps.page import swept_json

        return dump_json(swept_json(self))

    def to_markdown(self) -> str:
        """The page as GitHub markdown."""
        from costmodel.report import render
        from costmodel.sweeps.page import swept_document

        return render(swept_document(self), "markdown")

    def _repr_html_(self) -> str:
        from costmodel.report.as_html import html_fragment
        from costmodel.sweeps.page import swept_document

        return html_fragment(swept_document(self))

    def figure(self, kind: str) -> Picture:
        """``latency``, ``throughput``, ``flops`` or ``pareto``: ``.svg()`` or ``.encoded("png")`` draws it."""
        from costmodel.sweeps.figures import figure

        return figure(self, kind)

    def to_frame(self) -> Any:
        """A pandas DataFrame. Raises InputError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise InputError(librarian("to_frame() needs pandas", do="pip install pandas")) from error
        return pandas.DataFrame(list(self.rows), columns=[column.key for column in COLUMNS])

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as Parquet, whole or not at all; each column has the type of its kind, whatever is in it.

        Raises OutputError where pyarrow is not installed or the file cannot be written.
        """
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            do = "pip install 'torch-costmodel[parquet]'\n--format csv and json need nothing more"
            raise OutputError(librarian("Parquet needs pyarrow, which is not installed", do=do)) from error
        from costmodel.report.output import check_writable, put_bytes

        check_writable(path)
        types = {
            "text": pyarrow.string(),
            "count": pyarrow.int64(),
            "number": pyarrow.float64(),
            "truth": pyarrow.bool_(),
        }
        schema = pyarrow.schema([(column.key, types[column.kind]) for column in COLUMNS])
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pylist(list(self.rows), schema=schema), sink)
        put_bytes(sink.getvalue().to_pybytes(), path)
