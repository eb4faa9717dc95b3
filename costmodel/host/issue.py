"""When the host has issued each launch of a step, seconds since the step began. Three ways make up every engine.

:func:`operators`  a program calls operators one after the other, each of which launches what it needs
:func:`compiled`   generated code launches kernel after kernel and calls libraries between them
:func:`captured`   the step was captured: one call issues all of it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from costmodel.execution import NodePhase
from costmodel.graph import OpGraph
from costmodel.host.costs import CapturedCosts, HostCosts, class_of
from costmodel.host.profile import HostProfile
from costmodel.host.training import step_costs
from costmodel.kernels.packed_layers import LAYERS
from costmodel.kernels.plan import Kernel, KernelPlan

__all__ = ["captured", "compiled", "node_us", "operators"]

#: Kernels that another operator of ATen launches, called by the one that they serve: a bias that is added to what cuDNN
#: put out, a copy to contiguous memory.
INNER = frozenset({"bias", "contiguous_copy"})
#: Kernels by which cuDNN turns images from one memory format into another, around a convolution.
CONVERSIONS = frozenset({"nchw_to_nhwc", "nhwc_to_nchw"})


def operators(plan: KernelPlan, graph: OpGraph, host: HostProfile, costs: HostCosts, autocast: bool) -> list[float]:
    """Every node in program order, views too; a launch is out when the node that it serves is through.

    What a node launches beyond its first kernel costs a launch, a cast that autocast inserts an operator, and so does
    what the node's own code calls (:data:`INNER`); cuDNN's conversions have a cost of their own. A library's layer
    with packed weights calls operators from Python: they cost what they cost anywhere.
    """
    if not host.slowdown:
        return [0.0] * len(plan.launches)
    unit = host.seconds(1.0)
    return [unit * micros for micros in _operators_on_reference(plan, graph, costs, autocast)]


def _operators_on_reference(plan: KernelPlan, graph: OpGraph, costs: HostCosts, autocast: bool) -> Sequence[float]:
    """As :func:`operators`, in µs on the reference core; worked out once for all sizes with the same kernels."""
    kept = graph.memo.setdefault(("issued operators", costs, autocast), {})
    key = (id(plan.launches), tuple([(kernel.op, kernel.algorithm, kernel.count) for kernel in plan.kernels]))
    launches, issued = kept.get(key, (None, ()))
    if launches is not plan.launches:
        issued = _issue_operators(plan, graph, costs, autocast)
        kept[key] = (plan.launches, issued)
    return issued  # type: ignore[no-any-return]


def _issue_operators(plan: KernelPlan, graph: OpGraph, costs: HostCosts, autocast: bool) -> Sequence[float]:
    base = node_us(graph, costs)
    further = [0.0] * len(base)
    started = [False] * len(base)
    look = costs.autocast if autocast else 0.0
    for launch in plan.launches:
        kernel, node = plan.kernels[launch.kernel], launch.nodes[-1]
        if kernel.algorithm == "cast" and graph.nodes[node].op != kernel.op:
            further[node] += costs.cast
        elif kernel.op != graph.nodes[node].op and graph.nodes[node].op in LAYERS:
            further[node] += costs.classes[class_of(kernel.op)] + costs.allocation
        elif kernel.algorithm in INNER:
            further[node] += costs.inner
        elif kernel.algorithm in CONVERSIONS:
            further[node] += costs.conversion
        elif started[node]:
            further[node] += costs.launch * kernel.count
        else:
            started[node] = True
            looked = look if graph.nodes[node].phase is NodePhase.FORWARD else 0.0  # backward leaves autocast
            further[node] += looked + costs.launch * (kernel.count - 1)
            if kernel.algorithm == "direct_depthwise":
                further[node] += costs.classes["native_convolution"] - costs.classes["convolution"]
    done = list(accumulate(own + more for own, more in zip(base, further, strict=True)))
    return [done[launch.nodes[-1]] for launch in plan.launches]


def node_us(graph: OpGraph, costs: HostCosts) -> Sequence[float]:
    """µs on the reference core of each node by itself: class, result, and the modules called on the way to it."""
    key = ("host costs", costs)
    known: Sequence[float] | None = graph.memo.get(key)
    if known is None:
        called, path = [], ""
        for node in graph.nodes:
            called.append(_called(path, node.module))
            path = node.module
        known = graph.memo[key] = tuple(_of_nodes(graph, costs, called))
    return known


def _of_nodes(graph: OpGraph, costs: HostCosts, called: Sequence[int]) -> Iterator[float]:
    """As :func:`node_us`; ``called`` modules lead to each node."""
    if graph.gradients:
        yield from step_costs(graph, costs, called)
        return
    for node, modules in zip(graph.nodes, called, strict=True):
        kind = class_of(node.op)
        if kind == "normalization" and writes_statistics(graph, node.call):
            kind = "statistics"
        makes = 0 if node.in_place or kind == "view" else len(node.outputs)
        layer = LAYERS.get(node.op)
        around = 0.0 if layer is None else layer.views * costs.classes["view"] + layer.python_us
        yield costs.classes[kind] + costs.allocation * min(makes, 1) + costs.module * modules + around


def _called(before: str, now: str) -> int:
    """How many modules are entered between two operators: names in the path of the second that the first lacks.

    >>> _called("layer1.0.conv1", "layer1.0.bn1"), _called("layer1.0.bn1", "layer1.1.conv1"), _called("a", "a")
    (1, 2, 0)
    """
    if before == now or not now:
        return 0
    left, right = before.split("."), now.split(".")
    shared = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return len(right) - shared


def writes_statistics(graph: OpGraph, call: int) -> bool:
    """Whether a call is a batch norm that takes the batch's statistics and updates its running ones."""
    arguments = graph.calls[call]
    return arguments.op == "aten.batch_norm" and dict(arguments.arguments).get("training") is True


def compiled(plan: KernelPlan, graph: OpGraph, host: HostProfile, costs: HostCosts) -> list[float]:
    """Guards once, then each generated kernel and each call of a library in turn."""
    if not host.slowdown:
        return [host.guards_s] * len(plan.launches)
    done = host.guards_s + host.seconds(costs.compiled.call)
    issued = []
    for launch in plan.launches:
        done += host.seconds(_call(plan.kernels[launch.kernel], costs))
        issued.append(done + host.seconds(costs.compiled.statistics * _statistics(graph, launch.nodes)))
        done = issued[-1]
    return issued


def _call(kernel: Kernel, costs: HostCosts) -> float:
    """µs on the reference core of one launch out of generated code."""
    if kernel.op.startswith("aten.conv"):
        return costs.compiled.convolution if kernel.matrix_flops else costs.compiled.generated
    if not kernel.matrix_flops:
        return costs.compiled.generated
    return costs.compiled.product if kernel.algorithm in ("gemm", "batched_gemm") else costs.compiled.other


def _statistics(graph: OpGraph, nodes: Sequence[int]) -> int:
    return sum(writes_statistics(graph, graph.nodes[node].call) for node in nodes)


def captured(plan: KernelPlan, graph: OpGraph, host: HostProfile, costs: CapturedCosts) -> list[float]:
    """One call, then a kernel every ``gap_us`` at most, whatever the host."""
    nodes = sum(writes_statistics(graph, node.call) for node in graph.nodes)
    begun = host.guards_s + host.seconds(costs.call + costs.statistics * nodes)
    gap = costs.gap_us * 1e-6 if host.slowdown else 0.0
    return [begun + gap * i for i in range(len(plan.launches))]
