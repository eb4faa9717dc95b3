"""``costmodel models [PATTERN]``: the networks that have a name."""

from __future__ import annotations

import argparse

from costmodel.cli import arguments as common

__all__ = ["add", "run"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("models", help="names of known models")
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="such as 'resnet*' or '*shuffle*' (default: all)")
    common.add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print name, source and family of every model that matches."""
    from costmodel.errors import UnknownModelError, librarian
    from costmodel.report import Document, write
    from costmodel.report.columns import text_column
    from costmodel.report.document import Table
    from costmodel.sources import known_models

    models = known_models(arguments.pattern)
    if not models:
        raise UnknownModelError(librarian(f"no model matches {arguments.pattern!r}", do="costmodel models lists all"))
    columns = (text_column("name", "model"), text_column("source", "source"), text_column("family", "family"))
    rows = tuple({"name": m.name, "source": m.source, "family": m.family or ""} for m in models)
    write(Document(f"{len(rows)} models", (Table(columns=columns, rows=rows),)), arguments.format, arguments.output)
    return 0
