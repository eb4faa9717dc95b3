"""What keys and values of a step of decoding take and cost: bytes by layer, and where they pass the weights.

A step reads every weight once whatever the batch, and of each sequence all that its cache holds. So there is a context
from which the cache is more traffic than the weights, and from which more sequences at once save little.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    ``equal``        the context at which as many bytes of the cache as of weights are read, in the symbol ``batch``,
                     on which it hangs too how many experts are met; None where the cache does not grow
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
    read = list(_weights_read(analysis))
    weights = sum(weight.nbytes * weight.share(batch) for weight in read)
    equal = _equal(read, token, state) if token else None
    spare = analysis.memory.spare_bytes
    room = None if not math.isfinite(spare) or not token else max(0, int(spare // token))
    here = max(0.0, weights / batch - state) / token if token else None
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


class _Weight(NamedTuple):
    """A weight that a step reads once: its bytes, and of experts how many there are and how many a row chooses, of
    ``rows`` rows for each sequence."""

    nbytes: float
    experts: int = 0
    chosen: int = 0
    rows: int = 1

    def share(self, batch: Any) -> Any:
        """Share of it that is read [1], for a number of sequences or a symbol."""
        return expected_experts(self.experts, self.chosen, self.rows * batch) / self.experts if self.experts else 1


def _weights_read(analysis: Analysis) -> Iterator[_Weight]:
    """The weights that a step reads; of two readers the one that reads more counts."""
    graph, plan, batch = analysis.bound, analysis.plan, analysis.execution.batch
    found: dict[int, _Weight] = {}
    for node in graph.nodes:
        if is_free(node.op) or node.op == "aten.embedding":
            continue
        experts = chosen = 0
        rows = 1
        if node.op in _EXPERTS:
            arguments = graph.arguments(graph.calls[node.call])
            chosen = arguments["chosen"]
            experts = arguments.get("experts") or arguments["weight"].shape[-3]
            rows = arguments["input"].shape[0] // chosen // batch
        for tensor in node.inputs:
            storage = graph.tensors[tensor].storage
            if graph.storages[storage].role is Role.PARAMETER:
                weight = _Weight(plan.storage_bytes[storage], experts, chosen, rows)
                known = found.get(storage)
                if known is None or known.share(batch) < weight.share(batch):
                    found[storage] = weight
    yield from found.values()


def _equal(weights: list[_Weight], token: float, state: float) -> Any:
    """The context at which cache and weights are equal, with the batch as a symbol."""
    from sympy import Rational, Symbol, factor_terms

    batch = Symbol("batch", positive=True)
    whole: dict[Any, int] = defaultdict(int)
    for weight in weights:
        whole[weight.share(batch)] += round(weight.nbytes)
    read = sum((share * nbytes for share, nbytes in whole.items()), Rational(0))
    found = (read - batch * round(state)) / (batch * Rational(round(token)))
    return factor_terms(found).subs(batch, Symbol("batch"))
