"""What keys and values of a step of decoding take and cost: bytes by layer, and where they pass the weights.

A step reads every weight once whatever the batch, and of each sequence all that its cache holds. So there is a context
from which the cache is more traffic than the weights, and from which more sequences at once save little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costmodel.analysis import Analysis
from costmodel.errors import InputError
from costmodel.execution import Phase
from costmodel.formulas import is_free
from costmodel.formulas.experts import expected_experts
from costmodel.tensor import CACHED, Role

__all__ = ["CacheTraffic", "cache_traffic"]

#: Operators of experts, which read of their weights those that tokens are expected to meet.
_EXPERTS = ("costmodel.grouped_mm", "costmodel.packed_grouped_mm")


@dataclass(frozen=True)
class CacheTraffic:
    """The cache of a step of decoding beside the weights, in B.

    ``by_layer``     what each layer keeps of all sequences, by the layer's number as the cache counts it
    ``bytes``        of all layers
    ``token_bytes``  what one more token of one sequence adds; 0 for states that do not grow
    ``state_bytes``  of one sequence, whatever its length: states of recurrent layers, windows that are full
    ``weight_bytes`` read in a step: all that is not looked up in, of experts those that are expected to be met
    ``equal``        the context at which as many bytes of the cache as of weights are read, in the symbol ``batch``;
                     None where the cache does not grow
    ``equal_context``   the same at this batch [tokens], None where the cache does not grow
    ``room_tokens``  tokens that the machine's memory has room for beyond those that lie there, of all sequences;
                     None where nobody knows its memory
    """

    by_layer: Mapping[str, float]
    bytes: float
    token_bytes: float
    state_bytes: float
    weight_bytes: float
    equal: Any
    equal_context: float | None
    room_tokens: int | None

    @property
    def share(self) -> float:
        """Share of the cache in what a step reads of cache and weights [1]."""
        return self.bytes / (self.bytes + self.weight_bytes)


def cache_traffic(analysis: Analysis) -> CacheTraffic:
    """The cache of a step of decoding. Raises InputError for another phase."""
    if analysis.execution.phase is not Phase.DECODE:
        raise InputError("a cache is what a step of decoding finds\n  give phase='decode'")
    graph, plan, batch = analysis.bound, analysis.plan, analysis.execution.batch
    by_layer: dict[str, float] = {}
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if tensor.name.startswith(CACHED):
            layer = next((part for part in tensor.name.split(".") if part.isdigit()), "0")
            spec: Any = graph.specs[tensor.spec]
            scale = plan.storage_bytes[tensor.storage] / (graph.storages[tensor.storage].nbytes or 1)
            by_layer[layer] = by_layer.get(layer, 0.0) + spec.nbytes * scale
    whole = sum(by_layer.values())
    token = _growth(analysis, (by_layer and whole) or 0.0) / batch
    context = analysis.execution.sizes.get("context", 0)
    state = max(0.0, whole / batch - token * context)
    weights = _weights_read(analysis)
    equal = _equal(weights, token, state) if token else None
    spare = analysis.memory.spare_bytes
    room = None if not math.isfinite(spare) or not token else int(spare // token)
    here = None if equal is None else max(0.0, float(equal.subs("batch", batch)))
    return CacheTraffic(by_layer, whole, token, state, weights, equal, here, room)


def _growth(analysis: Analysis, whole: float) -> float:
    """B that one more token of every sequence adds, by the graph's own expressions."""
    from sympy import Symbol

    if "context" not in analysis.record.symbols or not whole:
        return 0.0
    graph = analysis.symbolic
    context = next(
        (s for index in graph.inputs for s in _symbols(graph.specs[graph.tensors[index].spec].nbytes)
         if s.name == "context"), Symbol("context"),
    )  # fmt: skip
    sizes: dict[Any, int] = {"batch": analysis.execution.batch, **analysis.execution.sizes}
    total = 0.0
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if not tensor.name.startswith(CACHED):
            continue
        nbytes: Any = graph.specs[tensor.spec].nbytes
        if context not in _symbols(nbytes):
            continue
        bound = analysis.bound
        scale = analysis.plan.storage_bytes[tensor.storage] / (bound.storages[tensor.storage].nbytes or 1)
        slope = nbytes.diff(context)
        total += scale * float(slope.subs({s: sizes[s.name] for s in _symbols(slope)}))
    return total


def _symbols(expression: Any) -> set[Any]:
    return set(getattr(expression, "free_symbols", ()))


def _weights_read(analysis: Analysis) -> float:
    """B of weights that a step reads, each once."""
    graph, plan = analysis.bound, analysis.plan
    shares: dict[int, float] = {}
    for node in graph.nodes:
        if is_free(node.op) or node.op == "aten.embedding":
            continue
        share = 1.0
        if node.op in _EXPERTS:
            arguments = graph.arguments(graph.calls[node.call])
            chosen = arguments["chosen"]
            experts = arguments.get("experts") or arguments["weight"].shape[-3]
            share = expected_experts(experts, chosen, arguments["input"].shape[0] // chosen) / experts
        for tensor in node.inputs:
            storage = graph.tensors[tensor].storage
            if graph.storages[storage].role is Role.PARAMETER:
                shares[storage] = max(share, shares.get(storage, 0.0))
    return sum(share * plan.storage_bytes[storage] for storage, share in shares.items())


def _equal(weights: float, token: float, state: float) -> Any:
    """The context at which cache and weights are equal, solved for the batch as a symbol."""
    from sympy import Rational, Symbol, solve

    batch, context = Symbol("batch", positive=True), Symbol("context", positive=True)
    growth, kept, read = (Rational(round(value)) for value in (token, state, weights))
    (found,) = solve(batch * (growth * context + kept) - read, context)
    return found.subs(batch, Symbol("batch"))
