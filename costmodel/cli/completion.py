"""``costmodel completion SHELL``: what a shell needs to complete commands, options and their words."""

from __future__ import annotations

import argparse

__all__ = ["add_completion"]

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(verbs: argparse._SubParsersAction[argparse.ArgumentParser], whole: argparse.ArgumentParser) -> None:
    """Declare the verb, for the ``whole`` parser."""
    parser = verbs.add_parser("completion", help="a script that lets your shell complete commands and options")
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"{', '.join(SHELLS)}")

    def run(arguments: argparse.Namespace) -> int:
        import shtab

        print(shtab.complete(whole, shell=arguments.shell))
        return 0

    parser.set_defaults(run=run)
