"""Seen: a node as a counter sees it: the operator, the module whose forward called it, the shapes, and our count."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from costmodel.costing import GraphCosts
from costmodel.graph import OpGraph
from costmodel.tensor import TensorSpec

__all__ = ["Seen", "seen_nodes"]

_TORCH = "torch.nn.modules."


@dataclass(frozen=True, slots=True)
class Seen:
    """One operator call of a graph in numbers.

    ``op``        without its namespace, as people call it: ``conv2d``
    ``layer``     class of the module that called it where it is one of torch.nn itself (``Conv2d``), else empty: hooks
                  by type do not see subclasses
    ``kind``      qualified class of the module; ``inside`` those of the modules around it, as far as they call
                  operators themselves
    ``arguments`` by schema name; ``outputs`` its results
    ``places``    in how many places of the model the module hangs
    ``macs``, ``flops``  our count
    """

    name: str
    op: str
    layer: str
    kind: str
    inside: tuple[str, ...]
    arguments: Mapping[str, Any]
    outputs: tuple[TensorSpec, ...]
    macs: int
    flops: int
    in_place: bool = False
    places: int = 1

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor argument; empty where there is none."""
        value = self.arguments.get(name)
        return tuple(value.shape) if isinstance(value, TensorSpec) else ()  # type: ignore[arg-type]

    def has(self, name: str) -> bool:
        """Whether a tensor was given for this argument."""
        return isinstance(self.arguments.get(name), TensorSpec)

    @property
    def input(self) -> tuple[int, ...]:
        """Shape of the first tensor among the arguments."""
        first = next((value for value in self.arguments.values() if isinstance(value, TensorSpec)), None)
        return tuple(first.shape) if first is not None else ()  # type: ignore[arg-type]

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return tuple(self.outputs[0].shape) if self.outputs else ()  # type: ignore[arg-type]

    @property
    def elements_in(self) -> int:
        """Elements of :attr:`input`."""
        return math.prod(self.input)

    @property
    def elements_out(self) -> int:
        """Elements of :attr:`output`."""
        return math.prod(self.output)

    @property
    def is_convolution(self) -> bool:
        """Whether it is one, transposed or not."""
        return self.op.startswith("conv")

    @property
    def is_transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return "transpose" in self.op


def seen_nodes(graph: OpGraph, costs: GraphCosts) -> Iterator[Seen]:
    """Every node of a graph in numbers, in program order."""
    kinds = {node.module: node.module_type for node in graph.nodes}
    for index, node in enumerate(graph.nodes):
        cost, names = costs.of_node(index), node.module.split(".") if node.module else []
        around = (".".join(names[:depth]) for depth in range(len(names)))
        kind = node.module_type
        yield Seen(
            name=node.name,
            op=node.op.rpartition(".")[2].removeprefix("_").removesuffix("_kernel"),
            layer=kind.rpartition(".")[2] if kind.startswith(_TORCH) else "",
            kind=kind,
            inside=tuple(kinds[path] for path in around if path in kinds),
            arguments=graph.arguments(graph.calls[node.call]),
            outputs=tuple(graph.specs[graph.tensors[tensor].spec] for tensor in node.outputs),
            macs=int(cost.macs),  # type: ignore[arg-type]
            flops=int(cost.flops),  # type: ignore[arg-type]
            in_place=node.in_place,
            places=graph.places.get(node.module, 1),
        )
