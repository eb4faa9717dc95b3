"""What a training step asks of the host, node by node: forward with autograd, its engine, the optimizer.

A trace of training shows operators one level below those that Python calls: ``addmm`` and the transposed view that
``linear`` makes for it. Only the first call of a module is Python's; what C++ calls for itself is cheaper. Backward, a
thread of autograd's own runs one function after the other while Python waits: no module is called, but every function
and every gradient that is kept costs something of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from costmodel.execution import NodePhase
from costmodel.execution.optimizer import STATES
from costmodel.graph import OpGraph
from costmodel.host.costs import HostCosts, class_of
from costmodel.nodes import OpNode, SpecRef
from costmodel.tensor import Role

__all__ = ["step_costs"]

#: Operators that ``linear`` and ``matmul`` call for the product itself.
_PRODUCTS = frozenset({"aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"})
#: What cuDNN's batch norm keeps for its backward pass is made inside its call.
_RESERVES = frozenset({"aten.empty"})
#: States of parameters, by torch's names.
_STATE_NAMES = frozenset(name for names in STATES.values() for name in names)


def step_costs(graph: OpGraph, costs: HostCosts, called: Sequence[int]) -> Iterator[float]:
    """µs on the reference core of each node of a training step by itself; ``called`` modules on the way to each."""
    gradients = set(graph.gradients.values())
    phase, function = NodePhase.FORWARD, None
    inner = _inner_views(graph)
    for index, (node, modules) in enumerate(zip(graph.nodes, called, strict=True)):
        own = costs.module * modules
        if node.phase is NodePhase.OPTIMIZER:
            own = _of_optimizer(graph, node, costs)
            if phase is not node.phase:
                own += _of_parameters(graph, costs)
        elif node.phase is NodePhase.FORWARD or _is_computed_again(node):
            own += _of_forward(node, costs, is_inner=index in inner)
        else:
            own = _of_backward(graph, node, costs)
            own += costs.training.function * (node.forward != function)
            own += costs.training.accumulated * sum(t in gradients for t in node.outputs)
            function = node.forward
        if node.phase is NodePhase.BACKWARD and phase is not node.phase:
            own += costs.training.begun
        phase = node.phase
        yield own


def _is_computed_again(node: OpNode) -> bool:
    """Whether a node of the backward pass is a checkpoint's, which Python computes once more."""
    return node.forward is None and bool(node.module)


def _inner_views(graph: OpGraph) -> frozenset[int]:
    """Views that ``linear`` and ``matmul`` make around their product, and what a batch norm makes for itself."""
    nodes = graph.nodes
    found = {i for i, node in enumerate(nodes) if node.op in _RESERVES}
    for index, node in enumerate(nodes):
        if node.op not in _PRODUCTS or node.phase is not NodePhase.FORWARD:
            continue
        for direction in (-1, 1):
            near = index + direction
            while 0 <= near < len(nodes) and class_of(nodes[near].op) == "view" and nodes[near].module == node.module:
                found.add(near)
                near += direction
    return frozenset(found)


def _results(node: OpNode) -> int:
    return 0 if node.in_place or class_of(node.op) == "view" else len(node.outputs)


def _of_forward(node: OpNode, costs: HostCosts, *, is_inner: bool) -> float:
    if is_inner:
        return costs.training.view + costs.training.differentiated
    kind = class_of(node.op)
    if kind == "normalization" and node.op.endswith("batch_norm"):
        kind = "statistics"
    return costs.classes[kind] + costs.allocation * min(_results(node), 1) + costs.training.differentiated


def _of_backward(graph: OpGraph, node: OpNode, costs: HostCosts) -> float:
    kind = class_of(node.op)
    if kind == "view":
        return costs.training.view
    calls = 1
    if node.op == "aten.convolution_backward":  # a call of the library for each of the two gradients
        mask: Mapping[str, object] = dict(graph.calls[node.call].arguments)
        wanted = mask.get("output_mask")
        calls = sum(map(bool, wanted[:2])) if isinstance(wanted, tuple) else min(len(node.outputs), 2)
    return calls * costs.classes[kind] - costs.python + costs.allocation * min(_results(node), 2)


def _of_optimizer(graph: OpGraph, node: OpNode, costs: HostCosts) -> float:
    """A call from Python; each tensor of its lists is unpacked and checked, and each that is made is allocated."""
    listed = [value for _, value in graph.calls[node.call].arguments if isinstance(value, tuple)]
    tensors = [ref for value in listed for ref in value if isinstance(ref, SpecRef)]
    made = 0 if node.in_place else len(node.outputs)
    own = costs.training.listed * len(tensors) + costs.allocation * made
    of_host = bool(tensors) and graph.specs[tensors[0].spec].role is Role.HOST  # counted with Python's loops
    return own if of_host else own + costs.classes[class_of(node.op)]


def _of_parameters(graph: OpGraph, costs: HostCosts) -> float:
    """Python's loops over parameters in ``step`` and ``zero_grad``: once a step, whatever is called then."""
    training = costs.training
    kept = (t.name.rpartition(".")[2] for t in graph.tensors if graph.specs[t.spec].role is Role.STATE)
    states = len(_STATE_NAMES.intersection(kept))
    counted = training.counted if any(s.role is Role.HOST for s in graph.storages) else 0.0
    return training.step + len(graph.gradients) * (training.parameter + training.state * states + counted)
