"""``costmodel measure MODEL``: timings of this machine, or of a trace, beside the prediction."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.cli import arguments as common
from costmodel.report import STEP_FORMATS

if TYPE_CHECKING:
    from costmodel.analysis import Analysis
    from costmodel.execution import Execution
    from costmodel.graph import OpGraph
    from costmodel.measure.events import Recording
    from costmodel.measure.measurement import Measurement

__all__ = ["add", "run"]


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("measure", help="time a model on this machine, end to end and on the nodes of its graph")
    common.add_model(parser)
    parser.add_argument("--hw", metavar="NAME", help="a machine, or the path of a profile: its predictions beside")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where to run (default: cpu)")
    common.add_execution(parser)
    common.add_phase(parser)
    parser.add_argument("--threads", type=common.positive, metavar="N", help="CPU threads (default: torch's own)")
    parser.add_argument("--cache", choices=("warm", "cold"), default="warm", help="evict caches before each call: cold")
    parser.add_argument("--repeats", type=common.positive, default=20, metavar="N", help="timed calls (default: 20)")
    parser.add_argument("--steps", type=common.positive, default=5, metavar="N", help="profiled calls (default: 5)")
    parser.add_argument("--halve-batch", action="store_true", help="halve the batch until the model fits in memory")
    parser.add_argument("--from-trace", metavar="FILE", help="read torch.profiler's Chrome trace in place of a run")
    parser.add_argument("--keep-trace", metavar="FILE", help="keep the profiler's trace of this run")
    parser.add_argument(
        "--by", choices=("op", "module", "type", "phase"), default="op", help="rows of the table (default: op)"
    )
    parser.add_argument("--top", type=int, metavar="K", help="only the K rows that took longest (default: 20; 0: all)")
    common.add_output(parser, STEP_FORMATS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure or import, place on the graph, report."""
    from costmodel.errors import InputError
    from costmodel.hardware import load
    from costmodel.report import check_writable

    for path in (arguments.output, arguments.keep_trace):
        if path and path != "-":
            check_writable(path)
    if arguments.top is not None and arguments.top < 0:
        raise InputError(f"--top {arguments.top}: a number of rows is asked for, 0 shows all")
    if arguments.from_trace and (arguments.halve_batch or arguments.keep_trace):
        raise InputError("--from-trace reads a recorded run: --halve-batch and --keep-trace say how to make one")
    hardware = load(arguments.hw) if arguments.hw else None
    run = (_imported if arguments.from_trace else _measured)(arguments, hardware)
    if arguments.format == "perfetto":
        _write_timeline(run, arguments)
    else:
        _write(run.measurement, run.graph, run.analysis, arguments)
    return 0


class _Run(NamedTuple):
    """A measurement with what it was placed on and made from."""

    measurement: Measurement
    graph: OpGraph
    analysis: Analysis | None
    recording: Recording


def _execution(arguments: argparse.Namespace) -> Execution:
    from costmodel.execution import Execution

    names = ("dtype", "layout", "mode", "phase", "optimizer", "weight_decay", "grad_scaler", "checkpoint", "trainable")
    words = {name: getattr(arguments, name) for name in names}
    fused = {"fused_optimizer": True} if arguments.fused_optimizer else {}
    common.trained(arguments)
    return Execution.of(batch=arguments.batch or 1, **words, **fused)


def _imported(arguments: argparse.Namespace, hardware: Any) -> _Run:
    from dataclasses import replace

    from costmodel.measure.events import read_trace
    from costmodel.measure.imported import import_trace

    execution = _execution(arguments)
    graph, analysis, sizes = _graph(arguments, execution, hardware)
    recording = read_trace(arguments.from_trace)
    measurement = import_trace(
        arguments.from_trace,
        graph,
        model=_full_name(arguments.model),
        device=hardware.name if hardware else "unnamed",
        execution=replace(execution, sizes=sizes),
        recording=recording,
    )
    return _Run(measurement, graph, analysis, recording)


def _measured(arguments: argparse.Namespace, hardware: Any) -> _Run:
    from pathlib import Path

    from costmodel.measure.run import device_name, fitting, place, time_and_profile

    runnable = fitting(
        arguments.model,
        _execution(arguments),
        halve=arguments.halve_batch,
        threads=arguments.threads,
        device=arguments.device,
        image_size=arguments.image_size,
        input_shape=arguments.input_shape,
        seq_len=arguments.seq_len,
    )
    timed = time_and_profile(
        runnable,
        threads=arguments.threads,
        repeats=arguments.repeats,
        steps=arguments.steps,
        cache=arguments.cache,
        keep=Path(arguments.keep_trace) if arguments.keep_trace else None,
        progress=lambda what: _show(f"{what} {arguments.model}"),
    )
    common.clear_progress()
    graph, analysis, _ = _graph(arguments, runnable.execution, hardware)
    name = hardware.name if hardware else device_name(arguments.device)
    measurement = place(timed, graph, model=_full_name(arguments.model), device=name)
    return _Run(measurement, graph, analysis, timed.recording)


def _full_name(model: str) -> str:
    from costmodel.sources import full_name

    return full_name(model)


def _graph(
    arguments: argparse.Namespace, execution: Execution, hardware: Any
) -> tuple[OpGraph, Analysis | None, dict[str, int]]:
    """The graph in numbers at the sizes of the run, and its analysis where a machine is named."""
    from costmodel.api import input_sizes as sizes_of
    from costmodel.execution import Variant
    from costmodel.traced import load_trace

    sizes = sizes_of(arguments.image_size, arguments.seq_len)
    traced = load_trace(
        arguments.model,
        batch=execution.batch,
        sizes=sizes,
        input_shape=arguments.input_shape,
        variant=Variant.of(execution, _device_kind(arguments, execution, hardware)),
        use_cache=not arguments.no_cache,
        checked=True,
        progress=common.progress(arguments.model),
    )
    common.clear_progress()
    return _bound(traced, execution, sizes, hardware, arguments.device)


def _device_kind(arguments: argparse.Namespace, execution: Execution, hardware: Any) -> str:
    """The kind of device whose operators a step of training shows; a forward pass has the same ones everywhere."""
    if execution.phase.value != "training":
        return "cpu"
    kind: str = hardware.family.torch_device if hardware else arguments.device.partition(":")[0]
    return kind


def _bound(
    traced: Any, execution: Execution, sizes: dict[str, int], hardware: Any, device: str
) -> tuple[OpGraph, Analysis | None, dict[str, int]]:
    from dataclasses import replace

    from costmodel.analysis import Analysis
    from costmodel.devices.family import CPU, CUDA
    from costmodel.optimizer import with_optimizer

    symbols = traced.graph.symbols
    opened = {name: value for name, value in sizes.items() if name in symbols}
    if hardware is None:
        batch = {"batch": execution.batch} if "batch" in symbols else {}
        graph = with_optimizer(traced.graph, execution, CPU if device == "cpu" else CUDA)
        return graph.bind({**batch, **opened}), None, sizes
    analysis = Analysis(
        name=traced.name,
        source=traced.source,
        record=traced.graph,
        hardware=hardware,
        execution=replace(execution, sizes=opened),
    )
    return analysis.bound, analysis, sizes


def _write(measurement: Measurement, graph: OpGraph, analysis: Analysis | None, arguments: argparse.Namespace) -> None:
    from costmodel.report.measured import measured_csv, measured_document, work_of_graph, works_of
    from costmodel.report.page import Page, emit

    top = 20 if arguments.top is None and arguments.format == "table" else arguments.top
    page = Page(
        document=lambda: measured_document(
            measurement,
            works_of(analysis) if analysis else work_of_graph(graph),
            hardware=analysis.hardware if analysis else None,
            predicted_s=analysis.latency if analysis else None,
            predicted_peak_bytes=analysis.memory.peak_bytes if analysis else None,
            by=arguments.by,
            top=top,
        ),
        data=lambda: measurement.json([row.latency_s * 1e6 for row in analysis.rows()] if analysis else None),
        table=lambda: measured_csv(measurement),
    )
    emit(page, arguments.format, arguments.output)


def _write_timeline(run: _Run, arguments: argparse.Namespace) -> None:
    """The measured step, below the predicted one where a machine is named."""
    from costmodel.report.output import put
    from costmodel.report.perfetto import recorded_trace, trace_text

    measured_us = {node.name: node.measured_us for node in run.measurement.nodes}
    title = f"{run.measurement.model} measured on {run.measurement.device}"
    text = trace_text(recorded_trace(run.recording, title, run.analysis, measured_us))
    put(text, None if arguments.output in (None, "-") else arguments.output)


def _show(what: str) -> None:
    if common.watched():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
