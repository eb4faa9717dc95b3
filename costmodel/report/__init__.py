"""Reports: one content in every format, printed or written whole.

A report is a :class:`~costmodel.report.document.Document`, an analysis, or several of either;
:func:`render` gives its text, :func:`write` prints it or puts it in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.errors import InputError, librarian, near_matches
from costmodel.report.document import Document
from costmodel.report.output import check_writable, put

__all__ = ["FORMATS", "STEP_FORMATS", "Document", "check_writable", "render", "write"]

#: Formats of every report, and those that a step on a machine has besides: its timeline.
FORMATS = ("table", "markdown", "json", "csv", "html", "latex")
STEP_FORMATS = (*FORMATS, "perfetto")


def render(
    content: Any, format: str = "table", *, by: str = "op", top: int | None = None,
    columns: Sequence[str] | None = None, style: Any = None,
) -> str:  # fmt: skip
    """The text of a document, an analysis, or a list of either.

    ``by``, ``top`` (None or 0: all) and ``columns`` shape the rows of an analysis; data formats always
    hold all rows and columns. ``style`` is a :class:`~costmodel.report.as_terminal.TerminalStyle`.
    Several analyses are one page that compares their machines; JSON and CSV hold each of them whole. HTML is a
    page to be explored, unless rows are kernels or ``columns`` are named: then it is a static one.
    Raises InputError for an unknown format, grouping or column.
    """
    _check_format(format)
    contents = list(content) if isinstance(content, (list, tuple)) else [content]
    several = isinstance(content, (list, tuple)) and len(contents) != 1
    are_documents = all(isinstance(item, Document) for item in contents)
    if format == "perfetto":
        return _timeline(contents, are_documents)
    if format == "json":
        return _json(contents, several, are_documents, by)
    if format == "html" and not are_documents and contents and by != "kernel" and columns is None:
        from costmodel.report.explorer import explorer_page

        if page := explorer_page(contents):
            return page
    if not are_documents:
        contents = _documents(contents, format, by, top, columns)
    return _text(contents, format, style)


def write(content: Any, format: str = "table", path: Any = None, **options: Any) -> None:
    """Print ``content`` or, where ``path`` is given and not ``-``, write it to that file, whole or not at all.

    ``options`` are those of :func:`render`. Raises OutputError when the file cannot be written.
    """
    import sys

    to_stdout = path is None or str(path) == "-"
    if format == "table" and options.get("style") is None and to_stdout:
        from costmodel.report.as_terminal import TerminalStyle

        options["style"] = TerminalStyle.of(sys.stdout)
    if not to_stdout:
        check_writable(path)
    put(render(content, format, **options), None if to_stdout else path)


def _check_format(format: str) -> None:
    if format not in STEP_FORMATS:
        near = near_matches(format, STEP_FORMATS)
        raise InputError(librarian(f"there is no report format {format!r}", there_is=STEP_FORMATS, near=near))


def _documents(
    analyses: list[Any], format: str, by: str, top: int | None, columns: Sequence[str] | None
) -> list[Document]:
    from costmodel.report.rows import rows_table
    from costmodel.report.summary import analysis_document, machines_document

    if format == "csv":
        return [Document(analysis.model.name, (rows_table(analysis, by=by, in_full=True),)) for analysis in analyses]
    if len(analyses) > 1:
        return [machines_document(analyses)]
    return [analysis_document(analysis, by=by, top=top, columns=columns) for analysis in analyses]


def _timeline(contents: list[Any], are_documents: bool) -> str:
    if are_documents:
        raise InputError(
            "perfetto is the format of a step's timeline, which this report has none of\n"
            "  costmodel analyze MODEL --hw NAME --format perfetto -o step.json"
        )
    from costmodel.report.perfetto import render_perfetto

    return render_perfetto(contents)


def _json(contents: list[Any], several: bool, are_documents: bool, by: str) -> str:
    from costmodel.report import as_json

    if are_documents:
        values = [as_json.document_json(document) for document in contents]
        return as_json.dump_json({"schema_version": 1, "documents": values} if several else values[0])
    return as_json.dump_json(
        as_json.analyses_json(contents, by=by) if several else as_json.analysis_json(contents[0], by=by)
    )


def _text(documents: list[Document], format: str, style: Any) -> str:
    if format == "csv":
        from costmodel.report.as_csv import render_csv

        return render_csv(documents)
    if format == "latex":
        from costmodel.report.as_latex import render_latex

        return render_latex(documents)
    if format == "markdown":
        from costmodel.report.as_markdown import render_markdown

        return "\n".join(map(render_markdown, documents))
    if format == "html":
        from costmodel.report.as_html import render_html

        return render_html(documents)
    from costmodel.report.as_terminal import render_terminal

    return "\n\n".join(render_terminal(document, style) for document in documents)
