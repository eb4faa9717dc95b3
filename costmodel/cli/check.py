"""``costmodel check MODEL... --hw NAME --budget latency=10ms``, or ``--baseline costs.json``: a gate for CI."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.cli import arguments as common

if TYPE_CHECKING:
    from costmodel.analysis import Analysis
    from costmodel.budgets import Baseline, Entry, Verdict

__all__ = ["add", "run"]

#: Conditions that a baseline keeps, where they are not the default.
_DEFAULTS = {"layout": "nchw", "mode": "eager", "host": "usual", "phase": "inference"}


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "check",
        help="a gate: budgets, or no growth over a baseline",
        epilog="exit status: 0 all limits kept, 1 some broken, 2 bad input",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="models (default: all of the baseline)")
    common.add_sizes(parser)
    parser.add_argument("--hw", type=common.words, default=(), metavar="NAME[,NAME...]", help="machines")
    common.add_execution(parser)
    common.add_phase(parser)
    parser.add_argument(
        "--budget", action="append", default=[], metavar="NAME=LIMIT[,...]",
        help="latency=10ms, throughput=2000, flops=, macs=5G, params=30M, activations=, memory=8GiB, kernels=, energy=",
    )  # fmt: skip
    parser.add_argument(
        "--confidence", type=confidence, metavar="P", help="hold the end of intervals to the budget: 95%%"
    )
    parser.add_argument("--baseline", metavar="FILE", help="costs that models are held to")
    parser.add_argument(
        "--max-regression", default="1%", metavar="P[,NAME=P]", help="growth that is let through (default: 1%%)"
    )
    parser.add_argument("--write-baseline", action="store_true", help="write the costs of now to --baseline")
    common.add_output(parser)
    parser.set_defaults(run=run)


def confidence(text: str) -> float:
    """``95%`` or ``0.95`` -> 0.95."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a probability such as 95% or 0.95, not {text!r}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Analyze, hold, report; the exit status says whether all limits are kept."""
    from costmodel.budgets import Baseline, hold, parse_allowance, parse_budget, read_baseline
    from costmodel.budgets.gate import check_asked
    from costmodel.report import check_writable

    budget = parse_budget(",".join(arguments.budget)) if arguments.budget else {}
    allowance = parse_allowance(arguments.max_regression)
    for path in filter(None, (arguments.output, arguments.baseline if arguments.write_baseline else None)):
        check_writable(path)
    baseline = _baseline(arguments, read_baseline, Baseline)
    if arguments.write_baseline:
        return _write_baseline(arguments, baseline)
    check_asked(budget, baseline)
    verdicts = [
        hold(entry, analysis, budget=budget, baseline=baseline, allowance=allowance, confidence=arguments.confidence)
        for entry, analysis in _entries(arguments, baseline)
    ]
    common.clear_progress()
    _report(verdicts, arguments)
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _baseline(arguments: argparse.Namespace, read: Any, empty: Any) -> Baseline | None:
    """The baseline asked for; one that is to be written may not be there yet."""
    from pathlib import Path

    from costmodel.errors import InputError

    if arguments.baseline is None:
        if arguments.write_baseline:
            raise InputError("--write-baseline writes to a file\n  say --baseline costs.json")
        return None
    if arguments.write_baseline and not Path(arguments.baseline).exists():
        found: Baseline = empty(path=arguments.baseline)
    else:
        found = read(arguments.baseline)
    return found


def _write_baseline(arguments: argparse.Namespace, baseline: Baseline | None) -> int:
    from costmodel.report.output import put

    if baseline is None:
        return 2
    entries = [entry for entry, _ in _entries(arguments, baseline)]
    for entry in entries:
        baseline.put(entry)
    common.clear_progress()
    put(baseline.to_json(), arguments.baseline)
    print(
        f"costmodel: {len(entries)} of {len(baseline.entries)} entries written to {arguments.baseline}", file=sys.stderr
    )
    return 0


def _entries(arguments: argparse.Namespace, baseline: Baseline | None) -> Iterator[tuple[Entry, Analysis]]:
    """What is checked: the models of the command line on its machines, else everything in the baseline."""
    from costmodel.budgets import entry_of
    from costmodel.errors import InputError
    from costmodel.hardware import load

    if arguments.models:
        if not arguments.hw:
            raise InputError("--hw names no machine\n  `costmodel hw list` shows them")
        said = _said(arguments)
        machines = [name if name.endswith(".toml") else load(name).name for name in arguments.hw]
        asked = [(model, machine, said) for model in arguments.models for machine in machines]
    elif baseline is not None and not baseline.entries:
        raise InputError(f"{baseline.path} has no entries\n  costmodel check MODEL --hw NAME --write-baseline adds one")
    elif baseline is None:
        raise InputError("no model is named\n  costmodel check MODEL --hw NAME --budget latency=10ms")
    else:
        chosen = {name if name.endswith(".toml") else load(name).name for name in arguments.hw}
        kept = [entry for entry in baseline.entries.values() if not chosen or entry.hw in chosen]
        if not kept:
            raise InputError(f"{baseline.path} has no entry for {', '.join(sorted(chosen))}")
        asked = [(entry.model, entry.hw, dict(entry.conditions)) for entry in kept]
    for model, hw, conditions in asked:
        analysis = _analysis(model, hw, conditions, arguments)
        yield entry_of(model, analysis, conditions, hw), analysis


def _said(arguments: argparse.Namespace) -> dict[str, Any]:
    """Conditions of the command line that are no defaults, as a file keeps them."""
    said = common.conditions(arguments)
    kept = {
        name: value
        for name, value in said.items()
        if value not in (None, False, {}, ()) and value != _DEFAULTS.get(name)
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def _analysis(model: str, hw: str, conditions: dict[str, Any], arguments: argparse.Namespace) -> Analysis:
    from inspect import signature

    from costmodel.api import analyze
    from costmodel.errors import InputError

    if unknown := [name for name in conditions if name not in signature(analyze).parameters]:  # of a baseline
        where = f"the entry of {arguments.baseline} for {model} on {hw}"
        raise InputError(f"{where} was made under {', '.join(unknown)}, which is no condition of a run")
    return analyze(model, hw=hw, **conditions, use_cache=not arguments.no_cache, progress=common.progress(model))


def _report(verdicts: Sequence[Verdict], arguments: argparse.Namespace) -> None:
    from costmodel.budgets.page import held_table, verdicts_document, verdicts_json
    from costmodel.report import Document
    from costmodel.report.page import Page, emit

    page = Page(
        document=lambda: verdicts_document(verdicts),
        data=lambda: verdicts_json(verdicts),
        table=lambda: Document("checks", (held_table(verdicts),)),
    )
    emit(page, arguments.format, arguments.output)
