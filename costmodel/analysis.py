"""Analysis: a traced model on a machine, in numbers. What every reader reads.

What it says of itself, findings and pages, is above it: ``presented.py``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from costmodel.cost import Cost
from costmodel.costing import Coverage, GraphCosts, closed_forms, cost_graph, plus
from costmodel.engines import engine_of
from costmodel.errors import InputError, librarian, near_matches
from costmodel.execution import Execution, Variant
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile, load
from costmodel.host import HostProfile, span_of
from costmodel.issuing import Issuing
from costmodel.kernels import KernelPlan, run_costs
from costmodel.kernels.served import dtype_notes, own_dtype_notes
from costmodel.memory import Footprint, footprint, largest_batch
from costmodel.nodes import Assumption
from costmodel.optimizer import with_optimizer
from costmodel.quantization import with_packed_weights
from costmodel.rows import (
    KernelRow,
    ModelInfo,
    Row,
    Totals,
    Work,
    asked_of,
    bound_shares,
    conventions_of,
    coverage_of,
    kernel_rows,
    node_rows,
    rows_by,
    totals_of,
    works_of,
)
from costmodel.timing import Timeline, drawn, step_interval, step_timeline
from costmodel.traces import Retrace, Trace, Traces

if TYPE_CHECKING:
    import networkx

    from costmodel.receptive_field import Field

__all__ = ["Analysis", "ModelInfo", "Row", "Totals"]

_Same = TypeVar("_Same", bound="Analysis")


class Analysis:
    """A graph bound to sizes, costed, lowered to kernels and timed on one machine.

    Everything is computed when first asked for and kept. :meth:`at` gives the same model at another
    batch, size, dtype, engine, layout or machine, tracing again only where this trace does not answer for it.
    """

    def __init__(
        self,
        *,
        name: str,
        source: str,
        record: OpGraph,
        hardware: HardwareProfile,
        execution: Execution,
        closed_forms: Mapping[str, str] | None = None,
        asked: Mapping[str, int] | None = None,
        retrace: Retrace | None = None,
    ) -> None:
        """``asked``: the sizes that were asked for, left open or not. ``retrace``: traces the model elsewhere; without
        it, ``record`` is taken to hold wherever its symbols allow."""
        self.name, self.source = name, source
        program = engine_of(execution.engine).program(with_packed_weights(record, execution, hardware.family))
        self.record = with_optimizer(program, execution, hardware.family)
        self.hardware = hardware.limited(execution.power_limit_w)
        self.dtype_notes = (*own_dtype_notes(record, execution, self.hardware), *dtype_notes(execution, self.hardware))
        sizes = record.check_binding(
            {**execution.sizes, **({"batch": execution.batch} if "batch" in record.symbols else {})}
        )
        sizes.pop("batch", None)
        self.execution = replace(execution, sizes=sizes)
        self.engine, self.host_span = engine_of(execution.engine), span_of(execution.host, hardware)
        self.engine.check(execution)
        self._closed_forms, self._traced = closed_forms, record
        self._asked = dict(asked or {})
        variant = Variant.of(execution, hardware.family.torch_device)
        first = Trace(record, closed_forms, execution.batch, self._asked, variant)
        self._traces = Traces(name, first, retrace)
        self._bound: OpGraph | None = None

    # -- what the model asks -------------------------------------------------------------------

    @property
    def _binding(self) -> dict[str, int]:
        batch = {"batch": self.execution.batch} if "batch" in self.record.symbols else {}
        return {**batch, **self.execution.sizes}

    @property
    def bound(self) -> OpGraph:
        """The graph in numbers, at this execution's sizes."""
        if self._bound is None:
            self._bound = self.record.bind(self._binding)
        return self._bound

    @cached_property
    def node_costs(self) -> GraphCosts:
        """Costs as traced (fp32), in numbers."""
        return cost_graph(self.bound)

    @cached_property
    def symbolic(self) -> OpGraph:
        """The graph with sympy expressions for sizes; of a special case, the general one."""
        return (self.record.general or self.record).symbolic()

    @cached_property
    def costs(self) -> GraphCosts:
        """Costs as sympy expressions in the graph's symbols: ``analysis.costs.total.flops``."""
        return cost_graph(self.symbolic)

    @cached_property
    def graph(self) -> networkx.DiGraph:
        """The networkx DAG of operators, sizes symbolic. See :meth:`costmodel.graph.OpGraph.networkx`."""
        return self.symbolic.networkx()

    @cached_property
    def closed_forms(self) -> dict[str, str]:
        """Closed forms of the totals in the graph's symbols, as text in sympy's syntax."""
        if self._closed_forms is None:
            return closed_forms(self.costs)
        if self.record is self._traced:
            return dict(self._closed_forms)
        step, traced = self.node_costs.total, cost_graph(self._traced.bind(self._binding)).total
        more = {name: getattr(step, name) - getattr(traced, name) for name in self._closed_forms}  # of the optimizer
        return {name: plus(form, more[name]) for name, form in self._closed_forms.items()}

    @property
    def symbol_notes(self) -> tuple[str, ...]:
        """Why sizes that one might expect to be open are numbers; of a special case, in the general one."""
        return tuple(note for note in (self.record.general or self.record).notes if " stays " in note)

    @property
    def executed(self) -> str:
        """With which weights and inputs the model was run on this machine; "" for a static trace."""
        return self.record.executed

    @property
    def assumed(self) -> tuple[Assumption, ...]:
        """What the trace took for answers to questions about values that nobody knows before a run."""
        return self.record.assumed

    @property
    def model(self) -> ModelInfo:
        """Name, source, bound inputs and notes."""
        inputs = tuple(
            replace(self.bound.specs[self.bound.tensors[i].spec], name=self.bound.tensors[i].name)
            for i in self.bound.inputs
        )
        notes = tuple(note for note in self.record.notes if " stays " not in note)
        return ModelInfo(self.name, self.source, inputs, notes)

    # -- what the machine runs -----------------------------------------------------------------

    @cached_property
    def plan(self) -> KernelPlan:
        """The kernels of one step and their launches in program order."""
        return self.engine.lower(self.bound, self.execution, self.hardware)

    @property
    def host(self) -> HostProfile:
        """The host that is assumed to issue the step."""
        return self.host_span.assumed

    @cached_property
    def issuing(self) -> Issuing:
        """When the hosts that the step may run with have issued its launches."""
        return Issuing(
            plan=self.plan,
            graph=self.bound,
            execution=self.execution,
            hardware=self.hardware,
            engine=self.engine,
            span=self.host_span,
        )

    @cached_property
    def issued(self) -> list[float]:
        """For each launch, when the host has issued it: seconds since the step began."""
        return self.issuing.under(self.host)

    def latency_under(self, host: HostProfile) -> float:
        """Seconds of the same step issued by another host, see :meth:`~costmodel.issuing.Issuing.latency_s`."""
        return self.issuing.latency_s(host, self.timeline)

    @cached_property
    def run_costs(self) -> list[Cost]:
        """Cost of every node in the dtypes of the run."""
        if self.execution.precision.keeps(self.bound.own_dtype):
            return [self.node_costs.of_call[node.call] for node in self.bound.nodes]
        return run_costs(self.bound, self.execution)

    @cached_property
    def timeline(self) -> Timeline:
        """When each launch of the plan is issued, starts and ends, and what its time is made of."""
        return step_timeline(self.plan, self.bound, self.hardware, self.issued)

    @property
    def latency(self) -> float:
        """Predicted time of one step, in seconds."""
        return self.timeline.latency_s

    @cached_property
    def totals(self) -> Totals:
        """Sums over one step."""
        calibration = self.hardware.calibration
        unrest = calibration.unrest if calibration else 0.0
        interval = step_interval(self.plan, self.timeline, unrest, self.issuing.latencies(self.timeline))
        power = drawn(self.timeline, interval, self.hardware.power_limit_w)
        return totals_of(self._asked_work, self.plan, self.timeline, self.memory, interval, power)

    @cached_property
    def _asked_work(self) -> Work:
        return asked_of(self.bound, self.node_costs, self.run_costs)

    def max_batch(self) -> int | None:
        """The largest batch whose step fits the machine under these conditions, by the best estimate of what its
        process takes; 0 where not even one sample does.

        None where the batch cannot change or nobody knows the machine's memory. Batches are evaluated on the traces in
        hand.
        """
        if "batch" not in (self.record.general or self.record).symbols or self.memory.usable_bytes is None:
            return None  # a step of one sample that copies less than others keeps the graph of the others beside it
        here = self.in_hand()

        def spare(batch: int) -> float:
            try:
                return here.at(batch=batch).memory.spare_bytes
            except InputError:  # no tensor can be as large
                return -math.inf

        return largest_batch(spare, self.execution.batch)

    @cached_property
    def memory(self) -> Footprint:
        """The most memory that the step takes at once, and what lies there then."""
        return footprint(self.plan, self.bound, self.execution, self.hardware)

    # -- tables --------------------------------------------------------------------------------

    @cached_property
    def _works(self) -> list[Work]:
        return works_of(self.bound, self.node_costs, self.run_costs, self.plan, self.timeline)

    @cached_property
    def _node_rows(self) -> list[Row]:
        return node_rows(self._works, self.bound, self.latency, self.engine.idle_word)

    def rows(self, by: str = "op") -> list[Row]:
        """Rows per operator in program order, or added up by ``module``, by operator ``type``, ``stage`` or ``phase``.

        A stage is the size of the maps that an operator puts out, such as 56x56; a phase is a part of the step, such as
        forward or backward (:class:`~costmodel.execution.NodePhase`).

        Raises InputError for another ``by``.
        """
        return rows_by(self._node_rows, by, self._map_sizes)

    @cached_property
    def kernels(self) -> list[KernelRow]:
        """Every launch in program order: its algorithm and tile, its bytes by level, its time and what bounds it."""
        return kernel_rows(self.plan, self.bound, self.timeline, self.hardware)

    def _map_sizes(self) -> dict[str, str]:
        return {node.name: size for node, (size, _) in zip(self.bound.nodes, self.feature_maps, strict=True)}

    @cached_property
    def feature_maps(self) -> list[tuple[str, tuple[Field, ...] | None]]:
        """For every operator the size of the maps that it puts out, such as ``56x56``, and what one of their positions
        sees of the input along each axis. See :func:`costmodel.receptive_field.receptive_fields`."""
        from costmodel.receptive_field import map_sizes, receptive_fields

        return list(zip(map_sizes(self.bound), receptive_fields(self.bound), strict=True))

    @cached_property
    def bounds(self) -> dict[str, float]:
        """Share of the predicted time by what bounds the operators that take it, as their rows say."""
        return bound_shares(self.bound, self.plan, self.timeline)

    @cached_property
    def coverage(self) -> Coverage:
        """How many operators have a formula, and which do not, with their share of bytes and time."""
        return coverage_of(self.bound, self.node_costs, self._node_rows)

    @property
    def conventions(self) -> tuple[str, ...]:
        """How the numbers were counted, and what was assumed for them."""
        return conventions_of(self.execution, self.hardware.calibration, self.assumed, self.dtype_notes)

    # -- elsewhere -----------------------------------------------------------------------------

    def at(
        self: _Same,
        *,
        batch: int | None = None,
        hw: str | HardwareProfile | None = None,
        image_size: int | tuple[int, int] | None = None,
        seq_len: int | None = None,
        dtype: str | None = None,
        mode: str | None = None,
        layout: str | None = None,
        host: str | None = None,
        **others: Any,
    ) -> _Same:
        """The same model under other conditions.

        ``others`` are sizes by the names of the graph's symbols (``frames``, ``decoder_seq_len``, ...) and further
        words of :meth:`costmodel.Execution.of`. What is not said stays. The numbers are those of a trace made at that
        batch, those sizes and that layout: the model is run there, once for all that came from the same call, unless
        a trace leaves the sizes open and is known to hold there.

        Raises InputError when a size that cannot change is to change, for an unknown word or a layout that cannot be
        traced, UnknownHardwareError for an unknown machine.
        """
        words = {name: value for name, value in others.items() if name in Execution.names()}
        further = {name: value for name, value in others.items() if name not in words}
        asked = {**self._asked, **self._checked_sizes(further)}
        if image_size is not None:
            height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
            asked.update(height=height, width=width)
        if seq_len is not None:
            asked["seq_len"] = seq_len
        execution = self.execution.changed(batch=batch, dtype=dtype, mode=mode, layout=layout, host=host, **words)
        hardware = self.hardware if hw is None else load(hw) if isinstance(hw, str) else hw
        hardware = hardware.limited(execution.power_limit_w)
        trace = self._traces.serving(execution, asked, hardware.family.torch_device, now=self.execution)
        record, sizes = trace.record, {**self.execution.sizes, **asked}
        other = type(self)(
            name=self.name,
            source=self.source,
            record=record,
            hardware=hardware,
            execution=execution.changed(sizes={n: v for n, v in sizes.items() if n in record.symbols}),
            closed_forms=trace.closed_forms,
            asked=asked,
        )
        other._traces = self._traces
        other._take_over(self)
        return other

    def _checked_sizes(self, sizes: Mapping[str, Any]) -> dict[str, int]:
        """Sizes by name; those that the graph does not have are refused later, by what may trace them."""
        for name, value in sizes.items():
            if name not in self.record.symbols and not isinstance(value, int):
                known = ("hw", "image_size", *Execution.names(), *self.record.symbols)
                text = f"neither a condition of a run nor a size of {self.name} is called {name!r}"
                raise InputError(librarian(text, there_is=known, near=near_matches(name, known)))
        return dict(sizes)

    def _take_over(self, other: Analysis) -> None:
        """Take from another analysis of the same model what is the same here."""
        if self.record is not other.record or self._binding != other._binding:
            return
        self._bound = other._bound
        shared = ["node_costs"]
        run, before = self.execution, other.execution
        if (run.precision, run.software) == (before.precision, before.software):
            shared += ["run_costs", "_asked_work"]
        issue = {"host": before.host, "inputs": before.inputs}
        if self.hardware is other.hardware and run.changed(**issue) == before:
            shared.append("plan")  # another host issues the same kernels
        self.__dict__.update({name: other.__dict__[name] for name in shared if name in other.__dict__})

    def in_hand(self: _Same) -> _Same:
        """The same analysis, whose :meth:`at` runs the model nowhere: where it was not run, the traces that there are
        answer. For searches over many batches, whose answer is a batch to look at and not a figure to rely on."""
        other = copy.copy(self)
        other._traces = self._traces.in_hand()
        return other

    def __repr__(self) -> str:
        when = f"{1e3 * self.latency:.3g} ms at batch {self.execution.batch}"
        return f"<Analysis of {self.name} on {self.hardware.name}: {when}>"
