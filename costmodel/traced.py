"""Traces of a named model, from the cache where it serves, and of a user's module: call one for a graph that holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from costmodel import cache
from costmodel.cache import CachedTrace
from costmodel.costing import closed_forms, cost_graph
from costmodel.domain import Domain
from costmodel.errors import InputError, TraceError, librarian
from costmodel.execution import Phase, Variant
from costmodel.sources.arguments import located, parse_request

if TYPE_CHECKING:
    from torch import nn

    from costmodel.sources.loaded import LoadedModel

__all__ = ["ModuleTraces", "NamedTraces", "Progress", "load_trace"]

Progress = Callable[[int], None]

_PLAIN = Variant()


class NamedTraces:
    """Traces of a named model, by :func:`load_trace`. All symbols are opened once for each program: what has to be
    traced again, because the first graph does not hold there, is traced at its sizes."""

    def __init__(self, request: str, symbols: Sequence[str], **options: Any) -> None:
        self.request, self.symbols, self.options = request, tuple(symbols), options
        self.opened: set[Variant] = set()

    def __call__(self, batch: int | None, sizes: Mapping[str, int], variant: Variant) -> CachedTrace:
        again = variant in self.opened and not self.options["use_cache"]
        at: dict[str, Any] = {"batch": batch, "sizes": sizes, "variant": variant}
        at["symbols"] = tuple(set(self.symbols) & {"batch"}) if again else self.symbols
        self.opened.add(variant)
        return load_trace(self.request, checked=True, **at, **self.options)


def load_trace(
    request: str,
    *,
    symbols: Sequence[str] = ("batch",),
    batch: int | None = None,
    sizes: Mapping[str, int] | None = None,
    input_shape: Sequence[int] | None = None,
    variant: Variant = _PLAIN,
    assume: Mapping[str, bool | int | float] | None = None,
    use_cache: bool | Literal["only"] = True,
    checked: bool = False,
    progress: Progress | None = None,
) -> CachedTrace:
    """The traced graph of a named model, from the cache where it serves, else traced and stored.

    ``batch`` None is the model's own. ``variant`` says which program; entries of models that asked which kind of device
    they run on are kept apart. ``checked``: a run at this batch and these sizes agrees with the graph; a
    cached graph whose open sizes were not yet tried there is run there once, and remembers it. Otherwise the sizes
    that the model leaves open are open, whether or not another path is taken at some of them.
    ``use_cache="only"`` never traces and raises TraceError where no entry serves.
    """
    sizes, place = dict(sizes or {}), located(request)
    options: dict[str, Any] = {"symbols": sorted(symbols), **variant.words}
    if assume:
        options["assume"] = dict(assume)
    device = variant.device
    specific: dict[str, Any] = {**options, "sizes": sizes, "input_shape": input_shape and list(input_shape)}
    untried: dict[str, CachedTrace] = {}
    if use_cache:
        for parts in _by_device(device, options, specific, {**specific, "batch": batch}):
            entry = cache.read(cache.key(place, parts))
            if entry is None or (input_shape is not None and "sizes" not in parts):
                continue
            if entry.graph.device not in ("", device):
                continue
            if entry.graph.serves(batch, sizes, verified=checked):
                general = next((other.graph for other in untried.values()), None)
                return replace(entry, graph=replace(entry.graph, general=general)) if general else entry
            if entry.graph.serves(batch, sizes, verified=False):
                untried[cache.key(place, parts)] = entry
    if use_cache == "only":
        raise TraceError(f"the cache has no trace of {request} in {variant.layout}")
    loaded = _loaded(request, sizes, input_shape, batch, variant.phase)
    loaded.assume = dict(assume or {})
    at = {**loaded.sizes, **({} if batch is None else {"batch": batch})}  # a file's sizes name its own batch
    for key, entry in untried.items():
        tried = _tried(entry, loaded, at, variant)
        if tried is not None:
            cache.write(key, tried, _files(request))
            return tried
    entry = _traced(loaded, ("batch",) if untried else symbols, at, variant, checked, progress)
    if use_cache:
        parts = options if not sizes and not input_shape else specific
        if entry.graph.general is not None:
            *_, open_parts = _by_device(entry.graph.device, parts)
            cache.write(cache.key(place, open_parts), replace(entry, graph=entry.graph.general), _files(request))
        if untried or "batch" not in entry.graph.symbols:
            parts = {**specific, "batch": batch}
        *_, parts = _by_device(entry.graph.device, parts)
        cache.write(cache.key(place, parts), entry, _files(request))
    return entry


def _by_device(device: str, *parts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keys of what a trace depends on: first without the kind of device, then with it. GPUs need no second one."""
    yield from parts
    if device == "cpu":
        yield from ({**part, "device": device} for part in parts)


def _tried(entry: CachedTrace, loaded: LoadedModel, sizes: Mapping[str, int], variant: Variant) -> CachedTrace | None:
    """The entry with ``sizes`` among those that it holds at, or None where a run there does something else."""
    from costmodel.trace import agrees

    graph = entry.graph
    at = {name: sizes.get(name, symbol.default) for name, symbol in graph.symbols.items()}
    if agrees(loaded, graph, at, variant) is not None:
        return None
    return replace(entry, graph=replace(graph, domain=(graph.domain or Domain()).also(at)))


def _loaded(
    request: str, sizes: Mapping[str, int], input_shape: Sequence[int] | None, batch: int | None, phase: Phase
) -> LoadedModel:
    """The model at these sizes. Raises InputError where its batch is a number and another one is asked for."""
    from costmodel.sources import resolve

    image = (sizes["height"], sizes["width"]) if "height" in sizes else None
    loaded = resolve(
        request,
        image_size=image,
        seq_len=sizes.get("seq_len"),
        context=sizes.get("context"),
        phase=phase,
        input_shape=tuple(input_shape) if input_shape else None,
    )
    loaded.check(sizes)
    loaded.check_batch(batch)
    return loaded


def _files(request: str) -> dict[str, str]:
    """The user's own files that the trace depends on, with their hashes."""
    name = parse_request(request).name
    path = name.rpartition(":")[0] if ".py:" in name else name.removeprefix("hf:")
    return cache.imported_files(path, Path(path) / "config.json")


def _traced(
    loaded: LoadedModel,
    symbols: Sequence[str],
    sizes: Mapping[str, int],
    variant: Variant,
    checked: bool,
    progress: Progress | None,
) -> CachedTrace:
    from costmodel.trace import trace

    graph = trace(loaded, symbols=symbols, sizes=sizes, variant=variant, checked=checked, progress=progress)
    forms = closed_forms(cost_graph((graph.general or graph).symbolic())) if set(symbols) - {"batch"} else {}
    return CachedTrace(loaded.name, loaded.source, graph, forms)


class ModuleTraces:
    """Traces of a user's module, which stays as it was; the last one is used again wherever it holds."""

    def __init__(
        self,
        module: nn.Module,
        inputs: Any,
        input_shape: Sequence[int] | None,
        symbols: Sequence[str],
        assume: Mapping[str, bool | int | float] | None,
        progress: Progress | None,
        loss: Callable[[Any], Any] | None = None,
    ) -> None:
        from costmodel.sources import from_module

        self.loaded = from_module(module, inputs, input_shape=tuple(input_shape) if input_shape else None)
        self.loaded.assume, self.loaded.loss = dict(assume or {}), loss
        self.symbols, self.progress = symbols, progress
        self.last: dict[Variant, CachedTrace] = {}

    def __call__(self, batch: int | None, sizes: Mapping[str, int], variant: Variant) -> CachedTrace:
        """A trace of the program ``variant`` that holds at ``batch`` (None: the inputs') and sizes.

        Raises InputError for a half of writing text: nobody but the module's author knows where its cache is.
        """
        if variant.phase.generates:
            asked = f"phase={variant.phase.value} belongs to models that write text, not to a module"
            raise InputError(
                librarian(asked, there_is=["hf:"], do="a module is analyzed as it is called with its inputs")
            )
        self.loaded.check(sizes)
        self.loaded.check_batch(batch)
        loaded = replace(self.loaded, sizes={**self.loaded.sizes, **sizes})
        at = {**loaded.sizes, **({} if batch is None else {"batch": batch})}
        symbols, last = self.symbols, self.last.get(variant.anywhere)
        if last is not None and last.graph.device not in ("", variant.device):
            last = None
        if last is not None and last.graph.serves(batch, sizes, verified=False):
            tried = _tried(last, loaded, at, variant)
            if tried is not None:
                self.last[variant.anywhere] = tried
                return tried
            symbols = ("batch",)
        self.last[variant.anywhere] = _traced(loaded, symbols, at, variant, True, self.progress)
        return self.last[variant.anywhere]
