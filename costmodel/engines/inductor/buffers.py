"""How Inductor lowers a graph: which values it stores, and what the kernel that stores each of them reads.

Pointwise operators are not run where they stand: they stay expressions, which every consumer inlines, until
something needs their value in memory (an extern kernel, a pooling window, an output, or a second consumer of
an expression that reads more than four tensors). So a cheap operator may be computed by several kernels. Reductions
are always stored. Sources: ``torch/_inductor/`` ``graph.py`` (``run_node``, ``decide_layout_opt``), ``ir.py``
(``should_realize_on_reuse``, ``realize_hint``), ``lowering.py`` (``cat``, ``convolution``,
``needs_realized_inputs``) and ``config.py`` of torch 2.9 to 2.13.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from costmodel.engines.inductor.kinds import kind_of, unrolled_terms, window_taps
from costmodel.engines.inductor.stored import Buffer, Lowered, Value
from costmodel.execution import Execution
from costmodel.execution.precision import torch_dtype
from costmodel.graph import OpGraph
from costmodel.kernels.node_dtypes import NodeDtypes
from costmodel.kernels.precision import converted
from costmodel.nodes import OpNode

__all__ = ["lower_to_buffers"]

#: ``config.realize_reads_threshold``: a value with several consumers is stored if computing it reads more than this.
REALIZE_READS = 4
#: ``config.realize_acc_reads_threshold``: any expression is stored once it reads more than this.
REALIZE_ACCUMULATED_READS = 8
#: ``config.max_pointwise_cat_inputs``: joins of more tensors are always stored.
POINTWISE_CAT_INPUTS = 8
#: ``lowering.needs_realized_inputs``: operators that read their operand from memory, and say so beforehand. Matrix
#: products are among them but what they name is a view, which says nothing of the value under it.
NEEDS_REALIZED_INPUTS = frozenset(
    {
        *(f"conv{n}d" for n in (1, 2, 3)),
        *(f"conv_transpose{n}d" for n in (1, 2, 3)),
        "convolution", "avg_pool2d", "max_pool2d", "max_pool2d_with_indices", "max_pool3d",
        "max_pool3d_with_indices", "upsample_nearest2d",
    }
)  # fmt: skip
#: Decompositions that name their operand twice, so that it counts as used twice.
_READ_TWICE = frozenset({"silu", "gelu", "hardswish", "mish", "layer_norm", "group_norm", "rms_norm", "softmax"})
_INTERPOLATIONS = ("upsample_bilinear", "upsample_bicubic", "_upsample_bi")


@dataclass(slots=True)
class _Expression:
    """A value that is not stored yet."""

    reads: frozenset[int]
    nodes: tuple[int, ...]
    kind: str = "pointwise"
    more_loads: int = 0
    """Loads beyond one of each of its operands: those of pooling windows."""
    apart: frozenset[int] = frozenset()
    """Roots of those that it reads under a window."""


def lower_to_buffers(
    graph: OpGraph, execution: Execution, dtypes: Sequence[NodeDtypes], *, channels_last: bool
) -> Lowered:
    """The stored results of ``graph`` in program order, as Inductor's lowering leaves them to its scheduler."""
    return _Lowering(graph, execution, dtypes, channels_last).run()


class _Lowering:
    def __init__(self, graph: OpGraph, execution: Execution, dtypes: Sequence[NodeDtypes], channels_last: bool) -> None:
        self.graph, self.dtypes, self.channels_last = graph, dtypes, channels_last
        #: From 2.12 on a join whose parts others read as well is put into memory (``any_input_has_multi_consumers``).
        self.spares_rereads = execution.software.at_least_torch(2, 12)
        self.done = Lowered()
        self.expressions: dict[int, _Expression] = {}
        self.casts: dict[tuple[int, str], int] = {}
        self.served: set[int] = set()
        self.kinds = [kind_of(graph, node, channels_last) for node in graph.nodes]
        self.buffer_of_node: dict[int, int] = {}
        self.current = 0
        self.joined: set[int] = set()
        self.frozen: set[int] = set()
        self.widened: set[int] = set()
        self._add_tensors(execution)
        self.uses = self._count_uses()

    def run(self) -> Lowered:
        for index, node in enumerate(self.graph.nodes):
            kind, self.current = self.kinds[index], index
            if kind != "free":
                getattr(self, f"_{kind}")(index, node, self._operands(index, node))
                self._store_if_reused(node)
        for tensor in self.graph.outputs:
            self.store(tensor)
        self.done.inputs.update(self.graph.inputs)
        self.done.kept.update(self.root(t) for t in self.graph.outputs)
        return self.done

    # -- values --------------------------------------------------------------------------------

    def _add_tensors(self, execution: Execution) -> None:
        """A value for each tensor; views point to the value whose memory they show."""
        whole = None if execution.precision.autocast else torch_dtype(execution.precision.activations)
        values = self.done.values
        narrow = converted(self.graph, execution.precision) if execution.precision.narrow_cache else None
        for index, tensor in enumerate(self.graph.tensors):
            dtype = self.graph.specs[tensor.spec].dtype if narrow is None else narrow[index]
            dtype = whole if whole and dtype == "float32" else dtype
            values.append(Value(tensor.spec, dtype, index))
        for node, kind, types in zip(self.graph.nodes, self.kinds, self.dtypes, strict=True):
            for out, dtype in zip(node.outputs, types.outputs, strict=True):
                root = values[node.inputs[0]].root if kind == "free" and node.inputs else out
                values[out] = Value(values[out].spec, values[root].dtype if root != out else dtype, root)

    def _new_value(self, spec: int, dtype: str) -> int:
        self.done.values.append(Value(spec, dtype, len(self.done.values)))
        return len(self.done.values) - 1

    def root(self, value: int) -> int:
        return self.done.values[value].root

    def _count_uses(self) -> Counter[int]:
        """How many operators read each value, directly or through views, once they are decomposed."""
        uses: Counter[int] = Counter(self.root(t) for t in self.graph.outputs)
        for node, kind in zip(self.graph.nodes, self.kinds, strict=True):
            if kind == "free":
                continue
            for position, root in enumerate(dict.fromkeys(self.root(t) for t in node.inputs)):
                twice = position == 0 and node.op.rpartition(".")[2] in _READ_TWICE
                uses[root] += 2 if twice else 1
        return uses

    def _operands(self, index: int, node: OpNode) -> list[int]:
        """Inputs of a node, those that autocast casts replaced by the cast's value."""
        wanted = self.dtypes[index].inputs
        found = []
        for tensor, dtype in zip(node.inputs, wanted, strict=True):
            same = self.done.values[tensor].dtype == dtype or self.root(tensor) in self.widened
            found.append(tensor if same else self._cast(tensor, dtype))
        return found

    def _cast(self, tensor: int, dtype: str) -> int:
        key = (tensor, dtype)
        if key not in self.casts:
            spec = self.graph.tensors[tensor].spec
            value = self.casts[key] = self._new_value(spec, dtype)
            source = self.expressions.get(self.root(tensor))
            self.expressions[value] = replace(source) if source else _Expression(frozenset({tensor}), (), "cast")
        return self.casts[key]

    # -- expressions and stored values ---------------------------------------------------------

    def reads(self, values: Iterable[int]) -> frozenset[int]:
        """What computing ``values`` loads: the values themselves where they are stored."""
        found: set[int] = set()
        for value in values:
            expression = self.expressions.get(self.root(value))
            found |= expression.reads if expression else {value}
        return frozenset(found)

    def apart(self, values: Iterable[int]) -> frozenset[int]:
        """Roots of what computing ``values`` loads under windows."""
        found = (self.expressions.get(self.root(value)) for value in values)
        return frozenset[int]().union(*(expression.apart for expression in found if expression))

    def _nodes(self, values: Iterable[int]) -> tuple[int, ...]:
        found: dict[int, None] = {}
        for value in values:
            expression = self.expressions.get(self.root(value))
            if expression:
                found.update(dict.fromkeys(expression.nodes))
        return tuple(found)

    def store(self, value: int) -> None:
        """Give a value memory: the expression becomes a buffer."""
        root = self.root(value)
        expression = self.expressions.pop(root, None)
        if expression is not None:
            space = self.done.values[root].spec
            self._buffer(expression.kind, expression.reads, (root,), expression.nodes, space, apart=expression.apart)

    def _buffer(
        self, kind: str, reads: frozenset[int], writes: tuple[int, ...], nodes: tuple[int, ...], space: int = -1,
        rows: int = -1, apart: frozenset[int] = frozenset(), lying: tuple[bool, ...] = (),
    ) -> None:  # fmt: skip
        mine = tuple(n for n in nodes if n not in self.served)
        new = set(mine)
        self.served |= new
        buffers = self.done.buffers
        waits = {a for n in mine for a in self.graph.nodes[max(n, ~n)].after}
        after = {self.buffer_of_node[a] for a in waits if a in self.buffer_of_node}
        self.buffer_of_node.update(dict.fromkeys(mine, len(buffers)))
        for value in writes:
            self.done.makers.setdefault(self.root(value), []).append(len(buffers))
        asked_by = self._asked_by(writes[0]) if writes else self.current  # what puts out a number writes nothing
        again = tuple(n for n in nodes if n not in new)
        buffers.append(Buffer(kind, reads, writes, mine, space, rows, tuple(after), asked_by, again, apart, lying))

    def _asked_by(self, value: int) -> int:
        """The operator whose result a value is; of a cast, the operator that wants it."""
        tensors = self.graph.tensors
        producer = tensors[value].producer if value < len(tensors) else None
        return self.current if producer is None else producer

    def _store_if_reused(self, node: OpNode) -> None:
        for tensor in node.outputs:
            expression = self.expressions.get(tensor)
            if expression is None:
                continue
            count = sum(2 if self.done.values[v].spec < 0 else 1 for v in expression.reads)  # mean and variance
            count += expression.more_loads
            most = 1 if self._is_wanted_in_memory(tensor) else REALIZE_READS
            if count > REALIZE_ACCUMULATED_READS or (self.uses[tensor] > 1 and count > most):
                if expression.kind != "pool":
                    self._widen(tensor)
                self.store(tensor)

    def _is_wanted_in_memory(self, tensor: int) -> bool:
        """Whether a consumer will not take an expression, so that it is stored at once for those before it too."""
        return any(
            self.graph.nodes[n].op.rpartition(".")[2] in NEEDS_REALIZED_INPUTS and tensor in self.graph.nodes[n].inputs
            for n in self._users.get(tensor, ())
        )

    def _widen(self, tensor: int) -> None:
        """Where one operator reads a value twice, in fp32, its operand is stored after the conversion to fp32."""
        value = self.done.values[tensor]
        users = set(self._users.get(tensor, ()))
        if value.dtype in ("float16", "bfloat16") and len(users) == 1 and self.uses[tensor] == 2:
            self.done.values[tensor] = replace(value, dtype="float32")
            self.widened.add(tensor)

    # -- one rule a kind -----------------------------------------------------------------------

    def _pointwise(self, index: int, node: OpNode, operands: list[int]) -> None:
        if node.op.rpartition(".")[2].startswith(_INTERPOLATIONS):
            self.store(operands[0])
        reads, nodes = self.reads(operands), (*self._nodes(operands), index)
        for tensor in node.outputs:
            self.expressions[tensor] = self._inlined(operands, nodes, reads)

    def _inlined(self, operands: list[int], nodes: tuple[int, ...], reads: frozenset[int]) -> _Expression:
        """The expression of an operator over expressions: a pool where one of them is."""
        inlined = {self.root(v): e for v in operands if (e := self.expressions.get(self.root(v)))}.values()
        kind = "pool" if any(e.kind == "pool" for e in inlined) else "pointwise"
        return _Expression(reads, nodes, kind, sum(e.more_loads for e in inlined), self.apart(operands))

    def _unrolled(self, index: int, node: OpNode, operands: list[int]) -> None:
        """A reduction of few terms is one expression, which loads its operand once for each of them."""
        reads, nodes = self.reads(operands), (*self._nodes(operands), index)
        term = self._inlined(operands, nodes, reads)
        loads = unrolled_terms(self.graph, node.call) * (len(reads) + term.more_loads)
        apart = term.apart | frozenset(map(self.root, reads))
        for tensor in node.outputs:
            self.expressions[tensor] = replace(term, more_loads=loads - len(reads), apart=apart)

    def _pool(self, index: int, node: OpNode, operands: list[int]) -> None:
        for value in operands:
            self.store(value)
        apart = frozenset(map(self.root, operands))
        for tensor in node.outputs:
            more = window_taps(self.graph, node) - 1
            self.expressions[tensor] = _Expression(self.reads(operands), (index,), "pool", more, apart)

    def _extern(self, index: int, node: OpNode, operands: list[int]) -> None:
        """cuDNN, cuBLAS, attention, ATen: everything in memory. A convolution's bias is peeled off as pointwise; it is
        stored with the other operands where their strides are held to those of eager PyTorch
        (``lowering.py``, ``constrain_conv_to_fx_strides``)."""
        biased = "conv" in node.op and len(node.inputs) > 2
        lying = tuple(self.root(value) not in self.expressions for value in operands)
        for value in operands[:2] if biased and self.channels_last else operands:
            self.store(value)
        reads = frozenset(operands[:2] if biased else operands)
        self.frozen.update(map(self.root, reads))
        if not biased:
            self._buffer("extern", reads, node.outputs, (index,), lying=lying)
            return
        out = self.done.values[node.outputs[0]]
        raw = self._new_value(out.spec, out.dtype)
        self._buffer("extern", reads, (raw,), (index,))
        bias = operands[2:]
        self.expressions[node.outputs[0]] = _Expression(self.reads(bias) | {raw}, (*self._nodes(bias), ~index))

    def _reduction(self, index: int, node: OpNode, operands: list[int], kind: str = "reduction") -> None:
        space = self.done.values[node.inputs[0]].spec
        rows = self.done.values[node.outputs[0]].spec
        nodes = (*self._nodes(operands), index)
        self._buffer(kind, self.reads(operands), node.outputs, nodes, space, rows, self.apart(operands))

    def _outer_reduction(self, index: int, node: OpNode, operands: list[int]) -> None:
        self._reduction(index, node, operands, "outer_reduction")

    def _norm(self, index: int, node: OpNode, operands: list[int], kind: str = "norm") -> None:
        """Statistics over rows are stored, the normalization itself is pointwise."""
        x = node.inputs[0]
        out = node.outputs[0]
        loaded, nodes = self.reads(operands[:1]), (*self._nodes(operands), index)
        statistics = self._new_value(-1, "float32")
        apart = self.apart(operands)
        self._buffer(kind, loaded, (statistics,), nodes, self.done.values[x].spec, apart=apart)
        whole = loaded | self.reads(operands[1:]) | {statistics}
        self.expressions[out] = _Expression(
            whole, self._nodes(operands), apart=apart
        )  # its own arithmetic is the statistics'
        for other in node.outputs[1:]:
            self.done.makers[other] = [len(self.done.buffers) - 1]

    def _softmax(self, index: int, node: OpNode, operands: list[int]) -> None:
        self._norm(index, node, operands, "softmax")

    def _group_norm(self, index: int, node: OpNode, operands: list[int]) -> None:
        self._norm(index, node, operands, "statistics")

    def _cat(self, index: int, node: OpNode, operands: list[int]) -> None:
        """Joined on the fly where few tensors go to pointwise consumers; else every part is put into its place."""
        out = node.outputs[0]
        on_the_fly = len(operands) <= POINTWISE_CAT_INPUTS and self._joins_on_the_fly(out, operands)
        if on_the_fly and not (self.spares_rereads and self._is_read_beside(index, node)):
            nodes = (*self._nodes(operands), index)
            self.expressions[out] = self._inlined(operands, nodes, self.reads(operands))
            return
        for value in operands:
            self._place(value, out)
        last = self.done.makers[out][-1]
        self.done.buffers[last].nodes += (index,)
        self.buffer_of_node[index] = last
        self.served.add(index)

    def _joins_on_the_fly(self, out: int, operands: list[int]) -> bool:
        copied = [self._needs_copy(v) for v in operands]
        return (any(copied) and self._has_pointwise_uses(out)) or all(copied)

    def _is_read_beside(self, index: int, node: OpNode) -> bool:
        """Whether a part of a join has another consumer that would compute or load it again. Those of ``stack`` have
        none: they are views that it makes itself."""
        if node.op.rpartition(".")[2] == "stack":
            return False
        for tensor in node.inputs:
            others = [n for n in self._direct_users[tensor] if n != index]
            if others and (self.root(tensor) in self.expressions or any(map(self._is_pointwise_use, others))):
                return True
        return False

    def _is_pointwise_use(self, index: int) -> bool:
        """Whether an operator is pointwise, or shows a view to such alone (``is_pointwise_use``)."""
        if self.kinds[index] != "free":
            return self.kinds[index] in ("pointwise", "norm", "group_norm", "softmax")
        return all(self._is_pointwise_use(n) for t in self.graph.nodes[index].outputs for n in self._direct_users[t])

    @cached_property
    def _direct_users(self) -> dict[int, list[int]]:
        """Tensor -> nodes that read it, views among them."""
        found: dict[int, list[int]] = {t: [] for t in range(len(self.graph.tensors))}
        for n, node in enumerate(self.graph.nodes):
            for t in dict.fromkeys(node.inputs):
                found[t].append(n)
        return found

    def _needs_copy(self, value: int) -> bool:
        """Whether putting a value into its place costs a kernel: all but stored results of fused kernels."""
        root = self.root(value)
        return root in self.expressions or self._fused_maker(root) is None

    def _fused_maker(self, root: int) -> int | None:
        """The fused kernel that stores a value, if it may store it in the place of a join: it does not in another
        already, and no library's kernel has read the value, which has held its strides to theirs
        (``ir.py``, ``ConcatKernel.can_realize_into_without_copy``)."""
        makers = self.done.makers.get(root, ())
        if len(makers) != 1 or root in self.joined or root in self.frozen:
            return None
        if self.done.buffers[makers[0]].kind == "extern":
            return None
        return makers[0]

    def _has_pointwise_uses(self, tensor: int) -> bool:
        return all(self.kinds[n] in ("pointwise", "cat") for n in self._users.get(tensor, ()))

    @cached_property
    def _users(self) -> dict[int, list[int]]:
        """Root value -> nodes that read it, views left out."""
        found: dict[int, list[int]] = {}
        for n, node in enumerate(self.graph.nodes):
            if self.kinds[n] != "free":
                for t in node.inputs:
                    found.setdefault(self.root(t), []).append(n)
        return found

    def _place(self, value: int, out: int) -> None:
        """One part of a stored join: its own kernel writes it in place, or a copy does."""
        root, maker = self.root(value), self._fused_maker(self.root(value))
        if maker is not None:
            self.joined.add(root)
            self.done.kept.add(root)
            self.done.makers.setdefault(out, []).append(maker)
            return
        spec = self.done.values[value].spec
        part = self._new_value(spec, self.done.values[out].dtype)
        self.done.values[part] = replace(self.done.values[part], root=out)
        self._buffer("pointwise", self.reads([value]), (part,), self._nodes([value]), spec, apart=self.apart([value]))
