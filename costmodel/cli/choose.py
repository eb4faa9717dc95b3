"""``costmodel choose MODEL --max-latency 20ms``: which machine, at which batch, and at what cost."""

from __future__ import annotations

import argparse

from costmodel.cli import arguments as common
from costmodel.cli.check import confidence

__all__ = ["add", "run"]

#: Machines that a page names in each list.
_TOP = 20


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "choose",
        help="machine and batch for a latency or a throughput",
        epilog="exit status: 0 some machine keeps the limits, 1 none does, 2 bad input",
    )
    common.add_model(parser)
    parser.add_argument(
        "--max-latency", type=common.seconds, metavar="TIME", help="most that a step may take, such as 10ms"
    )
    parser.add_argument("--min-throughput", type=_rate, metavar="N", help="least samples a second")
    parser.add_argument(
        "--hw", type=common.words, default=("all",), metavar="NAME[,NAME...]|all", help="machines (default: all)"
    )
    parser.add_argument("--prices", metavar="FILE", help="TOML with [per_hour] prices by machine")
    parser.add_argument(
        "--confidence", type=confidence, default=0.95, metavar="P", help="with which limits are kept (default: 95%%)"
    )
    common.add_execution(parser)
    common.add_phase(parser)
    parser.add_argument("--top", type=int, metavar="K", help=f"machines in each list (default: {_TOP} here; 0: all)")
    common.add_output(parser)
    parser.set_defaults(run=run)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of samples a second above 0, not {text!r}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Search, rank, report; the exit status says whether any machine will do."""
    from costmodel.choices import choose, read_prices
    from costmodel.choices.page import choice_document, choice_json, options_table
    from costmodel.errors import InputError
    from costmodel.report import Document, check_writable
    from costmodel.report.page import Page, emit

    if arguments.output:
        check_writable(arguments.output)
    said = common.conditions(arguments)
    if said.pop("batch") is not None:
        raise InputError("the batch is what choose looks for\n  leave out --batch; `costmodel analyze` takes one")
    found = choose(
        arguments.model,
        hw=arguments.hw,
        max_latency=arguments.max_latency,
        min_throughput=arguments.min_throughput,
        confidence=arguments.confidence,
        prices=read_prices(arguments.prices) if arguments.prices else None,
        **{name: value for name, value in said.items() if value is not None},
        use_cache=not arguments.no_cache,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    top = arguments.top if arguments.top is not None else _TOP if arguments.format == "table" else None
    page = Page(
        document=lambda: choice_document(found, top),
        data=lambda: choice_json(found),
        table=lambda: Document("options", (options_table(found),)),
    )
    emit(page, arguments.format, arguments.output)
    return 0 if found.options else 1
