"""``costmodel report NAME``: the studies of published networks and claims, written anew."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from costmodel.cli import arguments as common

__all__ = ["add", "run"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("report", help="write the studies of published networks and claims anew")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="all, or some of the reports (default: list what there is)"
    )
    parser.add_argument(
        "-o", "--output", default="reports", metavar="DIR", help="folder to write to (default: reports)"
    )
    parser.add_argument("--no-cache", action="store_true", help="trace anew, and leave the cache of traces alone")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write them, and name every page."""
    from costmodel.studies import names, write_reports

    if not arguments.names:
        print("\n".join(("all", *names())))
        return 0
    wanted = list(names()) if "all" in arguments.names else arguments.names
    progress = _progress if common.watched() else None
    for path in write_reports(wanted, Path(arguments.output), use_cache=not arguments.no_cache, progress=progress):
        if path.suffix == ".md":
            print(f"{_clear()}{path}", flush=True)
    return 0


def _clear() -> str:
    if common.watched():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return ""


def _progress(name: str) -> None:
    print(f"\r\x1b[Ktracing {name}", end="", file=sys.stderr, flush=True)
