"""trace(): chooses the runs, records them, and has every size lifted to an expression."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from costmodel.domain import Domain, Symbol, any_batch
from costmodel.errors import InputError, TraceError, librarian, near_matches
from costmodel.execution import Phase, Variant
from costmodel.graph import OpGraph
from costmodel.symbols import LARGEST_SIZE
from costmodel.trace.agree import difference
from costmodel.trace.batch_of_one import makes_constants_of_the_batch, may_differ_at_one
from costmodel.trace.build import GraphBuilder, same_structure
from costmodel.trace.checks import Checks
from costmodel.trace.forward import ForwardError, meta_copy, prepared, record
from costmodel.trace.guard import Exploded, Guard, Limit, Suspicious
from costmodel.trace.lazy import materialized
from costmodel.trace.lift import BATCH_PRIMES, BatchLift, SizeLift, Unliftable
from costmodel.trace.places import module_places
from costmodel.trace.points import spread
from costmodel.trace.raw import RawTrace, TensorIndex
from costmodel.trace.special import packed_weights, special_bytes
from costmodel.trace.subclasses import parts
from costmodel.trace.trained import arranged

if TYPE_CHECKING:
    from costmodel.sources.loaded import LoadedModel

__all__ = ["SYMBOLS", "Tracer", "agrees", "channels_last", "trace"]

#: Sizes that may be left open, in the order in which they are printed.
SYMBOLS = ("batch", "frames", "height", "width", "seq_len", "decoder_seq_len", "context")

_SIDES = {"height", "width"}


#: What is tried in turn: any size; sequences no longer than the default (a table of positions ends there);
#: images whose sides are multiples of a total stride, where the default sides are.
_WAYS = {
    "images": (("image", 1), ("image", 32), ("image", 64), ("image", 8)),
    "other": (("grow", 1), ("shrink", 1)),
}


def trace(
    loaded: LoadedModel,
    *,
    symbols: Collection[str] = ("batch",),
    sizes: Mapping[str, int] | None = None,
    variant: Variant | None = None,
    checked: bool = False,
    progress: Callable[[int], None] | None = None,
) -> OpGraph:
    """Record ``loaded`` and return its graph, with ``symbols`` left open where the model allows it.

    ``sizes`` fix or default the other sizes; ``variant`` says which program is traced (None: an ordinary forward pass):
    in layout "nhwc" model and images are in channels_last, "cuda" stands for NVIDIA's and AMD's GPUs, and of a training
    step the loss, the backward pass and the gradients are recorded as autograd runs them.
    A symbol that cannot be left open stays a number, and the graph's notes say why. ``checked``: the graph is one
    that a run at the sizes and the batch of ``sizes`` (defaults: the model's own) agrees with, closed if need be.
    The module itself is not touched: every run is made on a copy without memory. Raises TraceError when the forward
    pass fails, InputError when the sizes do not fit.
    """
    with _no_collection():
        try:
            return Tracer(loaded, dict(sizes or {}), variant or Variant(), progress).trace(symbols, checked)
        except ForwardError as error:
            if loaded.hint and not error.asks:
                raise TraceError(f"{error}\n  {loaded.hint}") from error
            raise


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running: a trace makes many small objects that stay, none of which hold memory
    of tensors, and a full collection walks all of torch for each (0.3 s, twice what a large model takes to trace)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def agrees(loaded: LoadedModel, graph: OpGraph, sizes: Mapping[str, int], variant: Variant | None = None) -> str | None:
    """What a run of ``loaded`` at ``sizes`` (defaults: its own) does otherwise than ``graph``, of codes, says; or None.

    Raises TraceError when the forward pass fails there, InputError when the sizes do not fit.
    """
    tracer = Tracer(loaded, dict(sizes), variant or Variant(), None)
    return tracer.difference(graph, {name: tracer.sizes[name] for name in graph.symbols if name in tracer.sizes})


class Tracer:
    """Chooses the runs of one model at given sizes, and builds its graph from them."""

    def __init__(
        self,
        loaded: LoadedModel,
        sizes: dict[str, int],
        variant: Variant,
        progress: Callable[[int], None] | None,
    ) -> None:
        loaded = materialized(loaded, variant.device)
        if not variant.trained.is_usual:
            module, notes = arranged(meta_copy(loaded.module, variant.layout, trains=True), variant.trained)
            loaded = replace(loaded, module=module, notes=[*loaded.notes, *notes])
        self.loaded, self.variant, self.progress = loaded, variant, progress
        self.own = {"batch": loaded.fixed_batch or 1, **loaded.sizes}
        self.sizes = {**self.own, **sizes}
        self.named = {d for leaf in loaded.tensor_inputs for d in leaf.dims if isinstance(d, str)}
        self.names = [leaf.name for leaf in loaded.tensor_inputs]
        self.values = [leaf.value for leaf in loaded.tensor_inputs]
        self.notes: list[str] = []
        self.executed = ""  # with which weights and inputs the model really ran
        self._turned: dict[str, bool] = {}  # assumptions that the model raised an error on
        self._asked: RawTrace | None = None
        self._general: OpGraph | None = None  # one that leaves sizes open, and does not hold at those asked for
        self._batch_explodes = False  # whether the number of operators was seen to grow with the batch

    def trace(self, symbols: Collection[str], checked: bool) -> OpGraph:
        self.loaded.inputs(self._named({}))  # refuses what no memory holds before anything runs
        wanted = [s for s in SYMBOLS if s in symbols and s in self.named]
        spatial = [s for s in wanted if s != "batch"]
        graph = self._open_sizes(spatial, "batch" in wanted, checked) if spatial else None
        if graph is None and "batch" in wanted and not self._batch_explodes:
            graph = self._open_batch(checked)
        return graph or replace(self._concrete(), general=self._general)

    # -- runs ----------------------------------------------------------------------------------

    def _named(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {k: v for k, v in {**self.sizes, **sizes}.items() if k in self.named}

    def _run(self, sizes: Mapping[str, int], guard: Guard | None = None) -> RawTrace:
        """One run. Where the model raises an error on what was assumed, it is made again with the other answer."""
        while True:
            trains = self.variant.phase is Phase.TRAINING
            # One for each run: a forward pass may fill caches.
            module = meta_copy(self.loaded.module, self.variant.layout, trains=trains)
            module.train(self.variant.train_mode)
            args, kwargs = self.loaded.inputs(self._named(sizes))
            if self.variant.layout == "nhwc":
                args, kwargs = channels_last((args, kwargs))
            states: list[tuple[str, torch.Tensor]] = []
            names, answers = self.names, {**self.loaded.plain, **self.loaded.assume}
            if self.loaded.prepare is not None:
                checks = Checks(answers, self._turned)
                kwargs, states = prepared(self.loaded.prepare, module, kwargs, self.variant.device, checks)
                names = [name for name in names if name in kwargs]  # a prompt, or what an encoder read, is over
            checks = Checks(answers, self._turned, strict=self._hides_values(sizes))
            try:
                run = record(
                    module,
                    args,
                    kwargs,
                    names=names,
                    values=self.values,
                    progress=self.progress,
                    guard=guard,
                    checks=checks,
                    device=self.variant.device,
                    trains=trains,
                    loss=self.loaded.loss,
                    states=states,
                    prime=sizes.get("batch"),
                )
            except ForwardError as error:
                turned = checks.turn_for(error.__cause__ or error)
                if turned is None:
                    raise
                self._turned.update([turned])
                continue
            self._check_answers(checks)
            return run

    def _hides_values(self, sizes: Mapping[str, int]) -> bool:
        """Whether values of inputs are known at the sizes asked for, and not at these."""
        for leaf in self.loaded.tensor_inputs:
            if leaf.value is None:
                continue
            given = tuple(leaf.value.shape)
            if leaf.shape({**self.sizes}) == given != leaf.shape({**self.sizes, **sizes}):
                return True
        return False

    def _check_answers(self, checks: Checks) -> None:
        """Refuse an answer to a question that was not asked."""
        for name in self.loaded.assume:
            if name not in checks.used:
                asked = list(dict.fromkeys(checks.asked))
                there = asked or "none: the model asks for no value that is not known"
                raise InputError(
                    librarian(f"no question is called {name!r}", there_is=there, near=near_matches(name, asked))
                )

    @property
    def asked(self) -> RawTrace:
        """The run at the sizes and the batch asked for, made once."""
        if self._asked is None:
            self._asked = self._run({})
        return self._asked

    def _run_open(self, point: Mapping[str, int], limit: Limit | None = None) -> RawTrace:
        """A run at a point of a lift. Raises :class:`Exploded` where its operators grow with the batch or a size."""
        batch = point.get("batch", 0)
        try:
            return self._run(point, Guard(batch, limit))
        except Suspicious:
            return self._run(point, Guard(batch, _limit(self.asked)))

    def _concrete(self) -> OpGraph:
        return self._graph([self.asked], lambda values: values[0], {}, [{}])

    def difference(self, graph: OpGraph, sizes: Mapping[str, int]) -> str | None:
        """What the run at the asked sizes and batch does otherwise than ``graph``, of codes, says for them."""
        return difference(graph.bind(sizes), self._concrete())

    def _checked(self, graph: OpGraph) -> OpGraph | None:
        """``graph`` with the asked sizes among those that it holds at, or None, and a note, where it does not."""
        sizes = {name: self.sizes[name] for name in graph.symbols}
        why = self.difference(graph, sizes)
        if why is None:
            return replace(graph, domain=(graph.domain or Domain()).also(sizes))
        self.notes.append(f"{_stay(sizes)}: {why}")
        self._general = self._general or graph
        return None

    # -- batch ---------------------------------------------------------------------------------

    def _open_batch(self, checked: bool) -> OpGraph | None:
        """The graph with the batch open, or None (and a note) where the model fixes it."""
        try:
            graph = self._at_primes()
            holds = graph.holds_at({"batch": self.sizes["batch"]}) and self._asked is None
            return self._checked(graph) if checked and not holds else graph
        except (TraceError, InputError, Unliftable) as reason:
            why = "" if isinstance(reason, Exploded) else "the model does not run at an arbitrary batch"
            self.notes.append(_stays(self.sizes, ["batch"], why, reason))
            return None

    def _at_primes(self) -> OpGraph:
        lift = BatchLift(BATCH_PRIMES[:1])
        runs = [self._run_open({"batch": BATCH_PRIMES[0]})]
        doubtful = any(map(lift.is_doubtful, _sizes_in_question(runs[0])))
        if doubtful:
            runs.append(self._run_open({"batch": BATCH_PRIMES[1]}, _limit(runs[0])))
            lift = BatchLift(BATCH_PRIMES)
            if not same_structure(runs):
                raise TraceError("it takes another path at another batch")
        points = [{"batch": prime} for prime in lift.primes]
        return self._graph(runs, lift, {"batch": Symbol("batch", self.own["batch"])}, points, doubtful)

    # -- height, width, sequence ---------------------------------------------------------------

    def _open_sizes(self, spatial: list[str], with_batch: bool, checked: bool) -> OpGraph | None:
        """The graph with ``spatial`` open, or None (and a note) where the model fixes them."""
        reason: Exception | None = None
        for way, step in _WAYS["images" if _SIDES & set(spatial) else "other"]:
            if any(self.sizes[name] % step for name in spatial):
                continue
            try:
                graph = self._lifted(spatial, way, step, with_batch)
                return self._checked(graph) if checked else graph
            except Exploded as error:
                reason = error
                if with_batch and self._asked is not None:
                    self._batch_explodes = True
                    spatial = ["batch", *spatial]
                break
            except (TraceError, InputError, Unliftable) as error:
                reason = reason or error
        self.notes.append(_stays(self.sizes, spatial, "", reason))
        return None

    def _lifted(self, spatial: list[str], way: str, step: int, with_batch: bool) -> OpGraph:
        points = self._points(spatial, way, step, with_batch)
        # The second point first: a model with a fixed grid refuses it at once. As it is near the default size, it
        # also says how many operators there may be.
        early = self._run_open(points[1])
        runs = [early if point is points[1] else self._run_open(point, _limit(early)) for point in points]
        if not same_structure(runs):
            raise TraceError("it takes another path at other sizes")
        symbols = {"batch": Symbol("batch", self.own["batch"])} if with_batch else {}
        for s in spatial:
            symbols[s] = Symbol(s, self.sizes[s], multiple_of=step, minimum=step, maximum=self.loaded.limits.get(s))
        return self._graph(runs, SizeLift(points, divisible=step > 1), symbols, points)

    def _points(self, spatial: Sequence[str], way: str, step: int, with_batch: bool) -> list[dict[str, int]]:
        along = {name: spread(self.sizes[name], way, step, place) for place, name in enumerate(spatial)}
        batch = {"batch": BATCH_PRIMES[0]} if with_batch else {}
        return [{**batch, **dict(zip(along, point, strict=True))} for point in zip(*along.values(), strict=True)]

    # -- graph ---------------------------------------------------------------------------------

    def _graph(
        self,
        runs: list[RawTrace],
        lift: Any,
        symbols: dict[str, Symbol],
        points: list[dict[str, int]],
        doubtful: bool = False,
    ) -> OpGraph:
        module, packed = self.loaded.module, list(packed_weights(self.loaded.module))
        parameters = {name: p.numel() for name, p in (*module.named_parameters(), *packed)}
        graph = GraphBuilder(runs, lift, symbols, points).build(
            parameters=parameters,
            parameter_bytes_of=_bytes_by_dtype([*module.parameters(), *(weight for _, weight in packed)]),
            buffer_bytes_of=_bytes_by_dtype(module.buffers()),
            places=module_places(module),
            notes=tuple(dict.fromkeys([*self.loaded.notes, *self.notes, *runs[0].notes])),
            assumed=runs[0].assumed,
            executed=self.executed,
            layout=self.variant.layout,
            weights=self.loaded.weights,
            device=runs[0].device,
            batch=None if "batch" in symbols else self.sizes["batch"],
            domain=self._domain(runs, symbols, points, doubtful),
        )
        return graph.coded()

    def _domain(
        self, runs: list[RawTrace], symbols: dict[str, Symbol], points: list[dict[str, int]], doubtful: bool
    ) -> Domain:
        """Where these runs hold: between their points, and at every batch where they were made at a prime; at a batch
        of one only if nothing in them could be otherwise there."""
        between = {}
        asks = "batch" in symbols and any(run.asks_batch for run in runs)
        for name in symbols:
            if name == "batch":
                special = (may_differ_at_one(run, point["batch"]) for run, point in zip(runs, points, strict=True))
                between[name] = any_batch(one=not doubtful and not any(special))
                made = any(makes_constants_of_the_batch(r, p["batch"]) for r, p in zip(runs, points, strict=True))
                if made or asks:
                    between[name] = (LARGEST_SIZE, LARGEST_SIZE)  # a run at an ordinary batch must decide
            else:
                between[name] = (min(p[name] for p in points), max(p[name] for p in points))
                if self.loaded.built_for_size:  # what runs elsewhere is another module
                    between[name] = (self.sizes[name], self.sizes[name])
        return Domain(between, each_batch=asks)


def _limit(run: RawTrace) -> Limit:
    return Limit(len(run.nodes), max((len(node.outputs) for node in run.nodes), default=0))


def _stay(sizes: Mapping[str, int]) -> str:
    return " and ".join(f"{name} stays {size}" for name, size in sizes.items())


def _stays(sizes: Mapping[str, int], names: Sequence[str], why: str, reason: Exception | None) -> str:
    """``height stays 224 and width stays 224: ...``, with the last line of an error's text."""
    text = "" if reason is None else _why(reason)
    said = f"{why} ({text})" if why and text else why or text
    return f"{_stay({name: sizes[name] for name in names})}: {said}"


def _bytes_by_dtype(tensors: Iterable[torch.Tensor]) -> dict[str, int]:
    found: dict[str, int] = {}
    for _, tensor in (part for whole in tensors for part in parts("", whole)):
        dtype = str(tensor.dtype).removeprefix("torch.").removeprefix("q")  # qint8 is stored as int8
        found[dtype] = found.get(dtype, 0) + special_bytes(tensor)
    return found


def _why(error: Exception) -> str:
    """An error in one line."""
    text: str = getattr(error, "why", "") or str(error).strip()
    return text.splitlines()[-1].strip() if text else ""


def channels_last(tree: Any) -> Any:
    """Images among inputs in channels_last."""
    return pytree.tree_map(_channels_last, tree)


def _channels_last(leaf: Any) -> Any:
    is_image = isinstance(leaf, torch.Tensor) and leaf.dim() == 4
    return leaf.to(memory_format=torch.channels_last) if is_image else leaf


def _sizes_in_question(run: RawTrace) -> Iterator[int]:
    """Sizes and integer arguments of a run, without those that the weights have by themselves."""
    weights = {size for t in run.tensors if t.role in ("parameter", "buffer") for size in t.shape}
    for tensor in run.tensors:
        if tensor.role == "activation":
            yield from (size for size in tensor.shape if size not in weights)
    for node in run.nodes:
        yield from (v for v in _integers(list(node.arguments.values())) if v not in weights)


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, TensorIndex):
        return
