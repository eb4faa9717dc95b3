"""OpGraph: the traced program as a DAG of operators, sizes exact and possibly symbolic.

Sizes live only in three tables, so that a graph with thousands of nodes is bound to new numbers by
evaluating a few hundred distinct expressions:

``specs``       distinct tensor specs,
``calls``       distinct operator calls: operator, arguments and results by spec,
``storages``    bytes of each allocation; views and in-place results share one.

Nodes and tensors only point into them. The same class holds codes (as read from a cache), sympy
expressions (:meth:`OpGraph.symbolic`) or integers (:meth:`OpGraph.bind`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from costmodel.domain import Domain, Symbol
from costmodel.errors import InputError
from costmodel.execution import WeightScheme
from costmodel.nodes import Assumption, Call, DimCode, OpNode, SpecRef, Storage, Tensor, has_dim, map_call, map_spec
from costmodel.symbols import LARGEST_SIZE, Binding, Code, checked_size, compile_codes, from_code, to_code
from costmodel.tensor import TensorSpec

if TYPE_CHECKING:
    import networkx

__all__ = ["OpGraph", "OpenSizes", "Symbol"]


@dataclass(frozen=True, slots=True)
class OpenSizes:
    """Where a graph of codes holds codes, and the function that evaluates them all.

    ``codes`` are all sizes of the open specs, numbers too, and the codes of calls and storages; ``specs`` say how the
    shape and the strides of a spec are picked out of their values; ``storages`` name the places of equal ones.
    """

    codes: list[Code]
    evaluate: Callable[[Binding], list[int]]
    specs: list[tuple[int, Callable[[Any], Any], Callable[[Any], Any]]]
    calls: list[int]
    storages: dict[Storage, list[int]]


#: Arguments that are the same in every binding.
_PLAIN = frozenset({int, float, bool, str, type(None)})


@dataclass
class OpGraph:
    """A traced program. See the module's text for its tables."""

    symbols: dict[str, Symbol]
    specs: list[TensorSpec]
    calls: list[Call]
    storages: list[Storage]
    tensors: list[Tensor]
    nodes: list[OpNode]
    inputs: list[int]
    outputs: list[int]
    parameters: dict[str, int] = field(default_factory=dict)
    """Name -> elements of every parameter of the module, shared ones once, unused ones included."""
    parameter_bytes_of: dict[str, int] = field(default_factory=dict)
    """Dtype -> B of the parameters that the module holds in it, shared ones once."""
    buffer_bytes_of: dict[str, int] = field(default_factory=dict)
    """The same of its buffers."""
    places: dict[str, int] = field(default_factory=dict, compare=False)
    """Path of a module that hangs in several places of the model -> how many."""
    gradients: dict[str, int] = field(default_factory=dict)
    """Of a training step: name of each parameter that is trained -> the tensor that ends as its gradient."""
    sparse_rows: dict[str, int] = field(default_factory=dict)
    """The same, where a gradient is sparse: its tensor holds values of some rows, and this one says which."""
    let_go: dict[int, int] = field(default_factory=dict, compare=False)
    """Storage -> the last node during which Python still held a tensor in it, of a run without autograd."""
    notes: tuple[str, ...] = ()
    assumed: tuple[Assumption, ...] = ()
    """Answers that the trace took for questions about values."""
    executed: str = ""
    """With which weights and inputs the model was run on this machine; "" for a static trace."""
    layout: str = "nchw"
    """Memory format of images and weights in the traced run: strides follow from it."""
    device: str = ""
    """Kind of device ("cuda", "cpu") that the model was told it runs on, where it asked; "": it never did."""
    weights: WeightScheme | None = None
    """How the model's configuration says that its weights are stored, where that is narrower than they are traced."""
    batch: int | None = None
    """The batch that the sizes are for, where it is a number and not a symbol."""
    domain: Domain | None = None
    """Where a run of the model made the very calls that this graph says; None where nobody kept a list."""
    general: OpGraph | None = field(default=None, compare=False, repr=False)
    """Where this graph is a special case (a batch of one that copies less, say): the one that leaves sizes open."""
    origin: tuple[OpGraph, Mapping[str, int]] | None = field(default=None, compare=False, repr=False)
    """Of a graph in numbers: the graph of codes that was bound, and the sizes."""
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What others derived from the structure alone; shared by every binding of the same graph."""

    # -- sizes ---------------------------------------------------------------------------------

    def _map_dims(self, convert: Callable[[Any], Any]) -> OpGraph:
        return OpGraph(
            symbols=self.symbols,
            specs=[map_spec(spec, convert) for spec in self.specs],
            calls=[map_call(call, convert) for call in self.calls],
            storages=[Storage(convert(s.nbytes), s.dtype, s.role) for s in self.storages],
            tensors=self.tensors,
            nodes=self.nodes,
            inputs=self.inputs,
            outputs=self.outputs,
            parameters=self.parameters,
            parameter_bytes_of=self.parameter_bytes_of,
            buffer_bytes_of=self.buffer_bytes_of,
            places=self.places,
            gradients=self.gradients,
            sparse_rows=self.sparse_rows,
            let_go=self.let_go,
            notes=self.notes,
            assumed=self.assumed,
            executed=self.executed,
            layout=self.layout,
            device=self.device,
            weights=self.weights,
            batch=self.batch,
            domain=self.domain,
            general=self.general,
            memo=self.memo,
        )

    def sizes(self) -> Iterator[Any]:
        """Every size of the three tables."""
        seen: list[Any] = []

        def note(dim: Any) -> Any:
            seen.append(dim)
            return dim

        self._map_dims(note)
        yield from seen

    def symbolic(self) -> OpGraph:
        """The graph with sympy expressions for sizes (integers stay integers)."""
        known: dict[Code, Any] = {}
        return self._map_dims(lambda dim: known[dim] if dim in known else known.setdefault(dim, _as_dim(dim)))

    def coded(self) -> OpGraph:
        """The graph with codes for sizes, fit for a cache file."""
        known: dict[Any, Code] = {}
        return self._map_dims(lambda dim: known[dim] if dim in known else known.setdefault(dim, to_code(dim)))

    @property
    def open_sizes(self) -> OpenSizes:
        """The sizes that a binding changes, found once: most calls and weights hold none.

        Raises ValueError where a code is not integer arithmetic.
        """
        known = self.memo.get("open sizes")
        if known is None:
            specs = [i for i, s in enumerate(self.specs) if any(isinstance(d, str) for d in _sizes_of(s))]
            sizes = [
                *(size for i in specs for size in _sizes_of(self.specs[i])),
                *(code for code in self.sizes() if isinstance(code, str)),
            ]
            codes: list[Code] = list(dict.fromkeys(sizes))
            place = {code: i for i, code in enumerate(codes)}
            storages: dict[Storage, list[int]] = {}
            for i, storage in enumerate(self.storages):
                if isinstance(storage.nbytes, str):
                    storages.setdefault(storage, []).append(i)
            known = self.memo["open sizes"] = OpenSizes(
                codes=codes,
                evaluate=compile_codes(codes, list(self.symbols)),
                specs=[(i, _picker(self.specs[i].shape, place), _picker(self.specs[i].strides, place)) for i in specs],
                calls=[i for i, c in enumerate(self.calls) if has_dim(c.arguments)],
                storages=storages,
            )
        return known

    def bind(self, binding: Binding) -> OpGraph:
        """The graph in numbers. Works on a graph of codes; sizes not named take their default.

        Raises InputError for an unknown symbol or a size outside its domain.
        """
        full = self.check_binding(binding)
        found = self.open_sizes
        values = found.evaluate(full)
        value = dict(zip(found.codes, values, strict=True))

        def number(dim: Any) -> Any:
            return value[dim] if isinstance(dim, str) else dim

        bound = replace(
            self,
            specs=self.specs.copy(),
            calls=self.calls.copy(),
            storages=self.storages.copy(),
            origin=(self, full),
        )
        for i, shape, strides in found.specs:
            spec = self.specs[i]
            bound.specs[i] = TensorSpec(shape(values), spec.dtype, spec.role, spec.name, strides(values))
        for i in found.calls:
            bound.calls[i] = map_call(self.calls[i], number)
        largest = 0
        for storage, places in found.storages.items():
            nbytes = number(storage.nbytes)
            largest = max(largest, nbytes)
            sized = Storage(nbytes, storage.dtype, storage.role)
            for i in places:
                bound.storages[i] = sized
        if largest > LARGEST_SIZE:
            asked = ", ".join(f"{name} {size}" for name, size in full.items())
            raise InputError(f"at {asked} one tensor takes {largest} B: PyTorch counts up to {LARGEST_SIZE}")
        return bound

    def holds_at(self, sizes: Binding) -> bool:
        """Whether a run of the model at these sizes (defaults for those not named) is known to make these calls.

        A graph in which nobody kept a list of such sizes holds everywhere.
        """
        if self.domain is None:
            return True
        full = {name: sizes.get(name, symbol.default) for name, symbol in self.symbols.items()}
        return self.domain.holds(full)

    def check_binding(self, binding: Binding) -> dict[str, int]:
        """``binding`` completed with defaults, or InputError with the symbol, what is allowed and why."""
        full = {name: symbol.default for name, symbol in self.symbols.items()}
        for name, value in binding.items():
            if name not in self.symbols:
                there = ", ".join(self.symbols) or "none"
                raise InputError(f"this graph has no symbol {name!r} to set to {value}\n  its symbols are: {there}")
            symbol = self.symbols[name]
            if checked_size(name, value) < symbol.minimum:
                raise InputError(f"{name} must be a whole number of at least {symbol.minimum}, not {value!r}")
            if symbol.maximum is not None and value > symbol.maximum:
                raise InputError(f"{name} {value} is more than the {symbol.maximum} that this model can take")
            if value % symbol.multiple_of:
                raise InputError(f"{name} must be a multiple of {symbol.multiple_of} for this model, not {value}")
            full[name] = value
        return full

    def serves(self, batch: int | None, sizes: Binding, *, verified: bool = True) -> bool:
        """Whether this graph answers for a batch (None: its own) and sizes: it leaves them open, they lie in its
        domain and it holds there; or they are the numbers it has. ``verified=False``: whether it might hold or not."""
        if batch is not None and "batch" not in self.symbols and batch != self._own_batch:
            return False
        fixed = {name: size for name, size in sizes.items() if name not in self.symbols}
        if fixed and not self._is_traced_at(fixed):
            return False
        asked = {name: size for name, size in sizes.items() if name in self.symbols}
        if batch is not None and "batch" in self.symbols:
            asked["batch"] = batch
        if not all(self.symbols[name].allows(size) for name, size in asked.items()):
            return False
        return not verified or self.holds_at(asked)

    @property
    def _own_batch(self) -> int | None:
        """The batch of a graph that keeps it as a number; what all inputs lead with, in graphs that do not say."""
        if self.batch is not None:
            return self.batch
        leading = {self.specs[self.tensors[i].spec].shape[:1] for i in self.inputs}
        first = leading.pop() if len(leading) == 1 else ()
        return first[0] if first else None

    def _is_traced_at(self, sizes: Binding) -> bool:
        """Whether the images that go in have these sizes as numbers (a fixed-size model at its own size)."""
        shapes = [self.specs[self.tensors[i].spec].shape for i in self.inputs]
        side = (sizes.get("height"), sizes.get("width"))
        return set(sizes) == {"height", "width"} and all(tuple(s[-2:]) == side for s in shapes if len(s) == 4)

    # -- calls ---------------------------------------------------------------------------------

    def arguments(self, call: Call) -> dict[str, Any]:
        """Arguments of a call by schema name, tensors as specs, sizes as they are in this graph."""
        return {name: v if type(v) in _PLAIN else self._resolve(v) for name, v in call.arguments}

    def results(self, call: Call) -> Any:
        """The result's spec, or a tuple of specs where the operator has several."""
        if len(call.outputs) == 1:
            return self._resolve(call.outputs[0])
        return tuple(self._resolve(value) for value in call.outputs)

    def _resolve(self, value: Any) -> Any:
        if type(value) is SpecRef:
            return self.specs[value.spec]
        if type(value) is DimCode:
            return value.dim
        if type(value) is tuple:
            return [self._resolve(v) for v in value]
        return value

    @property
    def call_counts(self) -> list[int]:
        """How many nodes make each distinct call."""
        counts: list[int] | None = self.memo.get("call counts")
        if counts is None:
            counts = self.memo["call counts"] = [0] * len(self.calls)
            for node in self.nodes:
                counts[node.call] += 1
        return counts

    # -- data flow -----------------------------------------------------------------------------

    @property
    def param_count(self) -> int:
        """Elements of all parameters, shared ones once."""
        return sum(self.parameters.values())

    @property
    def parameter_bytes(self) -> int:
        """B of all parameters as the module holds them, shared ones once."""
        return sum(self.parameter_bytes_of.values())

    @property
    def own_dtype(self) -> str:
        """The dtype in which the module holds most of its floating weights: "float32", "float16" or "bfloat16"."""
        held = {dtype: self.parameter_bytes_of.get(dtype, 0) for dtype in ("float32", "bfloat16", "float16")}
        return max(held, key=lambda dtype: held[dtype])

    @property
    def synchronizing(self) -> frozenset[int]:
        """Nodes whose result the host reads, for which it waits."""
        known: frozenset[int] | None = self.memo.get("synchronizing")
        if known is None:
            known = self.memo["synchronizing"] = frozenset(i for i, n in enumerate(self.nodes) if n.synchronizes)
        return known

    def predecessors(self, index: int) -> list[int]:
        """Nodes that must run before node ``index``, in program order, each once."""
        node = self.nodes[index]
        makers = {self.tensors[t].producer for t in node.inputs} | set(node.after)
        return sorted(m for m in makers if m is not None)

    def networkx(self) -> networkx.DiGraph:
        """The DAG: a node per operator (attributes ``node``, ``op``, ``module``, ``arguments``, ``outputs``),
        an edge per data flow (attribute ``tensors``: the specs that pass; empty for a pure ordering)."""
        import networkx

        graph = networkx.DiGraph(symbols=dict(self.symbols))
        for node in self.nodes:
            call = self.calls[node.call]
            graph.add_node(
                node.name,
                node=node,
                op=node.op,
                module=node.module,
                arguments=self.arguments(call),
                outputs=self.results(call),
            )
        for index, node in enumerate(self.nodes):
            for before in self.predecessors(index):
                passed = [
                    replace(self.specs[self.tensors[t].spec], name=self.tensors[t].name)
                    for t in node.inputs
                    if self.tensors[t].producer == before
                ]
                graph.add_edge(self.nodes[before].name, node.name, tensors=passed)
        return graph


def _as_dim(code: Any) -> Any:
    return from_code(code) if isinstance(code, str) else code


def _sizes_of(spec: TensorSpec) -> tuple[Any, ...]:
    return spec.shape if spec.strides is None else (*spec.shape, *spec.strides)


def _picker(sizes: Sequence[Any] | None, place: Mapping[Any, int]) -> Callable[[Any], Any]:
    """What picks ``sizes`` out of a list in which each has its place."""
    if sizes is None:
        return lambda values: None
    if len(sizes) < 2:  # itemgetter would give the item itself
        return lambda values: tuple([values[place[size]] for size in sizes])
    return itemgetter(*[place[size] for size in sizes])
