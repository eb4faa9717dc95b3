"""``costmodel formula MODEL``: closed forms of a network or of a layer, as text, LaTeX or Python."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from costmodel.cli import arguments as common
from costmodel.cli import formula_layer
from costmodel.cli.analyze import _symbols

if TYPE_CHECKING:
    from costmodel.graph import OpGraph

__all__ = ["add", "run"]

QUANTITIES = ("flops", "macs", "bytes_read", "bytes_written", "activations", "params")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("formula", help="closed forms of a network, or of a layer in its own symbols")
    common.add_model(parser)
    parser.add_argument(
        "--symbols", type=common.words, metavar="NAMES", help="sizes to leave open (default: all that can be)"
    )
    parser.add_argument(
        "--of", type=common.words, metavar="NAMES", help=f"any of {', '.join(QUANTITIES)} (a layer has more)"
    )
    parser.add_argument(
        "--by", choices=("op",), help="a line for each operator: MACs, output, receptive field and effective stride"
    )
    parser.add_argument(
        "--syntax", choices=("text", "latex", "python"), default="text", help="how to write them (default: text)"
    )
    parser.add_argument(
        "--phase", choices=("inference", "training"), default="inference",
        help="training: of a step's forward and backward pass; its optimizer depends on no size (default: inference)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", metavar="FILE", help="write them to FILE")
    formula_layer.add(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print ``quantity = expression``, one a line, and what stays a number."""
    from costmodel.report import check_writable
    from costmodel.report.escape import visible
    from costmodel.report.output import put

    if arguments.output:
        check_writable(arguments.output)
    if formula_layer.is_layer(arguments.model):
        lines = formula_layer.lines(arguments, lambda expression: _written(str(expression), arguments.syntax))
    else:
        lines = iter(_model_lines(arguments))
    put("".join(f"{visible(line)}\n" for line in lines), arguments.output)
    return 0


def _model_lines(arguments: argparse.Namespace) -> list[str]:
    """Closed forms of a network's totals, or of its operators."""
    from costmodel.api import ALL_SYMBOLS
    from costmodel.api import input_sizes as sizes_of
    from costmodel.costing import closed_forms, cost_graph
    from costmodel.execution import Phase, Variant
    from costmodel.traced import load_trace

    trains = arguments.phase == Phase.TRAINING.value
    _refuse_what_only_layers_have(arguments)
    traced = load_trace(
        arguments.model,
        symbols=("batch",) if arguments.hw else _symbols(arguments.symbols, ALL_SYMBOLS),
        sizes=sizes_of(arguments.image_size, arguments.seq_len),
        input_shape=arguments.input_shape,
        variant=Variant(train_mode=True, phase=Phase.TRAINING) if trains else Variant(),
        assume=common.answers(arguments),
        use_cache=not arguments.no_cache,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    comments = [f"# {note}" for note in (traced.graph.general or traced.graph).notes if " stays " in note]
    comments += [f"# assumed: {answer}" for answer in traced.graph.assumed]
    if arguments.by:
        return [*comments, *_operator_lines(traced.graph, arguments)]
    known = traced.closed_forms or closed_forms(cost_graph(traced.graph.symbolic()))  # kept for several symbols only
    forms = {**known, "params": str(traced.graph.param_count)}
    return [*comments, *(f"{n} = {_written(forms[n], arguments.syntax)}" for n in arguments.of or QUANTITIES)]


def _refuse_what_only_layers_have(arguments: argparse.Namespace) -> None:
    """Raise InputError for quantities and options that mean nothing for a network."""
    from costmodel.errors import InputError, librarian, near_matches

    for name in arguments.of or ():
        if name not in QUANTITIES:
            near = near_matches(name, QUANTITIES)
            raise InputError(librarian(f"there is no closed form of {name!r}", there_is=QUANTITIES, near=near))
    if arguments.sizes or arguments.over or arguments.solve:
        do = "costmodel formula layers lists the layers"
        raise InputError(librarian(f"--set, --over and --solve are for layers, not for {arguments.model}", do=do))
    if arguments.hw and not arguments.by:
        do = f"costmodel formula {arguments.model} --by op --hw {','.join(arguments.hw)}"
        raise InputError(librarian("each operator of a network crosses a ridge point by itself", do=do))


def _operator_lines(graph: OpGraph, arguments: argparse.Namespace) -> Iterator[str]:
    """``operator: output; receptive field; MACs; ridge point`` of all operators that are no views."""
    from costmodel.costing import cost_graph
    from costmodel.formulas import is_free
    from costmodel.receptive_field import receptive_fields

    symbolic, fields = graph.symbolic(), receptive_fields(graph.bind({}))
    costs, syntax = cost_graph(symbolic), arguments.syntax
    crossings = formula_layer.node_crossings(costs, arguments)
    for index, node in enumerate(symbolic.nodes):
        if is_free(node.op):
            continue
        sizes = symbolic.specs[symbolic.tensors[node.outputs[0]].spec].shape if node.outputs else ()
        shape = ", ".join(_written(str(size), syntax) for size in sizes)
        sees = fields[index]
        field = "" if sees is None else f"; sees {'x'.join(str(f.size) for f in sees)}, every {sees[0].jump}"
        macs = costs.of_node(index).macs
        work = f"; macs = {_written(str(macs), syntax)}" if macs != 0 else ""
        yield f"{node.name} ({node.op.removeprefix('aten.')}): [{shape}]{field}{work}{crossings(node.call)}"


def _written(form: str, syntax: str) -> str:
    if syntax == "text":
        return form
    import sympy

    from costmodel.symbols import symbol, to_code

    names = {
        name: symbol(name) for name in set(re.findall(r"[A-Za-z_]\w*", form)) - {"ceiling", "floor", "sqrt", "Max"}
    }
    expression = sympy.sympify(form, locals=names)
    return sympy.latex(expression) if syntax == "latex" else str(to_code(expression))
