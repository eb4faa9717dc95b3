"""From studies to files: markdown and figures in a folder, each whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from costmodel.errors import OutputError, librarian
from costmodel.report.as_markdown import render_chapters
from costmodel.report.document import Code, Document, Paragraph
from costmodel.report.figures import require_matplotlib
from costmodel.report.output import put
from costmodel.studies.bench import Bench
from costmodel.studies.registry import find, names

__all__ = ["files_of", "write_reports"]

MADE = "From the networks' operators and descriptions of the machines, without running anything, by:"

#: Where figures lie beside the pages that show them.
FIGURES = "figures"


def files_of(name: str, bench: Bench) -> dict[str, str]:
    """Text by path, relative to the folder of reports: the page first, then its figures."""
    report = find(name)(bench)
    made = Document("How this page was made", (Paragraph(MADE), Code(f"costmodel report {name}")))
    page = {f"{name}.md": _linked(render_chapters((*report.chapters, made)))}
    return page | {f"{FIGURES}/{file}": svg for file, svg in report.figures.items()}


def _linked(page: str) -> str:
    """The page with the names of other reports as links.

    >>> _linked("See resnet_abcd.md for more.")
    'See [resnet_abcd.md](resnet_abcd.md) for more.'
    """
    others = "|".join((*names(), "accuracy", "accuracy_cpu"))
    return re.sub(rf"(?<![\w/(\[])({others})\.md\b", r"[\1.md](\1.md)", page)


def write_reports(
    wanted: Sequence[str], folder: Path, *, use_cache: bool = True, progress: Callable[[str], None] | None = None
) -> Iterator[Path]:
    """Write these reports below ``folder`` and yield the path of every file.

    Raises InputError for an unknown name, OutputError where matplotlib is missing or the folder cannot be written.
    """
    require_matplotlib()
    for name in wanted:
        find(name)
    bench = Bench(use_cache=use_cache, progress=progress)
    for name in wanted:
        files = files_of(name, bench)
        _make(folder / FIGURES)
        for path, text in files.items():
            put(text, folder / path)
            yield folder / path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        do = "Name another folder, as in -o reports"
        raise OutputError(librarian(f"cannot make {folder}: {error.strerror or error}", do=do)) from error
