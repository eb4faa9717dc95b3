"""eager_plan(): a bound graph becomes the kernels of one step, every operator by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from costmodel.cost import Cost
from costmodel.errors import CostmodelError, FormulaError
from costmodel.execution import Execution, NodePhase, Precision
from costmodel.formulas import cost_or_default, is_free
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile
from costmodel.kernels.answers import Answers, answers_of, shared_plan, would_tell
from costmodel.kernels.by_batch import Affine, NotAffine, Region, by_batch
from costmodel.kernels.calls import Calls, run_dtypes, storage_scale, typed_call
from costmodel.kernels.families import EAGER_KERNELS
from costmodel.kernels.node_dtypes import NodeDtypes, weight_of
from costmodel.kernels.plan import Kernel, KernelPlan, Launch, Read, storages_of, stored_bytes
from costmodel.kernels.precision import casts_nothing
from costmodel.nodes import OpNode
from costmodel.symbols import product
from costmodel.tensor import ITEMSIZE_BYTES

__all__ = ["eager_plan", "run_costs"]


def eager_plan(graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> KernelPlan:
    """Kernels of one step of ``graph`` (bound to numbers), in program order.

    Views launch nothing. Casts that autocast inserts are kernels of their own, ahead of the node that
    asked for them. Raises FormulaError when a formula fails.
    """
    return shared_plan(graph, execution, hardware, lambda *conditions: _Lowering(*conditions).run())


@dataclass(frozen=True, slots=True)
class _Structure:
    """What lowering needs and sizes do not change: the distinct calls by run-time dtype, and who makes them when."""

    dtypes: tuple[NodeDtypes, ...]
    keys: tuple[tuple[Any, ...], ...]  # ("call", index, dtypes) or ("cast", tensor, from, to)
    starts: tuple[tuple[int, Launch], ...]  # (key, a launch with the key's place for its kernel) in program order
    storage_scale: tuple[float, ...]
    copies: _Copies
    memo: dict[tuple[range, ...], tuple[Launch, ...]]

    def launches(self, of_key: list[range]) -> tuple[Launch, ...]:
        """Launches in program order, where ``of_key[i]`` are the kernels of the i-th key."""
        which = tuple(of_key)
        if which not in self.memo:
            self.memo[which] = tuple(replace(start, kernel=k) for key, start in self.starts for k in of_key[key])
        return self.memo[which]


def _structure(graph: OpGraph, execution: Execution) -> _Structure:
    key = ("lowering", execution.precision, execution.software)
    known: _Structure | None = graph.memo.get(key)
    if known is None:
        known = graph.memo[key] = _find_structure(graph, run_dtypes(graph, execution), execution.precision)
    return known


def _find_structure(graph: OpGraph, dtypes: Sequence[NodeDtypes], precision: Precision) -> _Structure:
    keys: dict[tuple[Any, ...], int] = {}
    starts: list[tuple[int, Launch]] = []
    copies, released = _Copies(graph), {graph.tensors[t].storage for t in graph.gradients.values()}
    for index, (node, types) in enumerate(zip(graph.nodes, dtypes, strict=True)):
        reads, writes = storages_of(graph, (index,))
        for position in types.casts:
            tensor = graph.tensors[node.inputs[position]]
            kept = tensor.storage in released and is_free(node.op)  # a view, which a weight's gradient ends as
            copy = copies.make(node.inputs[position], types.inputs[position], kept=kept)
            source = Read(tensor.storage, tensor.spec)
            cast = ("cast", tensor.spec, types.had[position], types.inputs[position])
            starts.append((keys.setdefault(cast, len(keys)), Launch(0, (index,), (source,), (copy,))))
        if not is_free(node.op) and not casts_nothing(graph, node, types):
            call = ("call", node.call, types)
            held = tuple(read.storage for read in reads)
            reads = copies.instead(index, node, types, reads)
            if copies.gradients and node.phase is NodePhase.OPTIMIZER:  # sees .grad, and not what that was cast from
                held = tuple(storage for storage in held if storage not in copies.gradients)
                writes = tuple(copies.gradients.get(storage, storage) for storage in writes)
            starts.append((keys.setdefault(call, len(keys)), Launch(0, (index,), reads, writes, held)))
        for position, dtype in types.released:
            tensor = graph.tensors[node.outputs[position]]
            source, copy = Read(tensor.storage, tensor.spec), copies.make(node.outputs[position], dtype, kept=True)
            cast = ("cast", tensor.spec, types.outputs[position], dtype)
            starts.append((keys.setdefault(cast, len(keys)), Launch(0, (index,), (source,), (copy,))))
    scale = storage_scale(graph, dtypes, precision)
    return _Structure(tuple(dtypes), tuple(keys), tuple(starts), scale, copies, {})


class _Copies:
    """What casts write: storages that only the run has, numbered from the last of the graph's on.

    A weight's copy is kept until autocast ends, and a gradient's to the end of the step; any other until its operator
    has run, or the backward node that reads it again. So is that of a weight which a checkpoint casts once more: the
    autocast of either time ends before the step does.
    """

    def __init__(self, graph: OpGraph) -> None:
        self.graph, self.first = graph, len(graph.storages)
        self.made: list[tuple[int, str]] = []  # of each: spec of the tensor, dtype of the copy
        self.of_weight: dict[int, int] = {}  # storage of a weight, or of what ends as a gradient -> its copy
        self.cast_again: set[int] = set()  # weights that were cast more than once
        self.of_operand: dict[int, int] = {}  # tensor of the node at hand -> its copy
        self.gradients: dict[int, int] = {}  # storage of what ends as a gradient -> its copy
        self.saved: dict[tuple[int | None, int], int] = {}  # node, storage -> the copy of it that the node read

    def make(self, tensor: int, dtype: str, *, kept: bool = False) -> int:
        """The storage of a new copy of a tensor, ``kept`` to the end of the step."""
        storage = self.first + len(self.made)
        self.made.append((self.graph.tensors[tensor].spec, dtype))
        weight = self.graph.tensors[tensor].storage if kept else weight_of(self.graph, tensor)
        if kept:
            self.gradients[self.graph.tensors[tensor].storage] = storage
        if weight is not None:
            if weight in self.of_weight:
                self.cast_again.add(weight)
            self.of_weight[weight] = storage
        else:
            self.of_operand[tensor] = storage
        return storage

    def instead(self, index: int, node: OpNode, types: NodeDtypes, reads: tuple[Read, ...]) -> tuple[Read, ...]:
        """What the ``index``-th node reads once its casts have run: their copies, those of weights that were cast
        before, and of a backward node those that its forward node read."""
        if not self.of_operand and not self.of_weight:
            return reads
        found = []
        for position, operand in enumerate(node.inputs):
            tensor = self.graph.tensors[operand]
            copy = self.of_operand.get(operand) if position in types.casts else None
            if copy is not None:
                self.saved[index, tensor.storage] = copy
            for known in (self.of_weight.get(tensor.storage), self.saved.get((node.forward, tensor.storage))):
                if copy is None and known is not None and types.inputs[position] == self.made[known - self.first][1]:
                    copy = known
            found.append(Read(tensor.storage if copy is None else copy, tensor.spec))
        self.of_operand.clear()
        return tuple(dict.fromkeys(found))

    @property
    def held(self) -> frozenset[int]:
        """Copies that live to the end of the step."""
        return frozenset(copy for weight, copy in self.of_weight.items() if weight not in self.cast_again)

    def nbytes(self, graph: OpGraph) -> tuple[int, ...]:
        """B of each copy, at the sizes of ``graph``."""
        return tuple(product(graph.specs[spec].shape) * ITEMSIZE_BYTES[dtype] for spec, dtype in self.made)  # type: ignore[misc]


def run_costs(graph: OpGraph, execution: Execution) -> list[Cost]:
    """Cost of every node in the dtypes of the run: compulsory traffic, whatever machine and kernels."""
    structure = _structure(graph, execution)
    known: dict[tuple[int, NodeDtypes], Cost] = {}
    costs = []
    for node, types in zip(graph.nodes, structure.dtypes, strict=True):
        key = (node.call, types)
        if key not in known:
            known[key] = cost_or_default(*typed_call(graph, node.call, types))
        costs.append(known[key])
    return costs


class _Lowering:
    """Lowers each distinct call of a structure once."""

    def __init__(self, graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> None:
        self.graph, self.execution, self.hardware = graph, execution, hardware
        self.calls, self.kernels_of = Calls(graph, execution, hardware), EAGER_KERNELS.of(hardware)

    def run(self) -> KernelPlan:
        structure = _structure(self.graph, self.execution)
        kernels: list[Kernel] = []
        of_key: list[range] = []
        for run in self._kernels(structure):
            of_key.append(range(len(kernels), len(kernels) + len(run)))
            kernels += run
        return KernelPlan(
            tuple(kernels),
            structure.launches(of_key),
            stored_bytes(self.graph, structure.storage_scale) + structure.copies.nbytes(self.graph),
            held=structure.copies.held,
            gradients=structure.copies.gradients,
            by_python=True,
        )

    def _kernels(self, structure: _Structure) -> Iterable[tuple[Kernel, ...]]:
        """Kernels of each key: by arithmetic from the batch where that is known to hold, else by the rules."""
        if self.graph.origin is None or self.graph.origin[0].memo is not self.graph.memo:
            return map(self.kernels, structure.keys)
        record, sizes = self.graph.origin
        others = tuple([(name, size) for name, size in sizes.items() if name != "batch"])
        if len(others) == len(sizes):
            return map(self.kernels, structure.keys)
        run, batch = self.execution, sizes["batch"]
        key = ("kernels by batch", run.precision, run.software, run.layout, run.engine, run.phase, run.train_mode)
        known = _known(self.graph.memo.setdefault((*key, others), []), self.hardware)
        for region, functions in known.functions:
            if batch in region:
                return [
                    function
                    if isinstance(function, tuple)
                    else self.kernels(key)
                    if function is None
                    else function(batch)
                    for key, function in zip(structure.keys, functions, strict=True)
                ]
        known.batches.add(batch)
        if len(known.batches) > _LOWERED_BEFORE and len(known.functions) < _MOST_REGIONS:
            known.functions.append(_functions(self, structure.keys, record, sizes))
            known.answers.update(answers_of(self.hardware))
        return map(self.kernels, structure.keys)

    def kernels(self, key: tuple[Any, ...]) -> tuple[Kernel, ...]:
        """What a key of the structure starts. Raises FormulaError where a formula fails."""
        return self._cast(*key[1:]) if key[0] == "cast" else self._call(*key[1:])

    def _cast(self, spec: int, source: str, target: str) -> tuple[Kernel, ...]:
        """A copy into another dtype: reads what there is, writes the new."""
        elements: int = product(self.graph.specs[spec].shape)  # type: ignore[assignment]
        read, written = elements * ITEMSIZE_BYTES[source], elements * ITEMSIZE_BYTES[target]
        return (Kernel(op="aten._to_copy", algorithm="cast", bytes_read=read, bytes_written=written),)

    def _call(self, index: int, types: NodeDtypes) -> tuple[Kernel, ...]:
        return self.kernels_of(self.calls.like(*typed_call(self.graph, index, types)))  # each key comes once


#: Batches that are lowered by the rules before kernels are made functions of the batch, and how many regions are kept.
_LOWERED_BEFORE, _MOST_REGIONS = 2, 8

#: Kernels of one key: the same for every batch, a function of it, or None where the rules must be asked each time.
_Function = tuple[Kernel, ...] | Callable[[int], tuple[Kernel, ...]] | None


class _Known(NamedTuple):
    """The batches that were lowered by the rules, and the functions of each region, for machines that tell the same."""

    answers: Answers
    batches: set[int]
    functions: list[tuple[Region, list[_Function]]]


def _known(groups: list[_Known], machine: HardwareProfile) -> _Known:
    """What is known for machines that tell what this one tells; its own plan hangs on the same answers then."""
    for known in groups:
        if would_tell(machine, known.answers):
            answers_of(machine).update(known.answers)
            return known
    groups.append(_Known(answers_of(machine), set(), []))
    return groups[-1]


def _functions(
    lowering: _Lowering, keys: Sequence[tuple[Any, ...]], record: OpGraph, sizes: Mapping[str, int]
) -> tuple[Region, list[_Function]]:
    """Kernels of each key as functions of the batch around that of ``sizes``, held against the rules at its ends."""
    hardware, region = lowering.hardware, Region(sizes["batch"])

    def at(batch: int) -> _Lowering:
        return _Lowering(record.bind({**sizes, "batch": batch}), replace(lowering.execution, batch=batch), hardware)

    functions: list[_Function] = [None] * len(keys)
    try:
        general = at(Affine(0, 1, region))
    except NotAffine:
        return region, functions
    for i, key in enumerate(keys):
        try:
            found = general.kernels(key)
        except (NotAffine, FormulaError):
            continue
        functions[i] = by_batch(found) or found
    for batch in {region.first, region.batch, min(region.last, 8 * region.batch + 1)}:
        try:
            rules = at(batch)
        except CostmodelError:  # no size of this model
            return region, [None] * len(keys)
        for i, (key, function) in enumerate(zip(keys, functions, strict=True)):
            made = function(batch) if callable(function) else function
            if made is not None and made != rules.kernels(key):
                functions[i] = None
    return region, functions
