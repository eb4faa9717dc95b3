"""trace(): chooses the runs, records them, and has every size lifted to an expression."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from costmodel.errors import TraceError
from costmodel.graph import OpGraph, Symbol
from costmodel.trace.build import GraphBuilder, same_structure
from costmodel.trace.forward import meta_copy, record
from costmodel.trace.lift import BATCH_PRIMES, BatchLift, SizeLift, Unliftable
from costmodel.trace.recorder import RawTrace, TensorIndex

if TYPE_CHECKING:
    from costmodel.sources.loaded import LoadedModel

__all__ = ["SYMBOLS", "trace"]

#: Sizes that may be left open, in the order in which they are printed.
SYMBOLS = ("batch", "frames", "height", "width", "seq_len", "decoder_seq_len")

#: Offsets from the default size of the runs that lift it. Odd and even, so that rounding at each stride shows;
#: far apart, so that no other rounding fits by chance (large sizes cost nothing on meta). The last run only verifies.
#: Height and width get different offsets, so that they cannot be mixed up.
_OFFSETS = {"height": (0, 37, -29, 893, 388), "width": (0, 75, 11, 1274, 627)}
_OTHER_OFFSETS = {"grow": (0, 13, -7, 203, 98), "shrink": (0, -13, -40, -61, -27)}

#: What is tried in turn: any size; sequences no longer than the default (a table of positions ends there);
#: images whose sides are multiples of a total stride.
_ATTEMPTS = (("grow", 1), ("shrink", 1), ("grow", 32), ("grow", 64))


def trace(
    loaded: LoadedModel,
    *,
    symbols: Collection[str] = ("batch",),
    sizes: Mapping[str, int] | None = None,
    layout: str = "nchw",
    progress: Callable[[int], None] | None = None,
) -> OpGraph:
    """Record ``loaded`` and return its graph, with ``symbols`` left open where the model allows it.

    ``sizes`` fix or default the other sizes; ``layout`` "nhwc" runs model and images in channels_last.
    A symbol that cannot be left open stays a number, and the graph's notes say why. The module itself is
    not touched: every run is made on a copy without memory. Raises TraceError when the forward pass fails,
    InputError when the sizes do not fit.
    """
    return _Tracer(loaded, dict(sizes or {}), layout, progress).trace(symbols)


class _Tracer:
    def __init__(
        self, loaded: LoadedModel, sizes: dict[str, int], layout: str, progress: Callable[[int], None] | None
    ) -> None:
        self.loaded, self.layout, self.progress = loaded, layout, progress
        self.sizes = {"batch": 1, **loaded.sizes, **sizes}
        self.named = {d for leaf in loaded.tensor_inputs for d in leaf.dims if isinstance(d, str)}
        self.names = [leaf.name for leaf in loaded.tensor_inputs]
        self.notes: list[str] = []

    def trace(self, symbols: Collection[str]) -> OpGraph:
        wanted = [s for s in SYMBOLS if s in symbols and s in self.named]
        spatial = [s for s in wanted if s != "batch"]
        if spatial:
            graph = self._lift_sizes(spatial, "batch" in wanted)
            if graph is not None:
                return graph
        return self._lift_batch() if "batch" in wanted else self._concrete()

    # -- runs ----------------------------------------------------------------------------------

    def _run(self, sizes: Mapping[str, int]) -> RawTrace:
        module = meta_copy(self.loaded.module, self.layout)  # one for each run: a forward pass may fill caches
        args, kwargs = self.loaded.inputs({k: v for k, v in {**self.sizes, **sizes}.items() if k in self.named})
        if self.layout == "nhwc":
            args, kwargs = pytree.tree_map(_channels_last, (args, kwargs))
        return record(module, args, kwargs, names=self.names, progress=self.progress)

    def _concrete(self) -> OpGraph:
        return self._graph([self._run({})], lambda values: values[0], {}, [{}])

    # -- batch ---------------------------------------------------------------------------------

    def _lift_batch(self) -> OpGraph:
        try:
            return self._lift_batch_at_primes()
        except (TraceError, Unliftable) as reason:
            graph = self._concrete()  # raises in its turn when the model fails at any batch
            why = str(reason).strip().splitlines()[-1].strip()
            graph.notes += (f"batch stays {self.sizes['batch']}: the model does not run at an arbitrary batch ({why})",)
            return graph

    def _lift_batch_at_primes(self) -> OpGraph:
        lift = BatchLift(BATCH_PRIMES[:1])
        runs = [self._run({"batch": BATCH_PRIMES[0]})]
        if any(map(lift.is_doubtful, _sizes_in_question(runs[0]))):
            runs.append(self._run({"batch": BATCH_PRIMES[1]}))
            lift = BatchLift(BATCH_PRIMES)
            if not same_structure(runs):
                raise TraceError("it takes another path at another batch")
        points = [{"batch": prime} for prime in lift.primes]
        return self._graph(runs, lift, {"batch": Symbol("batch", self.sizes["batch"])}, points)

    # -- height, width, sequence ---------------------------------------------------------------

    def _lift_sizes(self, spatial: list[str], with_batch: bool) -> OpGraph | None:
        """The graph with ``spatial`` open, or None (and a note) where the model fixes them."""
        reason = ""
        images = any(name in _OFFSETS for name in spatial)
        for way, step in _ATTEMPTS:
            if (way == "shrink" or step > 1) and (way == "shrink") == images:
                continue
            points = list(self._points(spatial, way, step, with_batch))
            try:
                # The second point first: a model with a fixed grid refuses it at once.
                early = self._run(points[1])
                runs = [self._run(points[0]), early, *map(self._run, points[2:])]
                if not same_structure(runs):
                    raise TraceError("it takes another path at other sizes")
                symbols = {"batch": Symbol("batch", self.sizes["batch"])} if with_batch else {}
                symbols |= {s: Symbol(s, self.sizes[s], multiple_of=step, minimum=step) for s in spatial}
                return self._graph(runs, SizeLift(points, divisible=step > 1), symbols, points)
            except (TraceError, Unliftable) as error:
                reason = reason or str(error).strip().splitlines()[-1].strip()
        kept = " and ".join(f"{s} stays {self.sizes[s]}" for s in spatial)
        self.notes.append(f"{kept}: {reason}")
        return None

    def _points(self, spatial: Sequence[str], way: str, step: int, with_batch: bool) -> Iterator[dict[str, int]]:
        for i in range(5):
            point = {"batch": BATCH_PRIMES[0]} if with_batch else {}
            for position, name in enumerate(spatial):
                offset = _OFFSETS.get(name, _OTHER_OFFSETS[way])[i]
                point[name] = _shifted(self.sizes[name], offset, step, i, position)
            yield point

    # -- graph ---------------------------------------------------------------------------------

    def _graph(
        self, runs: list[RawTrace], lift: Any, symbols: dict[str, Symbol], points: list[dict[str, int]]
    ) -> OpGraph:
        parameters = {name: p.numel() for name, p in self.loaded.module.named_parameters()}
        graph = GraphBuilder(runs, lift, symbols, points).build(
            parameters=parameters,
            parameter_bytes_of=_bytes_by_dtype(self.loaded.module.parameters()),
            buffer_bytes_of=_bytes_by_dtype(self.loaded.module.buffers()),
            notes=tuple(dict.fromkeys([*self.loaded.notes, *self.notes])),
            layout=self.layout,
        )
        return graph.coded()


def _bytes_by_dtype(tensors: Iterable[torch.Tensor]) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in tensors:
        dtype = str(tensor.dtype).removeprefix("torch.")
        found[dtype] = found.get(dtype, 0) + tensor.numel() * tensor.element_size()
    return found


def _channels_last(leaf: Any) -> Any:
    is_image = isinstance(leaf, torch.Tensor) and leaf.dim() == 4
    return leaf.to(memory_format=torch.channels_last) if is_image else leaf


def _shifted(size: int, offset: int, step: int, run: int, position: int) -> int:
    """A size near ``size``; with a step, distinct multiples of it, in another order for each axis."""
    if step == 1:
        return max(size + offset, 1 + run)
    base = max(-(-size // step), 3)
    return step * (base + ((0, 1, -1, 14, 9), (0, 3, 2, -1, 11))[position % 2][run])


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
