"""What the host calls in a step, and when: operators of an eager program, generated code, one call of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.host import costs_of, node_us
from costmodel.nodes import SpecRef

__all__ = ["HostCall", "calls_of", "dispatched_name"]


@dataclass(frozen=True, slots=True)
class HostCall:
    """One call on the host, in seconds since the step began, and the launches that it makes, by position.

    ``name`` is the profiler's; ``node`` the first node that it serves, whose shapes it has; ``waits_s`` is when it
    returns where it waits for the device, else None.
    """

    name: str
    start_s: float
    end_s: float
    node: int
    launches: tuple[int, ...]
    waits_s: float | None = None


def calls_of(analysis: Any) -> list[HostCall]:
    """The calls of a step, in program order, as its engine makes them."""
    if analysis.engine.captures:
        return list(_captured(analysis))
    if analysis.engine.fuses_pointwise:
        return list(_generated(analysis))
    if analysis.hardware.family.issues_ahead:
        return list(_issued(analysis))
    return list(_computed(analysis))


def dispatched_name(graph: Any, node: int) -> str:
    """An operator as the profiler names it: ``aten::relu_`` for a relu in place."""
    found = graph.nodes[node]
    name: str = found.op.replace(".", "::", 1)
    return name + ("_" if found.in_place and not found.op.endswith("_") else "")


def tensor_arguments(graph: Any, node: int) -> tuple[list[Any], list[Any]]:
    """``Input Dims`` and ``Input type`` of a call: shapes and dtypes of tensors, empty for what is none."""

    def shape(value: Any) -> list[Any]:
        if isinstance(value, SpecRef):
            return [int(size) for size in graph.specs[value.spec].shape]
        if isinstance(value, tuple) and any(isinstance(item, SpecRef) for item in value):
            return [shape(item) for item in value]
        return []

    def dtype(value: Any) -> Any:
        if isinstance(value, SpecRef):
            return graph.specs[value.spec].dtype
        if isinstance(value, tuple) and any(isinstance(item, SpecRef) for item in value):
            return "TensorList"
        return ""

    values = [value for _, value in graph.calls[graph.nodes[node].call].arguments]
    return [shape(value) for value in values], [dtype(value) for value in values]


def _issued(analysis: Any) -> Iterator[HostCall]:
    """Eager, ahead of a device: every node in turn, views too. A launch is out when the node that it serves is through;
    what lies between two launches is shared out as the host's own times of the nodes are."""
    plan, graph, timeline = analysis.plan, analysis.bound, analysis.timeline
    launches = _by_node(plan, last=True)
    weights = node_us(graph, costs_of(analysis.execution.software))
    begun = analysis.issuing.input_copy_s(analysis.host)
    waiting: list[int] = []
    ended = 0.0
    for node in range(len(graph.nodes)):
        waiting.append(node)
        mine = launches.get(node, ())
        if not mine:
            continue
        done = max(begun, *(timeline[position].issued_s for position in mine))
        ended = max(ended, *(timeline[position].end_s for position in mine))
        reads = ended if graph.nodes[node].synchronizes else None
        yield from _shared_out(graph, waiting, weights, begun, done, mine, reads)
        begun, waiting = done if reads is None else max(done, reads), []
    rest = analysis.host.seconds(sum(weights[node] for node in waiting))
    yield from _shared_out(graph, waiting, weights, begun, begun + rest, (), None)


def _shared_out(
    graph: Any, nodes: Sequence[int], weights: Sequence[float], start_s: float, end_s: float,
    launches: tuple[int, ...], reads: float | None,
) -> Iterator[HostCall]:  # fmt: skip
    whole = sum(weights[node] for node in nodes) or 1.0
    now = start_s
    for node in nodes:
        is_last = node == nodes[-1]
        end = end_s if is_last else now + (end_s - start_s) * weights[node] / whole
        own = launches if is_last else ()
        yield HostCall(dispatched_name(graph, node), now, end, node, own, reads if is_last else None)
        now = end


def _computed(analysis: Any) -> Iterator[HostCall]:
    """Eager where the host itself computes: an operator lasts as long as its kernels."""
    plan, graph, timeline = analysis.plan, analysis.bound, analysis.timeline
    launches = _by_node(plan, last=False)
    now = 0.0
    for node in range(len(graph.nodes)):
        mine = launches.get(node, ())
        end = max((timeline[position].end_s for position in mine), default=now)
        yield HostCall(dispatched_name(graph, node), now, end, node, mine)
        now = end


def _generated(analysis: Any) -> Iterator[HostCall]:
    """Generated code: a call for each launch, of a library or of a kernel that was generated."""
    ahead = analysis.hardware.family.issues_ahead
    now = 0.0
    for position, (launch, slot) in enumerate(zip(analysis.plan.launches, analysis.timeline, strict=True)):
        kernel = analysis.plan.kernels[launch.kernel]
        end = max(now, slot.issued_s if ahead else slot.end_s)
        if kernel.matrix_flops:
            name = dispatched_name(analysis.bound, launch.nodes[0])
        else:
            name = fused_name(analysis, position)
        yield HostCall(name, now, end, launch.nodes[0], (position,))
        now = end


def fused_name(analysis: Any, position: int) -> str:
    """A generated kernel as Inductor names it, after the operators in it: ``triton_poi_fused_add_relu_3``."""
    launch = analysis.plan.launches[position]
    kernel = analysis.plan.kernels[launch.kernel]
    ops = [analysis.bound.nodes[node].op for node in launch.nodes] if kernel.algorithm != "cast" else [kernel.op]
    packets = dict.fromkeys(op.rpartition(".")[2] for op in ops)
    kind = "per" if any(word in kernel.algorithm for word in ("normalization", "softmax", "reduction")) else "poi"
    prefix = f"triton_{kind}" if analysis.hardware.family.issues_ahead else "cpp"
    return f"{prefix}_fused_{'_'.join(packets)}_{position}"


def _captured(analysis: Any) -> Iterator[HostCall]:
    """One call that replays everything."""
    slots = analysis.timeline.slots
    if slots:
        yield HostCall("cudaGraph replay", 0.0, slots[0].issued_s, 0, tuple(range(len(slots))))


def _by_node(plan: Any, *, last: bool) -> dict[int, tuple[int, ...]]:
    """Positions of launches by node: the last that they serve, after which they are out, or the first, their own."""
    found: dict[int, tuple[int, ...]] = {}
    for position, launch in enumerate(plan.launches):
        node = launch.nodes[-1 if last else 0]
        found[node] = (*found.get(node, ()), position)
    return found
