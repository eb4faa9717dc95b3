"""``costmodel validate FILE...``: predictions held against measured timings."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from costmodel.cli import arguments as common

if TYPE_CHECKING:
    from costmodel.hardware import HardwareProfile
    from costmodel.report.document import Table
    from costmodel.validate import Validation

__all__ = ["add", "run"]

_SAID = ("device", "dtype", "layout", "mode", "phase", "torch")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("validate", help="hold predictions against measured timings")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="measured timings, .csv or .csv.gz: columns model, device, dtype, batch, latency_ms or memory_mb, and "
        "what else holds (layout, mode, phase, torch, image_size); timm's benchmark files as they are",
    )
    parser.add_argument(
        "--hw", action="append", default=[], metavar="[DEVICE=]FILE",
        help="profile for rows of DEVICE, or of all devices that have no profile; may be repeated",
    )  # fmt: skip
    for name in _SAID:
        parser.add_argument(f"--{name}", default="", metavar="WORD", help=f"{name} of rows that do not say it")
    parser.add_argument(
        "--set", action="append", default=[], type=_condition, metavar="NAME=VALUE",
        help="a further condition of the runs, such as fast_norm=no; may be repeated, a row's own column wins",
    )  # fmt: skip
    parser.add_argument(
        "--host", action="append", default=[], metavar="[DEVICE=]NAME",
        help="the host of rows of DEVICE, or of all others, or its file (default: each machine's usual one)",
    )  # fmt: skip
    parser.add_argument(
        "--fit-host", action="store_true", help="find one host for each device from its eager rows, and say which"
    )
    parser.add_argument(
        "--limit", type=common.positive, metavar="N", help="judge a random sample of N rows, from every group"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sample (default: 0)")
    parser.add_argument(
        "--jobs",
        type=common.positive,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="processes (default: one a core, at most 4)",
    )
    parser.add_argument("--worst", type=int, default=15, metavar="K", help="list the K rows furthest off (default: 15)")
    parser.add_argument(
        "--max-median",
        type=_percent,
        metavar="PERCENT",
        help="exit with status 1 if the median |error| of a group is above",
    )
    parser.add_argument(
        "--max-p90", type=_percent, metavar="PERCENT", help="exit with status 1 if the 90th percentile is above"
    )
    common.add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, predict, report; the exit status says whether the budgets held."""
    from costmodel.report import check_writable
    from costmodel.traced import load_trace
    from costmodel.validate import (
        Flags,
        check_names,
        fail_budget,
        grouped,
        memory_groups,
        read_measured,
        validate,
    )

    if arguments.output:
        check_writable(arguments.output)
    machines = _machines(arguments.hw)
    conditions = dict(arguments.set)
    check_names(conditions)
    flags = Flags(**{name: getattr(arguments, name) for name in _SAID}, conditions=conditions)
    measured = read_measured(arguments.files, flags, device=machines[""].name if "" in machines else "")
    result = validate(
        measured,
        trace=load_trace,
        hardware=machines,
        limit=arguments.limit,
        seed=arguments.seed,
        jobs=arguments.jobs,
        hosts=_hosts(arguments.host, machines),
        fit_host=arguments.fit_host,
        progress=_progress(),
    )
    common.clear_progress()
    _write(result, arguments)
    budget = (arguments.max_median, arguments.max_p90)
    failed = fail_budget(grouped(result.judged), *budget) + fail_budget(memory_groups(result.memory), *budget)
    for sentence in failed:
        print(f"costmodel: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _write(result: Validation, arguments: argparse.Namespace) -> None:
    """The report; JSON has keys of its own, CSV the rows."""
    from costmodel.report import Document
    from costmodel.report.accuracy import accuracy_document, accuracy_json
    from costmodel.report.page import Page, emit

    page = Page(
        document=lambda: accuracy_document(result, worst=arguments.worst),
        data=lambda: accuracy_json(result),
        table=lambda: Document("rows", tuple(_tables(result))),
    )
    emit(page, arguments.format, arguments.output)


def _tables(result: Validation) -> Iterator[Table]:
    """The rows: those of time, those of memory, or both."""
    from costmodel.report.accuracy import rows_table
    from costmodel.report.accuracy_memory import memory_rows_table

    if result.judged or not result.memory:
        yield rows_table(result.judged)
    if result.memory:
        yield memory_rows_table(result.memory)


def _machines(texts: list[str]) -> dict[str, HardwareProfile]:
    """``DEVICE=FILE`` by device; a FILE alone under ""."""
    from costmodel.hardware import load

    pairs = [text.rpartition("=") for text in texts]
    return {device: load(file) for device, _, file in pairs}


def _hosts(texts: list[str], machines: dict[str, HardwareProfile]) -> dict[str, str]:
    """``DEVICE=NAME`` by the device's proper name; a NAME alone under "". Raises InputError for an unknown host."""
    from costmodel.hardware import load
    from costmodel.host import host_of

    found = {}
    for text in texts:
        device, _, name = text.rpartition("=")
        machine = machines.get(device) or (load(device) if device else load("a100"))
        host_of(name, machine)
        found[machine.name if device else ""] = name
    return found


def _percent(text: str) -> float:
    """``3.5`` or ``3.5%`` -> 0.035."""
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of percent such as 3.5, not {text!r}")
    return value


def _condition(text: str) -> tuple[str, str]:
    """``fast_norm=no`` -> ("fast_norm", "no")."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE such as fast_norm=no, not {text!r}")
    return name, value


def _progress() -> Callable[[int, int], None] | None:
    """A bar on a terminal's standard error; none where nobody watches."""
    if not common.watched():
        return None
    started = time.monotonic()

    def show(done: int, count: int) -> None:
        filled, seconds = round(30 * done / count), time.monotonic() - started
        left = seconds / done * (count - done) if done else 0.0
        bar = "#" * filled + "." * (30 - filled)
        print(
            f"\r\x1b[K{bar} {done}/{count} rows, {seconds:.0f} s, {left:.0f} s left",
            end="",
            file=sys.stderr,
            flush=True,
        )

    return show
