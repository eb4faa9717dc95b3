"""An OpGraph as plain JSON values, sizes as codes: what a cache file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from costmodel.domain import Domain
from costmodel.execution import NodePhase, WeightScheme
from costmodel.graph import OpGraph, Symbol
from costmodel.nodes import Assumption, Call, DimCode, OpNode, SpecRef, Storage, Tensor
from costmodel.tensor import Role, TensorSpec

__all__ = ["from_json", "to_json"]


def to_json(graph: OpGraph) -> dict[str, Any]:
    """The graph as plain JSON values. ``from_json(to_json(g))`` is ``g`` with codes for sizes."""
    coded = graph.coded()
    return {
        "symbols": [[s.name, s.default, s.multiple_of, s.minimum, s.maximum] for s in coded.symbols.values()],
        "specs": [
            [list(s.shape), s.dtype, s.role.value, None if s.strides is None else list(s.strides)] for s in coded.specs
        ],
        "calls": [[c.op, [[n, _pack(v)] for n, v in c.arguments], [_pack(v) for v in c.outputs]] for c in coded.calls],
        "storages": [[s.nbytes, s.dtype, s.role.value] for s in coded.storages],
        "tensors": [[t.spec, t.storage, t.producer, t.name] for t in coded.tensors],
        "nodes": [_node(n) for n in coded.nodes],
        "synchronizing": sorted(coded.synchronizing),
        "inputs": coded.inputs,
        "outputs": coded.outputs,
        "parameters": coded.parameters,
        "parameter_bytes": coded.parameter_bytes_of,
        "buffer_bytes": coded.buffer_bytes_of,
        **({"places": coded.places} if coded.places else {}),
        **({"gradients": coded.gradients} if coded.gradients else {}),
        **({"sparse_rows": coded.sparse_rows} if coded.sparse_rows else {}),
        **({"let_go": list(coded.let_go.items())} if coded.let_go else {}),
        "notes": list(coded.notes),
        "executed": coded.executed,
        "assumed": [[a.name, a.answer, a.where, a.count] for a in coded.assumed],
        "layout": coded.layout,
        "device": coded.device,
        **({"weights": coded.weights.plain()} if coded.weights else {}),
        "batch": coded.batch,
        "domain": None if coded.domain is None else _domain_json(coded.domain),
    }


def from_json(data: Mapping[str, Any]) -> OpGraph:
    """Read what :func:`to_json` wrote. Raises KeyError, TypeError or ValueError when it is not that."""
    calls = [
        Call(op, tuple((n, _unpack(v)) for n, v in arguments), tuple(_unpack(v) for v in outputs))
        for op, arguments, outputs in data["calls"]
    ]
    roles = {role.value: role for role in Role}
    nodes = [_read_node(calls, *fields) for fields in data["nodes"]]
    for index in data.get("synchronizing", ()):
        nodes[index] = replace(nodes[index], synchronizes=True)
    return OpGraph(
        symbols={
            name: Symbol(name, default, multiple, minimum, *maximum)
            for name, default, multiple, minimum, *maximum in data["symbols"]
        },
        specs=[
            TensorSpec(tuple(shape), dtype, roles[role], "", None if strides is None else tuple(strides))
            for shape, dtype, role, strides in data["specs"]
        ],
        calls=calls,
        storages=[Storage(nbytes, dtype, roles[role]) for nbytes, dtype, role in data["storages"]],
        tensors=[Tensor(*fields) for fields in data["tensors"]],
        nodes=nodes,
        inputs=list(data["inputs"]),
        outputs=list(data["outputs"]),
        parameters=dict(data["parameters"]),
        parameter_bytes_of=_by_dtype(data["parameter_bytes"]),
        buffer_bytes_of=_by_dtype(data["buffer_bytes"]),
        places={str(path): int(count) for path, count in data.get("places", {}).items()},
        gradients=dict(data.get("gradients", {})),
        sparse_rows=dict(data.get("sparse_rows", {})),
        let_go=dict(data.get("let_go", ())),
        notes=tuple(data["notes"]),
        executed=data.get("executed", ""),
        assumed=tuple(Assumption(*fields) for fields in data.get("assumed", ())),
        layout=data["layout"],
        device=data.get("device", ""),
        weights=WeightScheme.read(data.get("weights")),
        batch=data.get("batch"),
        domain=_domain(data.get("domain")),
    )


def _node(node: OpNode) -> list[Any]:
    """Fields of a node; phase, autocast and forward node, last, only where they are not a plain forward pass's."""
    where = [node.name, node.module, node.module_type, node.call]
    flow = [list(node.inputs), list(node.outputs), node.in_place, list(node.after)]
    special = node.phase is not NodePhase.FORWARD or bool(node.autocast)
    return [*where, *flow] + [node.phase.value, node.autocast, node.forward] * special


def _read_node(
    calls: list[Call], name: str, module: str, kind: str, call: int, ins: list[int], outs: list[int], in_place: bool,
    after: list[int], phase: str = NodePhase.FORWARD.value,
    autocast: str = "",
    forward: int | None = None,
) -> OpNode:  # fmt: skip
    flow = (tuple(ins), tuple(outs), in_place, tuple(after))
    return OpNode(name, calls[call].op, module, kind, call, *flow, NodePhase(phase), autocast=autocast, forward=forward)


def _by_dtype(nbytes: dict[str, int] | int) -> dict[str, int]:
    """B by dtype; one number, as earlier entries hold it, is taken for fp32."""
    return dict(nbytes) if isinstance(nbytes, dict) else {"float32": nbytes} if nbytes else {}


def _domain_json(domain: Domain) -> dict[str, Any]:
    points = [[list(size) for size in point] for point in sorted(domain.points)]
    between = {name: list(ends) for name, ends in domain.between.items()}
    return {"between": between, "points": points, **({"each_batch": True} if domain.each_batch else {})}


def _domain(data: Mapping[str, Any] | None) -> Domain | None:
    if data is None:
        return None
    points = frozenset(tuple((str(name), int(size)) for name, size in point) for point in data["points"])
    between = {name: (int(low), int(high)) for name, (low, high) in data["between"].items()}
    return Domain(between, points, bool(data.get("each_batch", False)))


def _pack(value: Any) -> Any:
    if isinstance(value, SpecRef):
        return {"spec": value.spec}
    if isinstance(value, DimCode):
        return {"dim": value.dim}
    if isinstance(value, tuple):
        return [_pack(v) for v in value]
    return value


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        return SpecRef(value["spec"]) if "spec" in value else DimCode(value["dim"])
    if isinstance(value, list):
        return tuple(_unpack(v) for v in value)
    return value
