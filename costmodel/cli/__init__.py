"""The command line: arguments in, a report and an exit status out.

0 done, 1 a budget or ``--strict`` failed, 2 bad input (one message on standard error, no traceback).
Each verb is one module with ``add(verbs)`` and ``run(arguments)``.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from costmodel import __version__
from costmodel.cli.completion import add_completion
from costmodel.cli.parser import Parser, add_examples, first_steps, wide_help
from costmodel.errors import CacheWarning, CostmodelError

__all__ = ["main"]

#: The commands, each a module of this room, in the order of the help.
_VERBS = (
    "analyze", "calibrate", "check", "choose", "compare", "explain", "formula", "hw", "measure", "models", "reconcile",
    "report", "sweep", "validate",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    warnings.showwarning = _show_warning
    warnings.filterwarnings("always", category=CacheWarning)
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except CostmodelError as error:
        from costmodel.report.escape import visible

        print(f"costmodel: {visible(str(error), besides=chr(10))}", file=sys.stderr)  # names of models stand in it
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `costmodel ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("costmodel: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="costmodel",
        description="What a PyTorch model costs and how long it takes on a machine, before anything runs, and why.",
        epilog=first_steps(),
        formatter_class=wide_help,
    )
    parser.add_argument("--version", action="version", version=f"costmodel {__version__}")
    verbs: Any = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in _VERBS:
        import_module(f"costmodel.cli.{verb}").add(verbs)
    add_completion(verbs, parser)
    add_examples(verbs)
    return parser


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Our own warnings are one line for people; those of libraries are none of the user's business."""
    if issubclass(category, CacheWarning):
        print(f"costmodel: warning: {message}", file=sys.stderr)
