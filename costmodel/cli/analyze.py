"""``costmodel analyze MODEL --hw NAME``: the main job."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from costmodel.cli import arguments as common
from costmodel.report import STEP_FORMATS

__all__ = ["add", "run"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("analyze", help="cost and latency of a model on one or more machines")
    common.add_model(parser)
    parser.add_argument(
        "--hw", type=common.words, required=True, metavar="NAME[,NAME...]", help="machines, or paths of profiles"
    )
    common.add_execution(parser, several_modes=True)
    common.add_phase(parser)
    common.add_run(parser)
    parser.add_argument(
        "--by",
        choices=("op", "module", "type", "stage", "phase", "kernel"),
        default="op",
        help="rows of the table (default: op)",
    )
    parser.add_argument(
        "--columns",
        type=common.words,
        metavar="NAMES",
        help="quantities that the table shows, such as macs,params,activation_bytes,receptive_field",
    )
    parser.add_argument("--top", type=int, metavar="K", help="only the K rows that take longest (default: 20; 0: all)")
    parser.add_argument(
        "--figure",
        choices=("roofline", "causes", "timeline", "memory", "batches"),
        help="draw this into the file of -o (.svg, .pdf or .png) in place of a report",
    )
    parser.add_argument(
        "--symbols", type=common.words, metavar="NAMES", help="sizes to leave open (default: all that can be)"
    )
    parser.add_argument(
        "--generate", type=common.positive, metavar="N",
        help="a prompt and the steps that write N tokens after it, added up (hf: models that write text)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if an operator has no formula")
    common.add_output(parser, STEP_FORMATS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Analyze, report, and say by the exit status whether ``--strict`` held."""
    from costmodel.api import ALL_SYMBOLS, analyze
    from costmodel.engines import engine_names, engine_of
    from costmodel.errors import InputError
    from costmodel.hardware import load
    from costmodel.report import check_writable, write
    from costmodel.report.model_figures import check_figure, write_figure

    machines = [load(name) for name in arguments.hw]
    if not machines:
        raise InputError("--hw names no machine\n  `costmodel hw list` shows them")
    common.check_distinct("machine", [machine.name for machine in machines])
    if arguments.output:
        check_writable(arguments.output)
    if arguments.figure:
        check_figure(arguments.figure, arguments.output)
    if arguments.generate:
        return _generate(arguments, machines)
    modes = arguments.mode
    if not modes:
        raise InputError(f"--mode names no mode\n  there are: {', '.join(engine_names())}")
    common.check_distinct("mode", modes)
    first = analyze(
        arguments.model,
        hw=machines[0],
        **{**common.conditions(arguments), "mode": modes[0]},
        **common.running(arguments),
        symbols=_symbols(arguments.symbols, ALL_SYMBOLS),
        use_cache=not arguments.no_cache,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    for mode in modes:
        engine_of(mode)
    analyses = [first.at(hw=machine, mode=mode) for machine in machines for mode in modes]
    if arguments.figure:
        write_figure(arguments.figure, analyses, arguments.output)
        return _strict(first) if arguments.strict else 0
    top = 20 if arguments.top is None and arguments.format == "table" else arguments.top
    write(
        analyses if len(analyses) > 1 else analyses[0],
        arguments.format,
        arguments.output,
        by=arguments.by,
        top=top,
        columns=arguments.columns,
    )
    return _strict(first) if arguments.strict else 0


def _generate(arguments: argparse.Namespace, machines: Sequence[Any]) -> int:
    """A prompt and its steps, on one machine in one mode."""
    from costmodel.errors import InputError
    from costmodel.generation import generate
    from costmodel.generation.page import generation_data, generation_document, steps_table
    from costmodel.report import Document
    from costmodel.report.page import Page, emit

    if len(machines) > 1 or len(arguments.mode) > 1:
        raise InputError("--generate adds up the steps of one machine in one mode\n  name one of each")
    found = generate(
        arguments.model,
        hw=machines[0],
        new_tokens=arguments.generate,
        **{**common.conditions(arguments), "mode": arguments.mode[0]},
        use_cache=not arguments.no_cache,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    page = Page(
        document=lambda: generation_document(found),
        data=lambda: generation_data(found),
        table=lambda: Document("steps", (steps_table(found),)),
    )
    emit(page, arguments.format, arguments.output)
    return 0


def _symbols(asked: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    from costmodel.errors import InputError, librarian, near_matches

    for name in asked or ():
        if name not in known:
            raise InputError(librarian(f"no size is called {name!r}", there_is=known, near=near_matches(name, known)))
    return known if asked is None else asked


def _strict(analysis: object) -> int:
    uncosted = analysis.coverage.uncosted  # type: ignore[attr-defined]
    if uncosted:
        named = ", ".join(f"{u.op} ({u.count})" for u in uncosted)
        print(f"costmodel: --strict: operators without a formula: {named}", file=sys.stderr)
    return 1 if uncosted else 0
