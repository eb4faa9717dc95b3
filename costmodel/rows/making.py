"""Rows and totals of a step, from its graph, costs, plan and timeline."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.cost import Cost, total
from costmodel.costing import Coverage, GraphCosts, Uncosted
from costmodel.formulas import is_free
from costmodel.graph import OpGraph
from costmodel.kernels import KernelPlan
from costmodel.memory import Footprint
from costmodel.rows.quantities import QUANTITIES, Work
from costmodel.rows.row import Row, Totals
from costmodel.timing import Drawn, Timeline

__all__ = ["asked_of", "bound_shares", "coverage_of", "node_rows", "totals_of", "works_of"]


def works_of(
    graph: OpGraph, costs: GraphCosts, run_costs: Sequence[Cost], plan: KernelPlan, timeline: Timeline
) -> list[Work]:
    """For each node what its quantities are counted from; a launch counts for the first node that it serves."""
    launched = _launches_by_node(plan)
    owned = parameters_by_node(graph)
    return [
        Work(
            cost=costs.of_node(index),
            run_cost=run_costs[index],
            kernels=[plan.kernels[plan.launches[p].kernel] for p in launched.get(index, ())],
            slots=[timeline[p] for p in launched.get(index, ())],
            params=owned.get(index, 0),
            activation_bytes=_activation_bytes(graph, costs, index),
        )
        for index in range(len(graph.nodes))
    ]


def asked_of(graph: OpGraph, costs: GraphCosts, run_costs: Sequence[Cost]) -> Work:
    """All nodes as one, without what the machine runs: quantities add up, so that those of it are the sums over nodes.

    The same for all machines, so that it is worth keeping.
    """
    return Work(
        cost=costs.total,
        run_cost=total(run_costs),
        kernels=(),
        slots=(),
        params=graph.param_count,
        activation_bytes=sum(_activation_bytes(graph, costs, index) for index in range(len(graph.nodes))),
    )


def bound_shares(graph: OpGraph, plan: KernelPlan, timeline: Timeline) -> dict[str, float]:
    """Share of the time by what bounds the operators that take it, as their rows would say, the largest first."""
    shares: dict[str, float] = {}
    latency_s, kinds, of_launch, waits = timeline.latency_s, timeline.kinds, timeline.of_launch, timeline.waits
    kernels, called, served = plan.kernels, plan.called, _launches_by_node(plan).values()
    unwaited = [(kind.bound(0.0), kind.busy_s) for kind in kinds]

    def spent(position: int) -> tuple[str, float]:
        if position not in waits:
            return unwaited[of_launch[position]]
        kind, waited_s = kinds[of_launch[position]], waits[position]
        return kind.bound(waited_s), waited_s + kind.busy_s

    for positions in served:
        if len(positions) == 1:
            (main,) = positions
            bound, seconds = spent(main) if main in waits else unwaited[of_launch[main]]
        else:
            all_spent = [spent(position) for position in positions]
            flops = [kernels[called[position]].matrix_flops for position in positions]
            first = max(range(len(positions)), key=lambda i: (flops[i], all_spent[i][1]))
            bound, seconds = all_spent[first][0], sum(each for _, each in all_spent)
        shares[bound] = shares.get(bound, 0.0) + seconds
    if latency_s:
        shares = {bound: seconds / latency_s for bound, seconds in shares.items()}
    if len(served) < len(graph.nodes):
        shares.setdefault("free", 0.0)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _launches_by_node(plan: KernelPlan) -> dict[int, list[int]]:
    """Positions of the launches that serve each node; one counts for the first node that it serves."""
    known: dict[int, list[int]] | None = plan.memo.get("launches by node")
    if known is None:
        known = plan.memo["launches by node"] = {}
        for position, launch in enumerate(plan.launches):
            known.setdefault(launch.nodes[0], []).append(position)
    return known


def totals_of(
    asked: Work,
    plan: KernelPlan,
    timeline: Timeline,
    memory: Footprint,
    interval: tuple[float, float],
    drawn: Drawn | None,
) -> Totals:
    """Sums over the nodes, of which ``asked`` is what :func:`asked_of` gives. Parameters that no operator uses count
    too; time is that of the last launch's end.

    ``interval`` (low, high) [s] is the one around the time of the step, ``drawn`` its power and energy.
    """
    if "sums" not in plan.memo:  # the same for all machines that share the plan
        whole = asked._replace(kernels=[plan.kernels[kernel] for kernel in plan.called])
        plan.memo["sums"] = {quantity.key: quantity.of(whole) for quantity in QUANTITIES}
    return Totals(
        **{**plan.memo["sums"], "latency_s": timeline.latency_s, "energy_j": timeline.energy_j},
        param_bytes=memory.parameter_bytes,
        peak_memory_bytes=memory.allocated_bytes,
        memory=memory,
        latency_low_s=interval[0],
        latency_high_s=interval[1],
        **(drawn._asdict() if drawn else {}),
    )


def node_rows(works: Sequence[Work], graph: OpGraph, latency_s: float, idle_word: str) -> list[Row]:
    """One row for each node, in program order. ``idle_word`` is the algorithm of one that another's kernel serves."""
    return [_row(graph, index, work, latency_s, idle_word) for index, work in enumerate(works)]


def _row(graph: OpGraph, index: int, work: Work, latency_s: float, idle_word: str) -> Row:
    node, kernels, slots = graph.nodes[index], work.kernels, work.slots
    amounts = {quantity.key: quantity.of(work) for quantity in QUANTITIES}
    main = max(range(len(kernels)), key=lambda k: (kernels[k].matrix_flops, slots[k].latency_s), default=None)
    idle = "view" if is_free(node.op) else idle_word
    return Row(
        **amounts,
        name=node.name,
        op=node.op,
        module=node.module,
        share=amounts["latency_s"] / latency_s if latency_s else 0.0,
        bound="free" if main is None else slots[main].bound,
        algorithm=idle if main is None else kernels[main].algorithm,
        inputs=_shapes(graph, node.inputs),
        outputs=_shapes(graph, node.outputs),
        phase=node.phase.value,
        forward="" if node.forward is None else graph.nodes[node.forward].name,
    )


def parameters_by_node(graph: OpGraph) -> dict[int, int]:
    """Elements of the parameters that each node is the first to use."""
    known: dict[int, int] | None = graph.memo.get("parameters by node")
    if known is not None:
        return known
    seen, owned = set[int](), dict[int, int]()
    elements = {
        tensor.storage: graph.parameters[tensor.name]
        for tensor in graph.tensors
        if tensor.name in graph.parameters and tensor.producer is None
    }
    for index, node in enumerate(graph.nodes):
        if is_free(node.op):
            continue
        for storage in (graph.tensors[t].storage for t in node.inputs):
            if storage in elements and storage not in seen:
                seen.add(storage)
                owned[index] = owned.get(index, 0) + elements[storage]
    graph.memo["parameters by node"] = owned
    return owned


def _activation_bytes(graph: OpGraph, costs: GraphCosts, index: int) -> int:
    """Results of a contraction or a pooling in fp32, B; 0 for what works in place in this convention."""
    node = graph.nodes[index]
    if not (costs.of_node(index).activations or "_pool" in node.op):
        return 0
    return 4 * int(graph.specs[graph.tensors[node.outputs[0]].spec].numel)


#: Shapes that a row tells; of longer lists (all parameters, for an optimizer) the first few and how many more.
_MOST_SHAPES, _FIRST_SHAPES = 40, 3


def _shapes(graph: OpGraph, tensors: Sequence[int]) -> str:
    told = tensors if len(tensors) <= _MOST_SHAPES else tensors[:_FIRST_SHAPES]
    shapes = ["x".join(map(str, graph.specs[graph.tensors[t].spec].shape)) or "1" for t in told]
    return ", ".join(shapes) + (f" and {len(tensors) - len(told)} more" if len(told) < len(tensors) else "")


def coverage_of(graph: OpGraph, costs: GraphCosts, rows: Sequence[Row]) -> Coverage:
    """How many operators have a formula, and which do not, with their share of the bytes and the time of ``rows``."""
    missing = costs.uncosted
    unknown = [row for row in rows if row.op in missing] if missing else []
    moved = sum(row.bytes_read + row.bytes_written for row in rows) or 1
    uncosted = []
    for op, count in missing.most_common():
        nbytes = sum(row.bytes_read + row.bytes_written for row in unknown if row.op == op)
        time_share = sum(row.share for row in unknown if row.op == op)
        uncosted.append(Uncosted(op, count, nbytes, nbytes / moved, time_share))
    ops = len(graph.nodes)
    return Coverage(ops, ops - costs.free_count - sum(missing.values()), costs.free_count, tuple(uncosted))
