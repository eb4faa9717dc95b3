"""analyze(): the whole trip on one page: a name or a module in, an Analysis out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from costmodel import cache
from costmodel.analysis import Analysis
from costmodel.cache import CachedTrace
from costmodel.comparison import Comparison
from costmodel.costing import closed_forms, cost_graph
from costmodel.engines import engine_of
from costmodel.errors import InputError, TraceError
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile, load

if TYPE_CHECKING:
    from torch import nn

    from costmodel.sources.loaded import LoadedModel

__all__ = ["ALL_SYMBOLS", "analyze", "compare", "input_sizes", "load_trace"]

#: Everything that may be left open.
ALL_SYMBOLS = ("batch", "frames", "height", "width", "seq_len", "decoder_seq_len")

Progress = Callable[[int], None]


def analyze(
    model: str | nn.Module,
    inputs: Any = None,
    *,
    hw: str | HardwareProfile,
    batch: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    input_shape: Sequence[int] | None = None,
    seq_len: int | None = None,
    dtype: str = "fp32",
    layout: str = "nchw",
    mode: str = "eager",
    symbols: Sequence[str] = ("batch",),
    use_cache: bool | Literal["only"] = True,
    progress: Progress | None = None,
) -> Analysis:
    """Analyze a model on a machine, before anything runs.

    ``model`` is a name (``resnet50``, ``timm:NAME``, ``hf:bert``, ``path/to/file.py:factory``, ``model.pt2``, ...)
    or a module with its ``inputs`` (a tensor, a tuple, a dict of keyword arguments, or (args, kwargs)).
    ``batch`` defaults to that of the given inputs, else 1; sizes default to the model's own.
    ``symbols`` are the sizes to leave open; a named model's trace is cached (``use_cache="only"``: or refused).
    Raises a :class:`~costmodel.errors.CostmodelError` that says what was asked, what there is and what to do.

    >>> analyze("resnet50", hw="a100").totals.macs                                  # doctest: +SKIP
    4089184256
    """
    hardware = load(hw) if isinstance(hw, str) else hw
    execution = Execution.of(batch=1 if batch is None else batch, dtype=dtype, layout=layout, mode=mode)
    engine_of(mode)  # an unknown word is told before a long trace
    sizes = input_sizes(image_size, seq_len)
    if not isinstance(model, str):
        traced, own_batch = _trace_module(model, inputs, input_shape, symbols, batch, sizes, layout, progress)
        return _analysis(traced, hardware, execution.changed(batch=own_batch), sizes)
    if inputs is not None:
        raise InputError("a named model brings its own inputs\n  use batch, image_size, input_shape or seq_len")
    load_in = partial(
        load_trace,
        model,
        symbols=symbols,
        batch=execution.batch,
        sizes=sizes,
        input_shape=input_shape,
        use_cache=use_cache,
        progress=progress,
    )
    return _analysis(load_in(layout=layout), hardware, execution, sizes, load_in)


def compare(
    models: Sequence[str | nn.Module],
    inputs: Any = None,
    *,
    hw: str | HardwareProfile | Sequence[str | HardwareProfile],
    **conditions: Any,
) -> Comparison:
    """Hold several models against the first, on one or several machines, under the conditions of :func:`analyze`.

    Modules all take the same ``inputs``. Raises InputError for fewer than two models, and what :func:`analyze` raises.

    >>> compare(["resnet50", "mobilenet_v2"], hw=["a100", "t4"]).fastest                # doctest: +SKIP
    {'a100-sxm-80gb': 'mobilenet_v2', 't4': 'mobilenet_v2'}
    """
    machines = [hw] if isinstance(hw, (str, HardwareProfile)) else list(hw)
    if not machines:
        raise InputError("no machine is named\n  `costmodel hw list` shows them")
    found = []
    for model in models:
        first = analyze(model, None if isinstance(model, str) else inputs, hw=machines[0], **conditions)
        found.append([first, *(first.at(hw=machine) for machine in machines[1:])])
    return Comparison(found)


def input_sizes(image_size: int | tuple[int, int] | None, seq_len: int | None) -> dict[str, int]:
    sizes = {}
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        sizes = {"height": height, "width": width}
    if seq_len is not None:
        sizes["seq_len"] = seq_len
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    return sizes


def _analysis(
    traced: CachedTrace,
    hardware: HardwareProfile,
    execution: Execution,
    sizes: Mapping[str, int],
    load_in: Callable[..., CachedTrace] | None = None,
) -> Analysis:
    """The analysis of a trace; ``load_in(layout=...)`` gives the same model's trace in another layout."""

    def retrace(layout: str) -> tuple[OpGraph, Mapping[str, str] | None]:
        other = load_in(layout=layout) if load_in is not None else traced
        return other.graph, other.closed_forms or None

    open_sizes = {name: value for name, value in sizes.items() if name in traced.graph.symbols}
    return Analysis(
        name=traced.name,
        source=traced.source,
        record=traced.graph,
        hardware=hardware,
        execution=execution.changed(sizes=open_sizes),
        closed_forms=traced.closed_forms or None,
        retrace=None if load_in is None else retrace,
    )


def load_trace(
    request: str,
    *,
    symbols: Sequence[str] = ("batch",),
    batch: int = 1,
    sizes: Mapping[str, int] | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str = "nchw",
    use_cache: bool | Literal["only"] = True,
    progress: Progress | None = None,
) -> CachedTrace:
    """The traced graph of a named model, from the cache where it serves, else traced and stored.

    An entry that leaves height and width open serves every image size; torch is then never imported.
    ``use_cache="only"`` never traces and raises TraceError where no entry serves.
    """
    sizes = dict(sizes or {})
    options: dict[str, Any] = {"symbols": sorted(symbols), "layout": layout}
    specific: dict[str, Any] = {**options, "sizes": sizes, "input_shape": input_shape and list(input_shape)}
    if use_cache:
        for parts in (options, specific, {**specific, "batch": batch}):
            entry = cache.read(cache.key(request, parts))
            if entry is not None and _serves(entry.graph, batch, sizes, input_shape if parts is options else None):
                return entry
    if use_cache == "only":
        raise TraceError(f"the cache has no trace of {request} in {layout}")
    entry, files = _trace_request(request, symbols, batch, sizes, input_shape, layout, progress)
    if use_cache:
        parts = options if not sizes and not input_shape else specific
        if "batch" not in entry.graph.symbols:
            parts = {**specific, "batch": batch}
        cache.write(cache.key(request, parts), entry, files)
    return entry


def _serves(graph: OpGraph, batch: int, sizes: Mapping[str, int], input_shape: Sequence[int] | None) -> bool:
    """Whether a cached graph can be evaluated at these sizes."""
    if input_shape is not None:
        return False
    traced_batch = {graph.specs[graph.tensors[i].spec].shape[:1] for i in graph.inputs}
    if "batch" not in graph.symbols and traced_batch != {(batch,)}:
        return False
    fitting = (name in graph.symbols and value % graph.symbols[name].multiple_of == 0 for name, value in sizes.items())
    return all(fitting) or _is_traced_at(graph, sizes)


def _is_traced_at(graph: OpGraph, sizes: Mapping[str, int]) -> bool:
    """Whether the graph's inputs already have these sizes as numbers (a fixed-size model at its own size)."""
    shapes = [graph.specs[graph.tensors[i].spec].shape for i in graph.inputs]
    spatial = (sizes.get("height"), sizes.get("width"))
    return set(sizes) == {"height", "width"} and all(
        tuple(shape[-2:]) == spatial for shape in shapes if len(shape) == 4
    )


def _trace_request(
    request: str,
    symbols: Sequence[str],
    batch: int,
    sizes: Mapping[str, int],
    input_shape: Sequence[int] | None,
    layout: str,
    progress: Progress | None,
) -> tuple[CachedTrace, dict[str, str]]:
    from costmodel.sources import resolve

    image = (sizes["height"], sizes["width"]) if "height" in sizes else None
    loaded = resolve(
        request, image_size=image, seq_len=sizes.get("seq_len"), input_shape=tuple(input_shape) if input_shape else None
    )
    traced = _traced(loaded, symbols, {"batch": batch}, layout, progress)
    path = request.rpartition(":")[0] if ".py:" in request else request.removeprefix("hf:")
    return traced, cache.imported_files(path, Path(path) / "config.json")


def _traced(
    loaded: LoadedModel, symbols: Sequence[str], sizes: Mapping[str, int], layout: str, progress: Progress | None
) -> CachedTrace:
    from costmodel.trace import trace

    graph = trace(loaded, symbols=symbols, sizes=sizes, layout=layout, progress=progress)
    forms = closed_forms(cost_graph(graph.symbolic())) if set(symbols) - {"batch"} else {}
    return CachedTrace(loaded.name, loaded.source, graph, forms)


def _trace_module(
    module: nn.Module,
    inputs: Any,
    input_shape: Sequence[int] | None,
    symbols: Sequence[str],
    batch: int | None,
    sizes: Mapping[str, int],
    layout: str,
    progress: Progress | None,
) -> tuple[CachedTrace, int]:
    """Trace a user's module, which stays as it was; the batch is that of its inputs unless given."""
    from costmodel.sources import from_module

    loaded = from_module(module, inputs, input_shape=tuple(input_shape) if input_shape else None)
    own = batch if batch is not None else loaded.sizes.get("batch", 1)
    named = {name: value for name, value in sizes.items() if name in loaded.sizes}
    loaded.sizes = {**loaded.sizes, **named}
    return _traced(loaded, symbols, {"batch": own}, layout, progress), own
