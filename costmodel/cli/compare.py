"""``costmodel compare A B [C...] --hw X[,Y]``: FLOPs against time, and why they part."""

from __future__ import annotations

import argparse

from costmodel.cli import arguments as common

__all__ = ["add", "run"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("compare", help="FLOPs against time of several models, and why they part")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="two models or more; ratios are to the first")
    common.add_sizes(parser)
    parser.add_argument(
        "--hw", type=common.words, required=True, metavar="NAME[,NAME...]", help="machines, or paths of profiles"
    )
    common.add_execution(parser)
    common.add_phase(parser)
    common.add_run(parser)
    parser.add_argument(
        "--details", action="store_true", help="stages, causes in seconds for every model and machine, and conventions"
    )
    common.add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Analyze every model on every machine, and report."""
    from costmodel.api import ALL_SYMBOLS, compare
    from costmodel.report import Document, check_writable
    from costmodel.report.compared import compared_document, compared_json, contenders_table
    from costmodel.report.page import Page, emit

    if arguments.output:
        check_writable(arguments.output)
    found = compare(
        arguments.models,
        hw=arguments.hw,
        **common.conditions(arguments),
        **common.running(arguments),
        symbols=ALL_SYMBOLS,
        use_cache=not arguments.no_cache,
        progress=common.progress("models"),
    )
    common.clear_progress()
    page = Page(
        document=lambda: compared_document(found, details=arguments.details),
        data=lambda: compared_json(found),
        table=lambda: Document("models", (contenders_table(found),)),
    )
    emit(page, arguments.format, arguments.output)
    return 0
