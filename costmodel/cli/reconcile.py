"""``costmodel reconcile MODEL``: what other FLOP counters print for a model, and why it is another number."""

from __future__ import annotations

import argparse

from costmodel.cli import arguments as common

__all__ = ["add", "run"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "reconcile", help="what fvcore, thop, ptflops, torchinfo, calflops, ... print for a model, and why"
    )
    common.add_model(parser)
    common.add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Count one sample, go through the rules of each tool, report."""
    from costmodel.api import ALL_SYMBOLS, input_sizes
    from costmodel.costing import cost_graph
    from costmodel.errors import InputError
    from costmodel.reconcile import reconcile
    from costmodel.report import Document, check_writable
    from costmodel.report.page import Page, emit
    from costmodel.report.reconciled import reconciled_document, reconciled_json, reconciled_table
    from costmodel.traced import load_trace

    if arguments.model.endswith(".onnx"):
        raise InputError(
            "counters of FLOPs hook modules of PyTorch, and an ONNX file has none\n"
            "  give the model that it was exported from; `costmodel analyze` counts the file itself"
        )
    if arguments.output:
        check_writable(arguments.output)
    sizes = input_sizes(arguments.image_size, arguments.seq_len)
    traced = load_trace(
        arguments.model,
        symbols=ALL_SYMBOLS,
        batch=1,
        sizes=sizes,
        input_shape=arguments.input_shape,
        assume=common.answers(arguments),
        use_cache=not arguments.no_cache,
        checked=True,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    symbols = traced.graph.symbols
    graph = traced.graph.bind({name: size for name, size in {**sizes, "batch": 1}.items() if name in symbols})
    costs = cost_graph(graph)
    accounts = reconcile(graph, costs)
    macs, flops = int(costs.total.macs), int(costs.total.flops)  # type: ignore[arg-type]
    inputs = ", ".join("×".join(map(str, graph.specs[graph.tensors[i].spec].shape)) for i in graph.inputs)
    page = Page(
        document=lambda: reconciled_document(traced.name, inputs, macs, flops, accounts),
        data=lambda: reconciled_json(traced.name, macs, flops, accounts),
        table=lambda: Document("reconcile", (reconciled_table(accounts),)),
    )
    emit(page, arguments.format, arguments.output)
    return 0
