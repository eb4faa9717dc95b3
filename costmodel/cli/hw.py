"""``costmodel hw list | show NAME | check FILE``: the machines, and the hosts that issue their work."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.cli import arguments as common

if TYPE_CHECKING:
    from costmodel.report.document import Table

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb and its three actions."""
    parser = verbs.add_parser("hw", help="the machines that have a profile, and their hosts")
    actions = parser.add_subparsers(title="actions", metavar="list | show NAME | check FILE", required=True)
    listing = actions.add_parser("list", help="all profiles with their headline figures")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="every figure of a profile, with its source")
    show.add_argument("name", metavar="NAME", help="a machine or a host, or its file")
    show.set_defaults(run=_show)
    check = actions.add_parser("check", help="multiply a profile's numbers and hold them against its headlines")
    check.add_argument("names", metavar="FILE", nargs="+", help="a profile's file or name")
    check.set_defaults(run=_check)
    for action in (listing, show):
        common.add_output(action)


def _list(arguments: argparse.Namespace) -> int:
    from costmodel.hardware import catalogue
    from costmodel.report import Document, write
    from costmodel.report.columns import quantity_column, text_column
    from costmodel.report.document import Table

    rows = [{**row._asdict(), "aliases": ", ".join(row.aliases), "path": str(row.path)} for row in catalogue()]
    rates = [
        quantity_column(f"{key}_flop_per_s", heading, "FLOP/s", [row[key] for row in rows])
        for key, heading in (("fp32", "fp32"), ("tf32", "tf32"), ("fp16", "fp16"), ("bf16", "bf16"))
    ]
    columns = (
        text_column("name", "machine", importance=100),
        text_column("aliases", "also", importance=30),
        *rates,
        quantity_column("dram_bytes_per_s", "memory", "B/s", [row["dram_bytes_per_s"] for row in rows]),
        quantity_column("dram_bytes", "size", "B", [row["dram_bytes"] for row in rows]),
        quantity_column("l2_bytes", "L2", "B", [row["l2_bytes"] for row in rows], importance=20),
    )
    keyed = [{**row, **{f"{key}_flop_per_s": row[key] for key in ("fp32", "tf32", "fp16", "bf16")}} for row in rows]
    table = Table(
        columns=columns, rows=tuple(keyed), title="Dense peaks: fp32 on vector lanes, the others on matrix engines"
    )
    tables = (table,) if arguments.format == "csv" else (table, _hosts())  # CSV holds one table
    write(Document("Hardware profiles", tables), arguments.format, arguments.output)
    return 0


def _hosts() -> Table:
    """The hosts, the quickest first, with the machines that are usually met with each."""
    from costmodel.hardware import load, names
    from costmodel.host import hosts
    from costmodel.report.columns import number_column, quantity_column, text_column
    from costmodel.report.document import Table

    usual = [load(name).usual_host for name in names()]
    ordered = sorted(hosts(), key=lambda host: host.slowdown)
    rows = [
        {
            "host": host.name,
            "cpu": host.cpu,
            "slowdown": host.slowdown,
            "spread": host.spread,
            "copy_bytes_per_s": host.pageable_copy_bytes_per_s,
            "machines": usual.count(host.name),
        }
        for host in ordered
    ]
    columns = (
        text_column("host", "host", importance=100),
        text_column("cpu", "CPU", importance=40),
        number_column("slowdown", "slowdown", decimals=2),
        number_column("spread", "spread", decimals=2),
        quantity_column("copy_bytes_per_s", "pageable copy", "B/s", [h.pageable_copy_bytes_per_s for h in ordered]),
        number_column("machines", "usual for", decimals=0),
    )
    return Table(columns=columns, rows=tuple(rows), title="Hosts (--host): host time over the reference core's")


def _show(arguments: argparse.Namespace) -> int:
    from costmodel.hardware import describe, load
    from costmodel.host import host_file
    from costmodel.report import Document, write
    from costmodel.report.columns import text_column
    from costmodel.report.document import Table

    if (path := host_file(arguments.name)) is not None:
        return _show_host(path, arguments)
    profile = load(arguments.name)
    columns = (
        text_column("section", "section", importance=90),
        text_column("key", "figure", importance=95),
        text_column("value", "value", importance=100, shortest=24),
        text_column("source", "source", importance=40, shortest=16),
    )
    table = Table(columns=columns, rows=tuple(fact._asdict() for fact in describe(profile)))
    write(Document(f"{profile.name}: {profile.title}", (table,)), arguments.format, arguments.output)
    return 0


def _show_host(path: Path, arguments: argparse.Namespace) -> int:
    from costmodel.host import host_facts
    from costmodel.report import Document, write
    from costmodel.report.columns import text_column
    from costmodel.report.document import Table

    keys = ("figure", "value", "source")
    columns = tuple(text_column(key, key, importance=100 - 20 * i, shortest=16) for i, key in enumerate(keys))
    rows = tuple(dict(zip(keys, fact, strict=True)) for fact in host_facts(path))
    write(Document(f"{path.stem}: a host", (Table(columns=columns, rows=rows),)), arguments.format, arguments.output)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from costmodel.hardware import check, find
    from costmodel.host import host_file

    failed = 0
    for name in arguments.names:
        if (host := host_file(name)) is not None:
            failed += not _is_sound_host(host)
            continue
        path = Path(name) if Path(name).suffix == ".toml" else find(name)
        problems = check(path)
        errors = sum(problem.severity == "error" for problem in problems)
        failed += bool(errors)
        print(f"{path.name}: {f'{errors} errors' if errors else 'ok'}")
        for problem in problems:
            print("  " + str(problem).replace("\n", "\n  "))
    return 2 if failed else 0


def _is_sound_host(path: Path) -> bool:
    """Say whether a host's file can be used, and why not."""
    from costmodel.errors import ProfileError
    from costmodel.host import read_host

    try:
        read_host(path)
    except ProfileError as error:
        print(f"{path.name}: cannot be used")
        print("  " + str(error).replace("\n", "\n  "))
        return False
    print(f"{path.name}: ok")
    return True
