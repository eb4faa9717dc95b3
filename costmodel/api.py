"""analyze(): the whole trip on one page: a name or a module in, an Analysis out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from costmodel import cache
from costmodel.cache import CachedTrace
from costmodel.comparison import Comparison
from costmodel.costing import closed_forms, cost_graph
from costmodel.domain import Domain
from costmodel.engines import engine_of
from costmodel.errors import InputError, TraceError
from costmodel.executed import ExecutedTraces
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile, load
from costmodel.host import host_of
from costmodel.presented import Analysis
from costmodel.symbols import checked_size

if TYPE_CHECKING:
    from torch import nn

    from costmodel.sources.loaded import LoadedModel

__all__ = ["ALL_SYMBOLS", "analyze", "compare", "input_sizes", "load_trace"]

#: Everything that may be left open.
ALL_SYMBOLS = ("batch", "frames", "height", "width", "seq_len", "decoder_seq_len")

Progress = Callable[[int], None]

#: (batch, sizes, layout, kind of device, in train mode) -> a trace that holds there; batch None is the model's own.
Traces = Callable[[int | None, Mapping[str, int], str, str, bool], CachedTrace]


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
    host: str = "usual",
    inputs_on: str = "device",
    train_mode: bool = False,
    power_limit: float | str | None = None,
    symbols: Sequence[str] = ("batch",),
    assume: Mapping[str, bool | int | float] | None = None,
    execute: bool = False,
    use_cache: bool | Literal["only"] = True,
    progress: Progress | None = None,
) -> Analysis:
    """Analyze a model on a machine, before anything runs.

    ``model`` is a name (``resnet50``, ``timm:NAME``, ``hf:bert``, ``path/to/file.py:factory``, ``model.pt2``, ...)
    or a module with its ``inputs`` (a tensor, a tuple, a dict of keyword arguments, or (args, kwargs)).
    ``batch`` defaults to that of the given inputs, else 1; sizes default to the model's own.
    ``assume`` answers questions about values that nobody knows before a run, by the line that asks:
    ``{"net.py:12": False}``; all answers that were taken are in ``Analysis.assumed``.
    ``execute`` runs one forward pass on this machine's CPU, for models of which values decide how much is computed:
    with the module's own weights (random ones where it has none) and ``inputs``, which a named model takes here too,
    and which may be the path of a file (``.pt`` or a picture); random ones where none are given. All numbers are then
    for these inputs, and nothing is cached.
    ``host`` names the computer that issues the step, or its file (``costmodel hw list``); ``inputs_on="host"`` times
    the copy of the inputs from pageable memory too; ``train_mode`` runs the forward pass of a module in train mode.
    ``power_limit`` caps what the board may draw, in W, below its own limit.
    ``symbols`` are the sizes to leave open; a named model's trace is cached (``use_cache="only"``: or refused).
    Raises a :class:`~costmodel.errors.CostmodelError` that says what was asked, what there is and what to do.

    >>> analyze("resnet50", hw="a100").totals.macs                                  # doctest: +SKIP
    4089184256
    """
    hardware = _machine(hw)
    execution = Execution.of(
        batch=1 if batch is None else batch,
        dtype=dtype,
        layout=layout,
        mode=mode,
        host=host,
        inputs=inputs_on,
        train_mode=train_mode,
        power_limit=power_limit,
    )
    hardware.limited(execution.power_limit_w)
    engine_of(mode), host_of(host, hardware)  # unknown words are told before a long trace
    sizes = input_sizes(image_size, seq_len, batch, input_shape)
    traces: Traces
    if execute:
        if assume:
            raise InputError("a run finds its answers itself\n  give either assume or execute, not both")
        traces = ExecutedTraces(model, inputs, input_shape=input_shape, progress=progress)
    elif isinstance(model, str):
        if inputs is not None:
            raise InputError(
                "a named model brings its own inputs\n"
                "  use batch, image_size, input_shape or seq_len; execute=True runs it on inputs of yours"
            )
        traces = _NamedTraces(
            model,
            symbols,
            input_shape=input_shape,
            assume=assume,
            use_cache=use_cache,
            progress=progress,
        )
    else:
        traces = _ModuleTraces(model, inputs, input_shape, symbols, assume, progress)
    return _analysis(traces, hardware, execution, batch, sizes)


def _machine(hw: str | Path | HardwareProfile) -> HardwareProfile:
    if isinstance(hw, HardwareProfile):
        return hw
    if not isinstance(hw, (str, Path)):
        raise InputError(
            f"hw names one machine, and is not {hw!r}\n  compare() and Analysis.at(hw=...) answer for several"
        )
    return load(hw)


def compare(
    models: Sequence[str | nn.Module],
    inputs: Any = None,
    *,
    hw: str | HardwareProfile | Sequence[str | HardwareProfile],
    **conditions: Any,
) -> Comparison:
    """Hold several models against the first, on one or several machines, under the conditions of :func:`analyze`.

    Modules all take the same ``inputs``; several of one class are told apart by number: ``Net (1)``, ``Net (2)``.
    Raises InputError for fewer than two models or one model twice, and what :func:`analyze` raises.

    >>> compare(["resnet50", "mobilenet_v2"], hw=["a100", "t4"]).fastest                # doctest: +SKIP
    {'a100-sxm-80gb': 'mobilenet_v2', 't4': 'mobilenet_v2'}
    """
    machines = [hw] if isinstance(hw, (str, HardwareProfile)) else list(hw)
    if not machines:
        raise InputError("no machine is named\n  `costmodel hw list` shows them")
    found = []
    for model in models:
        own = None if isinstance(model, str) and not conditions.get("execute") else inputs
        first = analyze(model, own, hw=machines[0], **conditions)
        found.append([first, *(first.at(hw=machine) for machine in machines[1:])])
    for row, name in zip(found, _told_apart(models, [row[0].name for row in found]), strict=True):
        for analysis in row:
            analysis.name = name
    return Comparison(found)


def _told_apart(models: Sequence[str | nn.Module], names: Sequence[str]) -> list[str]:
    """The models' names; where several share one, the request as it was given, and modules of one class by number.

    >>> _told_apart(["timm:resnet50", "torchvision:resnet50", "vgg16"], ["resnet50", "resnet50", "vgg16"])
    ['timm:resnet50', 'torchvision:resnet50', 'vgg16']
    """
    found: list[str] = []
    for model, name in zip(models, names, strict=True):
        if names.count(name) == 1:
            found.append(name)
        elif isinstance(model, str):
            found.append(model)
        else:
            alike = list(dict.fromkeys(id(other) for other, its in zip(models, names, strict=True) if its == name))
            found.append(f"{name} ({alike.index(id(model)) + 1})")
    return found


def input_sizes(
    image_size: int | tuple[int, int] | None,
    seq_len: int | None,
    batch: int | None = None,
    input_shape: Sequence[int] | None = None,
) -> dict[str, int]:
    """The sizes asked for, by name, without the batch. Raises InputError for what no tensor can have, together too."""
    sizes = {}
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        sizes = {"height": height, "width": width}
    if seq_len is not None:
        sizes["seq_len"] = seq_len
    for name, value in {**sizes, **({} if batch is None else {"batch": batch})}.items():
        checked_size(name, value)
    checked_size("batch times input size", (batch or 1) * math.prod(sizes.values()))
    if input_shape and all(isinstance(size, int) and size > 0 for size in input_shape):
        checked_size("batch times input shape", (batch or 1) * math.prod(input_shape))
    return sizes


def _analysis(
    traces: Traces,
    hardware: HardwareProfile,
    execution: Execution,
    batch: int | None,
    sizes: Mapping[str, int],
) -> Analysis:
    """``batch`` None: the model's own."""

    def retrace(
        batch: int, sizes: Mapping[str, int], layout: str, device: str, train_mode: bool
    ) -> tuple[OpGraph, Mapping[str, str] | None]:
        found = traces(batch, sizes, layout, device, train_mode)
        return found.graph, found.closed_forms or None

    traced = traces(batch, sizes, execution.layout, hardware.family.torch_device, execution.train_mode)
    symbols = traced.graph.symbols
    own = symbols["batch"].default if "batch" in symbols else traced.graph.batch or 1
    return Analysis(
        name=traced.name,
        source=traced.source,
        record=traced.graph,
        hardware=hardware,
        execution=execution.changed(
            batch=own if batch is None else batch, sizes={n: v for n, v in sizes.items() if n in symbols}
        ),
        closed_forms=traced.closed_forms or None,
        asked=sizes,
        retrace=retrace,
    )


class _NamedTraces:
    """Traces of a named model, by :func:`load_trace`. All symbols are opened once in each layout and mode of
    the module: what has to be traced again, because the first graph does not hold there, is traced at its sizes."""

    def __init__(self, request: str, symbols: Sequence[str], **options: Any) -> None:
        self.request, self.symbols, self.options = request, tuple(symbols), options
        self.opened: set[tuple[str, str, bool]] = set()

    def __call__(
        self, batch: int | None, sizes: Mapping[str, int], layout: str, device: str, train_mode: bool
    ) -> CachedTrace:
        again = (layout, device, train_mode) in self.opened and not self.options["use_cache"]
        at: dict[str, Any] = {"batch": batch, "sizes": sizes, "layout": layout, "device": device}
        at["train_mode"] = train_mode
        at["symbols"] = tuple(set(self.symbols) & {"batch"}) if again else self.symbols
        self.opened.add((layout, device, train_mode))
        return load_trace(self.request, checked=True, **at, **self.options)


def load_trace(
    request: str,
    *,
    symbols: Sequence[str] = ("batch",),
    batch: int | None = None,
    sizes: Mapping[str, int] | None = None,
    input_shape: Sequence[int] | None = None,
    layout: str = "nchw",
    device: str = "cuda",
    assume: Mapping[str, bool | int | float] | None = None,
    use_cache: bool | Literal["only"] = True,
    checked: bool = False,
    train_mode: bool = False,
    progress: Progress | None = None,
) -> CachedTrace:
    """The traced graph of a named model, from the cache where it serves, else traced and stored.

    ``batch`` None is the model's own. ``device`` is the kind of device that the model sees, "cuda" or "cpu": entries of
    models that asked for it are kept apart. ``checked``: a run at this batch and these sizes agrees with the graph; a
    cached graph whose open sizes were not yet tried there is run there once, and remembers it. Otherwise the sizes
    that the model leaves open are open, whether or not another path is taken at some of them. ``train_mode``: the
    forward pass of a module in train mode.
    ``use_cache="only"`` never traces and raises TraceError where no entry serves.
    """
    sizes = dict(sizes or {})
    options: dict[str, Any] = {"symbols": sorted(symbols), "layout": layout}
    if assume:
        options["assume"] = dict(assume)
    options |= {"train_mode": True} if train_mode else {}
    specific: dict[str, Any] = {**options, "sizes": sizes, "input_shape": input_shape and list(input_shape)}
    untried: dict[str, CachedTrace] = {}
    if use_cache:
        for parts in _by_device(device, options, specific, {**specific, "batch": batch}):
            entry = cache.read(cache.key(request, parts))
            if entry is None or (input_shape is not None and "sizes" not in parts):
                continue
            if entry.graph.device not in ("", device):
                continue
            if entry.graph.serves(batch, sizes, verified=checked):
                general = next((other.graph for other in untried.values()), None)
                return replace(entry, graph=replace(entry.graph, general=general)) if general else entry
            if entry.graph.serves(batch, sizes, verified=False):
                untried[cache.key(request, parts)] = entry
    if use_cache == "only":
        raise TraceError(f"the cache has no trace of {request} in {layout}")
    loaded = _loaded(request, sizes, input_shape, batch)
    loaded.assume = dict(assume or {})
    loaded.train_mode = train_mode
    at = {**({} if batch is None else {"batch": batch}), **loaded.sizes}
    for key, entry in untried.items():
        tried = _tried(entry, loaded, at, layout, device)
        if tried is not None:
            cache.write(key, tried, _files(request))
            return tried
    entry = _traced(loaded, ("batch",) if untried else symbols, at, layout, device, checked, progress)
    if use_cache:
        parts = options if not sizes and not input_shape else specific
        if entry.graph.general is not None:
            *_, open_parts = _by_device(entry.graph.device, parts)
            cache.write(cache.key(request, open_parts), replace(entry, graph=entry.graph.general), _files(request))
        if untried or "batch" not in entry.graph.symbols:
            parts = {**specific, "batch": batch}
        *_, parts = _by_device(entry.graph.device, parts)
        cache.write(cache.key(request, parts), entry, _files(request))
    return entry


def _by_device(device: str, *parts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keys of what a trace depends on: first without the kind of device, then with it. GPUs need no second one."""
    yield from parts
    if device == "cpu":
        yield from ({**part, "device": device} for part in parts)


def _tried(
    entry: CachedTrace, loaded: LoadedModel, sizes: Mapping[str, int], layout: str, device: str
) -> CachedTrace | None:
    """The entry with ``sizes`` among those that it holds at, or None where a run there does something else."""
    from costmodel.trace import agrees

    graph = entry.graph
    at = {name: sizes.get(name, symbol.default) for name, symbol in graph.symbols.items()}
    if agrees(loaded, graph, at, layout, device) is not None:
        return None
    return replace(entry, graph=replace(graph, domain=(graph.domain or Domain()).also(at)))


def _loaded(
    request: str, sizes: Mapping[str, int], input_shape: Sequence[int] | None, batch: int | None
) -> LoadedModel:
    """The model at these sizes. Raises InputError where its batch is a number and another one is asked for."""
    from costmodel.sources import resolve

    image = (sizes["height"], sizes["width"]) if "height" in sizes else None
    loaded = resolve(
        request, image_size=image, seq_len=sizes.get("seq_len"), input_shape=tuple(input_shape) if input_shape else None
    )
    loaded.check(sizes)
    loaded.check_batch(batch)
    return loaded


def _files(request: str) -> dict[str, str]:
    """The user's own files that the trace depends on, with their hashes."""
    path = request.rpartition(":")[0] if ".py:" in request else request.removeprefix("hf:")
    return cache.imported_files(path, Path(path) / "config.json")


def _traced(
    loaded: LoadedModel,
    symbols: Sequence[str],
    sizes: Mapping[str, int],
    layout: str,
    device: str,
    checked: bool,
    progress: Progress | None,
) -> CachedTrace:
    from costmodel.trace import trace

    graph = trace(
        loaded, symbols=symbols, sizes=sizes, layout=layout, device=device, checked=checked, progress=progress
    )
    forms = closed_forms(cost_graph((graph.general or graph).symbolic())) if set(symbols) - {"batch"} else {}
    return CachedTrace(loaded.name, loaded.source, graph, forms)


class _ModuleTraces:
    """Traces of a user's module, which stays as it was; the last one is used again wherever it holds."""

    def __init__(
        self,
        module: nn.Module,
        inputs: Any,
        input_shape: Sequence[int] | None,
        symbols: Sequence[str],
        assume: Mapping[str, bool | int | float] | None,
        progress: Progress | None,
    ) -> None:
        from costmodel.sources import from_module

        self.loaded = from_module(module, inputs, input_shape=tuple(input_shape) if input_shape else None)
        self.loaded.assume = dict(assume or {})
        self.symbols, self.progress = symbols, progress
        self.last: dict[tuple[str, bool], CachedTrace] = {}

    def __call__(
        self, batch: int | None, sizes: Mapping[str, int], layout: str, device: str, train_mode: bool
    ) -> CachedTrace:
        """A trace in ``layout``, on this kind of ``device``, that holds at ``batch`` (None: the inputs') and sizes."""
        self.loaded.check(sizes)
        self.loaded.check_batch(batch)
        loaded = replace(self.loaded, sizes={**self.loaded.sizes, **sizes}, train_mode=train_mode)
        at = {**loaded.sizes, **({} if batch is None else {"batch": batch})}
        symbols, last = self.symbols, self.last.get((layout, train_mode))
        if last is not None and last.graph.device not in ("", device):
            last = None
        if last is not None and last.graph.serves(batch, sizes, verified=False):
            tried = _tried(last, loaded, at, layout, device)
            if tried is not None:
                self.last[layout, train_mode] = tried
                return tried
            symbols = ("batch",)
        self.last[layout, train_mode] = _traced(loaded, symbols, at, layout, device, True, self.progress)
        return self.last[layout, train_mode]
