"""compiled_plan(): the kernels of ``torch.compile`` (Inductor) on a GPU.

Contractions are the libraries' kernels as in eager mode, in channels_last and without bias and conversion kernels.
Everything between them is generated: stored results with the same loops that feed each other or read the same tensor
become one kernel, which reads each outside tensor once and writes only what somebody outside reads
(``torch/_inductor/scheduler.py``, ``can_fuse`` and ``fuse_nodes_once``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from costmodel.engines.inductor.buffers import lower_to_buffers
from costmodel.engines.inductor.kinds import prefers_channels_last, unrolled_terms
from costmodel.engines.inductor.schedule import Scheduler
from costmodel.engines.inductor.stored import Lowered
from costmodel.execution import Execution
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.calls import Calls, run_dtypes, typed_call
from costmodel.kernels.contractions import PRODUCTS, factors, gemm_ready
from costmodel.kernels.eager import eager_kernels
from costmodel.kernels.node_dtypes import NodeDtypes
from costmodel.kernels.operator import Operator, copy_kernel, is_dense
from costmodel.kernels.plan import Kernel, KernelPlan, Launch, Read
from costmodel.nodes import SpecRef
from costmodel.symbols import product
from costmodel.tensor import ITEMSIZE_BYTES, Role, TensorSpec

__all__ = ["compiled_plan"]

#: Kernels of eager mode that compiled code does without: copies fuse, layouts agree, bias is pointwise.
_NOT_RUN = frozenset({"contiguous_copy", "nchw_to_nhwc", "nhwc_to_nchw", "bias"})


def compiled_plan(graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
    """Kernels of one compiled step of ``graph`` (bound to numbers), in an order that respects their data flow.

    A launch names the nodes whose arithmetic it is the first to do; one that only computes again what others have
    inlined names the node whose result it stores. FLOPs count wherever they are done. A convolution with a bias is
    named twice, by its own kernel and by the one that adds the bias. Nodes whose result nobody uses are in no launch.
    Raises FormulaError when a formula fails.
    """
    structure = _structure(graph, execution)
    sizes = _Sizes(graph, execution, hardware, structure)
    kernels: list[Kernel] = []
    of_recipe: list[range] = []
    for recipe in structure.recipes:
        run = sizes.extern(recipe) if recipe.kind == "extern" else (sizes.fused(recipe),)
        of_recipe.append(range(len(kernels), len(kernels) + len(run)))
        kernels += run
    return KernelPlan(tuple(kernels), structure.launches(of_recipe), structure.storages.nbytes(graph))


@dataclass(frozen=True, slots=True)
class _Recipe:
    """All that decides a kernel but sizes; launches with equal recipes share their kernels."""

    kind: str
    op: str
    space: int
    reads: tuple[tuple[int, tuple[int, ...], int, bool], ...]
    """Per outside tensor: its spec, the specs of the parts read (empty: all of it), bytes of an element, and whether
    several elements of it go into one element of the loops."""
    writes: tuple[tuple[int, int], ...]
    """Per stored tensor: its spec, bytes of an element."""
    calls: tuple[tuple[int, NodeDtypes, bool], ...]
    """Per node computed: call, dtypes, and whether it is only the bias of that call."""
    lying: tuple[bool, ...] = ()
    """Of a library's kernel: for each operand whether it lay in memory before."""


@dataclass(frozen=True, slots=True)
class _Structure:
    recipes: tuple[_Recipe, ...]
    starts: tuple[tuple[int, Launch], ...]
    """(recipe, a launch with the recipe's place for its kernel) in an order that respects the data flow."""
    storages: _Storages
    channels_last: bool
    memo: dict[tuple[range, ...], tuple[Launch, ...]]

    def launches(self, of_recipe: list[range]) -> tuple[Launch, ...]:
        """Launches in order, where ``of_recipe[i]`` are the kernels of the i-th recipe."""
        which = tuple(of_recipe)
        if which not in self.memo:
            self.memo[which] = tuple(replace(s, kernel=k) for recipe, s in self.starts for k in of_recipe[recipe])
        return self.memo[which]


def _structure(graph: OpGraph, execution: Execution) -> _Structure:
    """Stored results depend on sizes by which reductions are short, groups by which loops are equally long: kept for
    that pattern."""
    unrolled = tuple(call for call in range(len(graph.calls)) if unrolled_terms(graph, call))
    conditions = (execution.precision, execution.software, unrolled, prefers_channels_last(graph))
    lowered: _Lowered | None = graph.memo.get(("fusion", conditions))
    if lowered is None:
        lowered = graph.memo["fusion", conditions] = _lower(graph, execution, channels_last=conditions[-1])
    counts = {spec: product(graph.specs[spec].shape) for spec in lowered.loops}
    first: dict[Any, int] = {}
    pattern = tuple(first.setdefault(n, len(first)) for n in counts.values())
    known: _Structure | None = graph.memo.get(("fusion", conditions, pattern))
    if known is None:
        known = graph.memo["fusion", conditions, pattern] = _group(graph, lowered, counts)
    return known


@dataclass(frozen=True, slots=True)
class _Lowered:
    """What does not depend on sizes: stored results, dtypes, and the specs that loops run over."""

    stored: Lowered
    dtypes: tuple[NodeDtypes, ...]
    loops: tuple[int, ...]
    channels_last: bool


def _lower(graph: OpGraph, execution: Execution, *, channels_last: bool) -> _Lowered:
    dtypes = run_dtypes(graph, execution)
    stored = lower_to_buffers(graph, execution, dtypes, channels_last=channels_last)
    loops = {spec for buffer in stored.buffers for spec in (buffer.space, buffer.rows)} - {-1}
    return _Lowered(stored, tuple(dtypes), tuple(sorted(loops)), channels_last)


def _group(graph: OpGraph, lowered: _Lowered, counts: Mapping[int, Any]) -> _Structure:
    recipes: dict[_Recipe, int] = {}
    starts = []
    storages = _Storages(graph, lowered.stored)
    for group in Scheduler(lowered.stored, counts).run():
        recipe = _recipe(graph, lowered.stored, group, lowered.dtypes)
        nodes = _nodes(lowered.stored, group)
        launch = Launch(0, nodes, storages.read(group), storages.written(group))
        starts.append((recipes.setdefault(recipe, len(recipes)), launch))
    return _Structure(tuple(recipes), tuple(starts), storages, lowered.channels_last, {})


def _nodes(lowered: Lowered, group: list[int]) -> tuple[int, ...]:
    """Nodes whose arithmetic a group does first; where it does none, the one that needs its copy."""
    found = dict.fromkeys(max(n, ~n) for b in group for n in lowered.buffers[b].nodes)
    return tuple(found) or (lowered.buffers[group[0]].asked_by,)


class _Storages:
    """Where the values of a compiled step lie: in the graph's storages, or in some that only this run has.

    The latter, numbered from the last of the graph's on, hold what no tensor of the graph is: stored casts, and
    convolutions before their bias is added.
    """

    def __init__(self, graph: OpGraph, lowered: Lowered) -> None:
        self.lowered, self.tensors, self.count = lowered, graph.tensors, len(graph.storages)
        self.made: dict[int, int] = {}  # root value -> storage
        self.dtype_of: dict[int, str] = {}  # storage -> dtype of what lies in it; others are never stored
        for index, tensor in enumerate(graph.tensors):
            if tensor.producer is None:
                self.dtype_of[tensor.storage] = lowered.values[index].dtype

    def _of(self, root: int) -> int:
        if root < len(self.tensors):
            return self.tensors[root].storage
        return self.made.setdefault(root, self.count + len(self.made))

    def read(self, group: list[int]) -> tuple[Read, ...]:
        """What a group loads from outside."""
        values = self.lowered.values
        found = []
        for root, parts in _outside(self.lowered, group).items():
            shown = (root,) if root in parts else sorted(parts)
            found += [Read(self._of(root), values[value].spec) for value in shown]
        return tuple(dict.fromkeys(found))

    def written(self, group: list[int]) -> tuple[int, ...]:
        """What a group stores for others."""
        values = self.lowered.values
        roots = dict.fromkeys(values[value].root for value in _stored(self.lowered, group))
        for root in roots:
            self.dtype_of[self._of(root)] = values[root].dtype
        return tuple(dict.fromkeys(map(self._of, roots)))

    def nbytes(self, graph: OpGraph) -> tuple[float, ...]:
        """B of each storage, 0 where its value is never stored."""
        found = [0.0] * (self.count + len(self.made))
        for storage, dtype in self.dtype_of.items():
            if storage < self.count:
                traced = graph.storages[storage]
                scale = ITEMSIZE_BYTES.get(dtype, 1) / ITEMSIZE_BYTES.get(traced.dtype, 1)
                found[storage] = traced.nbytes * scale
        for root, storage in self.made.items():
            value = self.lowered.values[root]
            numel: int = graph.specs[value.spec].numel  # type: ignore[assignment]
            found[storage] = numel * ITEMSIZE_BYTES.get(value.dtype, 1)
        return tuple(found)


# -- recipes and sizes ---------------------------------------------------------------------------


#: Kinds by how much they say of a kernel: the first that occurs in a group names it.
_MAIN_KINDS = ("extern", "norm", "softmax", "statistics", "reduction", "outer_reduction", "pool", "pointwise")


def _recipe(graph: OpGraph, lowered: Lowered, group: list[int], dtypes: Sequence[NodeDtypes]) -> _Recipe:
    buffers = [lowered.buffers[b] for b in group]
    kinds = {b.kind for b in buffers}
    kind = next((k for k in _MAIN_KINDS if k in kinds), "cast")
    main = max((b for b in buffers if b.kind == kind), key=lambda b: b.space)
    nodes = dict.fromkeys(n for b in buffers for n in (*b.nodes, *b.again))  # once a kernel, whoever asks
    calls = tuple((graph.nodes[max(n, ~n)].call, dtypes[max(n, ~n)], n < 0) for n in nodes)
    op = "aten._to_copy" if kind == "cast" else graph.nodes[_nodes(lowered, group)[-1]].op
    if kind == "extern":
        return _Recipe(kind, op, -1, (), (), calls, main.lying)
    return _Recipe(kind, op, main.space, _reads(lowered, group), _writes(lowered, group), calls)


def _outside(lowered: Lowered, group: list[int]) -> dict[int, set[int]]:
    """Per value in memory that a group loads and does not make itself, by root: the parts of it that are read."""
    inside = set(group)
    parts: dict[int, set[int]] = {}
    for b in group:
        for value in lowered.buffers[b].reads:
            parts.setdefault(lowered.values[value].root, set()).add(value)
    return {
        root: values
        for root, values in parts.items()
        if lowered.values[root].spec >= 0
        and not ((makers := lowered.makers.get(root, ())) and inside.issuperset(makers))
    }


def _stored(lowered: Lowered, group: list[int]) -> Iterator[int]:
    """Values that a group makes and others read."""
    inside = set(group)
    for b in group:
        for value in lowered.buffers[b].writes:
            known = lowered.values[value]
            if known.spec >= 0 and (known.root in lowered.kept or not inside.issuperset(lowered.readers[known.root])):
                yield value


def _reads(lowered: Lowered, group: list[int]) -> tuple[tuple[int, tuple[int, ...], int, bool], ...]:
    found = []
    apart = frozenset[int]().union(*(lowered.buffers[b].apart for b in group))
    for root, values in _outside(lowered, group).items():
        memory = lowered.values[root]
        specs = () if root in values else tuple(lowered.values[v].spec for v in values)
        found.append((memory.spec, specs, ITEMSIZE_BYTES.get(memory.dtype, 1), root in apart))
    return tuple(sorted(found))


def _writes(lowered: Lowered, group: list[int]) -> tuple[tuple[int, int], ...]:
    found = [lowered.values[value] for value in _stored(lowered, group)]
    return tuple(sorted((known.spec, ITEMSIZE_BYTES.get(known.dtype, 1)) for known in found))


class _Sizes:
    """Numbers for the recipes of one binding."""

    def __init__(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile, structure: _Structure) -> None:
        self.graph, self.structure, self.calls = graph, structure, Calls(graph, execution, hardware)
        self.looked_up = dict(self._looked_up())

    def _looked_up(self) -> Iterator[tuple[int, Any]]:
        """Specs of weights that something is looked up in, and the elements that are taken of them."""
        for call in self.graph.calls:
            if call.op in _LOOKUPS:
                table = next((value.spec for _, value in call.arguments if isinstance(value, SpecRef)), -1)
                if self.graph.specs[table].role is Role.PARAMETER:
                    yield table, self.graph.results(call).numel

    def extern(self, recipe: _Recipe) -> tuple[Kernel, ...]:
        """A library's kernel on operands that lie as it wants them."""
        ((call, types, _),) = recipe.calls
        if "conv" in recipe.op:
            return self._convolution(*typed_call(self.graph, call, types))
        operator = self.calls.operator(call, types)
        eager = eager_kernels(operator)
        if recipe.op == "aten.scaled_dot_product_attention" and len(eager) > 1:
            return _math_attention(eager)
        bias = sum(k.vector_flops for k in eager if k.algorithm == "bias")  # rides in the epilogue
        kernels = [k for k in eager if k.algorithm not in _NOT_RUN]
        run = [replace(k, vector_flops=k.vector_flops + bias) if k is kernels[-1] else k for k in kernels]
        return (*self._copies(operator, recipe.lying), *run)

    def _copies(self, operator: Operator, lying: tuple[bool, ...]) -> Iterator[Kernel]:
        """Factors that a product cannot take as they lie: a view of several dimensions that do not merge into one
        batch is cloned (``reshape`` in the decomposition of ``matmul``); what was no more than an expression is stored
        in the right place at once."""
        if operator.name not in PRODUCTS:
            return
        first = 1 if operator.name in ("baddbmm", "addmm") else 0
        for factor, lay in zip(factors(operator), lying[first:], strict=False):
            if lay and not gemm_ready(factor):
                yield copy_kernel(operator.op, factor)

    def _convolution(self, op: str, arguments: dict[str, Any], results: Any) -> tuple[Kernel, ...]:
        """Without bias, in Inductor's layout; cuDNN still copies a slice of a larger tensor before it."""
        x: TensorSpec = arguments["input"]
        arguments = {**arguments, "bias": None}
        if self.structure.channels_last:
            arguments, results = {**arguments, "input": _channels_last(x)}, _channels_last(results)
        kernels = eager_kernels(self.calls.like(op, arguments, results))
        copy = () if is_dense(x) else (_copy(op, x),)
        return copy + tuple(k for k in kernels if k.algorithm not in _NOT_RUN)

    def _vector_flops(self, index: int, types: NodeDtypes, bias: bool) -> Any:
        """FLOP of a node in a generated kernel; of a convolution only the addition of its bias."""
        if bias:
            return self.graph.results(self.graph.calls[index]).numel
        return self.calls.operator(index, types).cost.vector_flops

    def fused(self, recipe: _Recipe) -> Kernel:
        """A generated kernel: bytes of what crosses its border."""
        specs = self.graph.specs
        elements: Any = specs[recipe.space].numel
        flops = sum(self._vector_flops(*call) for call in recipe.calls)
        most = {False: elements if recipe.kind == "pointwise" else None, True: None}
        read = sum(self._read(whole, parts, size, most[apart]) for whole, parts, size, apart in recipe.reads)
        written: Any = sum(specs[spec].numel * size for spec, size in recipe.writes)
        return Kernel(
            op=recipe.op, algorithm=_ALGORITHM[recipe.kind], vector_flops=flops, bytes_read=read,
            bytes_written=written, access=_ACCESS.get(recipe.kind, "elementwise"), elements=elements,
            dtype="fp64" if flops and specs[recipe.space].dtype == "float64" else "fp32",
        )  # fmt: skip

    def _read(self, whole: int, parts: tuple[int, ...], size: int, most: int | None) -> Any:
        """Bytes of one outside tensor: all of it, or its parts, ``most`` elements of each; of a lookup those taken."""
        specs = self.graph.specs
        shown: list[Any] = [specs[part].numel for part in parts or (whole,)]
        if whole in self.looked_up:
            shown = [min(n, self.looked_up[whole]) for n in shown]
        elif most is not None:
            shown = [min(n, most) for n in shown]
        numel: Any = specs[whole].numel
        return size * min(numel, sum(shown))


#: Operators that take some places of their first tensor.
_LOOKUPS = frozenset({"aten.embedding", "aten.index", "aten.index_select", "aten.gather"})
#: Rates of the time model. Rows that are normalized stay in registers and stream like pointwise kernels.
_ACCESS = {"pool": "pooling", "reduction": "reduction", "outer_reduction": "reduction", "statistics": "reduction"}
_ALGORITHM = {
    "norm": "fused_normalization",
    "softmax": "fused_softmax",
    "statistics": "fused_reduction",
    "reduction": "fused_reduction",
    "outer_reduction": "fused_reduction",
    "pool": "fused_pool",
    "pointwise": "fused_elementwise",
    "cast": "cast",
}


def _math_attention(eager: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    """Products and one softmax: checks of empty rows fuse into it, the result's cast into whoever reads it."""
    *before, last = (k for k in eager if k.algorithm not in ("elementwise", "reduction"))
    return (*before, last) if last.matrix_flops else tuple(before)


def _copy(op: str, spec: TensorSpec) -> Kernel:
    """Every element read and written once."""
    nbytes: Any = spec.numel * spec.itemsize
    elements: Any = spec.numel
    return Kernel(op=op, algorithm="contiguous_copy", bytes_read=nbytes, bytes_written=nbytes, elements=elements)


def _channels_last(spec: TensorSpec) -> TensorSpec:
    """The same tensor as (N, H, W, C)."""
    if len(spec.shape) != 4:
        return spec
    _, channels, height, width = spec.shape
    strides = (channels * height * width, 1, width * channels, channels)
    return replace(spec, strides=strides)
