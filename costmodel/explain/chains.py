"""What the data flow of a step says: results that fusion would keep on chip, and the longest path through the DAG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from costmodel.explain.causes import cause_of
from costmodel.formulas import is_free
from costmodel.graph import OpGraph
from costmodel.kernels import KernelPlan

__all__ = ["fusible_share", "longest_path", "readers", "source"]

_FUSIBLE = ("elementwise", "normalization")


def source(graph: OpGraph, tensor: int) -> int:
    """The tensor that holds the data of ``tensor``: views are looked through."""
    while True:
        producer = graph.tensors[tensor].producer
        if producer is None or not is_free(graph.nodes[producer].op) or not graph.nodes[producer].inputs:
            return tensor
        tensor = graph.nodes[producer].inputs[0]


def readers(graph: OpGraph) -> dict[int, list[int]]:
    """For each tensor that is no view, the nodes that compute from it; kept in the graph's memo."""
    known: dict[int, list[int]] | None = graph.memo.get("explain: readers")
    if known is None:
        known = graph.memo["explain: readers"] = {}
        for index, node in enumerate(graph.nodes):
            if not is_free(node.op):
                for tensor in {source(graph, t) for t in node.inputs}:
                    known.setdefault(tensor, []).append(index)
    return known


def fusible_share(plan: KernelPlan, graph: OpGraph) -> dict[int, float]:
    """For each launch of an eager chain, the share of its bytes that fusing the chain would save [1].

    A result counts where one element-wise or normalization kernel writes it and one other alone reads it: both its
    writing and its reading go.
    """
    of_node: dict[int, int] = {}
    for position, launch in enumerate(plan.launches):
        if cause_of(plan.kernels[launch.kernel]) in _FUSIBLE:
            of_node[launch.nodes[-1]] = position
    saved: dict[int, float] = {}
    results = {source(graph, t) for t in graph.outputs}
    for tensor, found in readers(graph).items():
        producer = graph.tensors[tensor].producer
        if producer is None or producer not in of_node or tensor in results:
            continue
        if len(found) == 1 and found[0] in of_node:
            nbytes = _run_bytes(plan, graph, tensor)
            for node in (producer, found[0]):
                saved[of_node[node]] = saved.get(of_node[node], 0.0) + nbytes
    kernels, launches = plan.kernels, plan.launches
    return {at: min(nbytes / max(kernels[launches[at].kernel].bytes, 1), 1.0) for at, nbytes in saved.items()}


def _run_bytes(plan: KernelPlan, graph: OpGraph, tensor: int) -> float:
    """Bytes of a tensor in the dtype of the run."""
    found = graph.tensors[tensor]
    nbytes: float = graph.specs[found.spec].nbytes  # type: ignore[assignment]
    scale: float = plan.storage_bytes[found.storage] / max(graph.storages[found.storage].nbytes, 1)
    return nbytes * scale


def longest_path(graph: OpGraph, seconds: Mapping[int, float]) -> tuple[float, Sequence[int]]:
    """The path through the DAG that takes longest when node ``i`` takes ``seconds[i]``: its length and its nodes.

    This is what a machine would need that runs all independent nodes side by side at full speed.
    """
    ends: list[float] = []
    came_from: list[int | None] = []
    for index in range(len(graph.nodes)):
        before = graph.predecessors(index)
        last = max(before, key=lambda i: ends[i], default=None)
        came_from.append(last)
        ends.append(seconds.get(index, 0.0) + (ends[last] if last is not None else 0.0))
    if not ends:
        return 0.0, ()
    at: int | None = max(range(len(ends)), key=ends.__getitem__)
    length, path = ends[at], []  # type: ignore[index]
    while at is not None:
        path.append(at)
        at = came_from[at]
    return length, path[::-1]
