"""``costmodel explain MODEL --hw NAME``: why a step takes longer than its FLOPs say, in seconds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from costmodel.cli import arguments as common

if TYPE_CHECKING:
    from costmodel.analysis import Analysis
    from costmodel.explain import Finding, MeasuredRun, MeasuredSplit, Split

__all__ = ["add", "run"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("explain", help="why a model takes longer than its FLOPs say, by cause and by node")
    common.add_model(parser)
    parser.add_argument("--hw", required=True, metavar="NAME", help="the machine, or the path of its profile")
    common.add_execution(parser)
    common.add_phase(parser)
    common.add_run(parser)
    parser.add_argument(
        "--measured", metavar="FILE", help="what `costmodel measure -o FILE` wrote; its conditions are taken over"
    )
    parser.add_argument("--top", type=int, default=10, metavar="K", help="findings and nodes (default: 10; 0: all)")
    common.add_output(parser)
    parser.set_defaults(run=run, given=_given(parser))


def _given(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """What conditions are when nobody states them."""
    names = ("batch", "image_size", "dtype", "layout", "mode", "phase", "optimizer", "checkpoint", "trainable")
    return {name: parser.get_default(name) for name in names}


def run(arguments: argparse.Namespace) -> int:
    """Analyze, split, ask the rules, report."""
    from costmodel.errors import InputError
    from costmodel.explain import MeasuredSplit, findings, read_measured_run, split
    from costmodel.report import check_writable

    if arguments.top < 0:
        raise InputError(f"--top {arguments.top}: a number of findings is asked for, 0 shows all")
    if arguments.output:
        check_writable(arguments.output)
    measurement = read_measured_run(arguments.measured) if arguments.measured else None
    if measurement is not None:
        _take_over(arguments, measurement)
    analysis = _analyze(arguments, arguments.layout, use_cache=not arguments.no_cache)
    parts = split(analysis)
    measured = MeasuredSplit(parts, measurement) if measurement is not None else None
    found = findings(analysis, channels_last=lambda: _cached_channels_last(arguments))
    _write(parts, found, measured, arguments)
    return 0


def _analyze(arguments: argparse.Namespace, layout: str, use_cache: Any) -> Analysis:
    from costmodel.api import ALL_SYMBOLS, analyze

    analysis = analyze(
        arguments.model,
        hw=arguments.hw,
        **{**common.conditions(arguments), "layout": layout},
        **common.running(arguments),
        symbols=ALL_SYMBOLS,
        use_cache=use_cache,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    return analysis


def _cached_channels_last(arguments: argparse.Namespace) -> Analysis | None:
    """The model in channels_last where it was traced before; tracing it for a remark would take too long."""
    from costmodel.errors import CostmodelError

    try:
        return None if arguments.no_cache or arguments.execute else _analyze(arguments, "nhwc", use_cache="only")
    except CostmodelError:
        return None


def _take_over(arguments: argparse.Namespace, measurement: MeasuredRun) -> None:
    """Analyze under the conditions of the measurement. Raises InputError where a flag says otherwise."""
    from costmodel.errors import InputError

    for name, value in measurement.conditions.items():
        asked = getattr(arguments, name)
        if asked not in (arguments.given[name], value):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{measurement.path} was measured with {flag} {value}, and {flag} {asked} is asked for\n"
                f"  leave {flag} out, or measure again"
            )
        setattr(arguments, name, value)


def _write(
    parts: Split, found: tuple[Finding, ...], measured: MeasuredSplit | None, arguments: argparse.Namespace
) -> None:
    """The page; JSON has keys of its own, CSV every part of the split."""
    from costmodel.report import Document
    from costmodel.report.explained import explained_document, explained_json, parts_table
    from costmodel.report.page import Page, emit

    page = Page(
        document=lambda: explained_document(parts, found, top=arguments.top, measured=measured),
        data=lambda: explained_json(parts, found, measured),
        table=lambda: Document("parts", (parts_table(parts),)),
    )
    emit(page, arguments.format, arguments.output)
