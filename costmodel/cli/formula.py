"""``costmodel formula MODEL``: closed forms of a network's totals, as text, LaTeX or Python."""

from __future__ import annotations

import argparse

from costmodel.cli import arguments as common
from costmodel.cli.analyze import _symbols

__all__ = ["add", "run"]

QUANTITIES = ("flops", "macs", "bytes_read", "bytes_written", "activations", "params")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("formula", help="closed forms in batch, height, width, sequence length")
    common.add_model(parser)
    parser.add_argument(
        "--symbols", type=common.words, metavar="NAMES", help="sizes to leave open (default: all that can be)"
    )
    parser.add_argument(
        "--of", type=common.words, default=QUANTITIES, metavar="NAMES", help=f"any of {', '.join(QUANTITIES)}"
    )
    parser.add_argument(
        "--syntax", choices=("text", "latex", "python"), default="text", help="how to write them (default: text)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write them to FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print ``quantity = expression``, one a line, and what stays a number."""
    from costmodel.api import ALL_SYMBOLS, load_trace
    from costmodel.api import input_sizes as sizes_of
    from costmodel.errors import InputError, librarian, near_matches
    from costmodel.report import check_writable
    from costmodel.report.output import put

    for name in arguments.of:
        if name not in QUANTITIES:
            near = near_matches(name, QUANTITIES)
            raise InputError(librarian(f"there is no closed form of {name!r}", there_is=QUANTITIES, near=near))
    if arguments.output:
        check_writable(arguments.output)
    traced = load_trace(
        arguments.model,
        symbols=_symbols(arguments.symbols, ALL_SYMBOLS),
        sizes=sizes_of(arguments.image_size, arguments.seq_len),
        input_shape=arguments.input_shape,
        use_cache=not arguments.no_cache,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    forms = {**traced.closed_forms, "params": str(traced.graph.param_count)}
    lines = [f"{name} = {_written(forms[name], arguments.syntax)}" for name in arguments.of]
    comments = [f"# {note}" for note in traced.graph.notes if " stays " in note]
    put("\n".join([*comments, *lines]) + "\n", arguments.output)
    return 0


def _written(form: str, syntax: str) -> str:
    if syntax == "text":
        return form
    import sympy

    from costmodel.symbols import symbol, to_code

    names = {name: symbol(name) for name in ("batch", "frames", "height", "width", "seq_len", "decoder_seq_len")}
    expression = sympy.sympify(form, locals=names)
    return sympy.latex(expression) if syntax == "latex" else str(to_code(expression))
