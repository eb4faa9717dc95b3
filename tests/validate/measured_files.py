"""Measured files made by hand, and a small graph, for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from costmodel.cache import CachedTrace
from costmodel.errors import TraceError, UnknownModelError
from costmodel.graph import OpGraph, Symbol
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.tensor import Role, TensorSpec

MODEL_HEADER = "model,family,device,phase,dtype,layout,mode,torch,batch,image_size,latency_ms"
OPERATOR_HEADER = "device,op,dtype,input,other,stride,padding,groups,latency_us,algorithm,timing"


def write(folder: Path, header: str, *rows: str, name: str = "timings.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def model_row(**changed: Any) -> str:
    values = {
        "model": "two_ops",
        "family": "small",
        "device": "t4",
        "phase": "infer",
        "dtype": "fp16",
        "layout": "nchw",
        "mode": "eager",
        "torch": "2.9.1",
        "batch": 8,
        "image_size": 32,
        "latency_ms": 1.5,
    }
    return ",".join(str(value) for value in {**values, **changed}.values())


def operator_row(**changed: Any) -> str:
    values = {
        "device": "t4",
        "op": "linear",
        "dtype": "fp32",
        "input": "4x5",
        "other": "6x5",
        "stride": "",
        "padding": "",
        "groups": "",
        "latency_us": 10.0,
        "algorithm": "",
        "timing": "kernel",
    }
    return ",".join(str(value) for value in {**values, **changed}.values())


def two_ops(batch: str | int = "batch") -> OpGraph:
    """relu(linear(x)): x[batch, 5], weight[6, 5], bias[6]."""
    shapes: list[tuple[Any, ...]] = [(batch, 5), (6, 5), (6,), (batch, 6)]
    roles = [Role.INPUT, Role.PARAMETER, Role.PARAMETER, Role.ACTIVATION]
    sizes = [f"{batch}*20" if isinstance(batch, str) else batch * 20, 120, 24]
    sizes += [f"{batch}*24" if isinstance(batch, str) else batch * 24] * 2
    storage_roles = [*roles, Role.ACTIVATION]
    linear = Call("aten.linear", (("input", SpecRef(0)), ("weight", SpecRef(1)), ("bias", SpecRef(2))), (SpecRef(3),))
    return OpGraph(
        symbols={"batch": Symbol("batch", 1)} if isinstance(batch, str) else {},
        specs=[TensorSpec(shape, role=role) for shape, role in zip(shapes, roles, strict=True)],
        calls=[linear, Call("aten.relu", (("input", SpecRef(3)),), (SpecRef(3),))],
        storages=[Storage(n, "float32", role) for n, role in zip(sizes, storage_roles, strict=True)],
        tensors=[Tensor(0, 0), Tensor(1, 1), Tensor(2, 2), Tensor(3, 3, 0), Tensor(3, 4, 1)],
        nodes=[
            OpNode("fc", "aten.linear", "fc", "torch.nn.Linear", 0, (0, 1, 2), (3,)),
            OpNode("relu", "aten.relu", "relu", "torch.nn.ReLU", 1, (3,), (4,)),
        ],
        inputs=[0],
        outputs=[4],
        parameters={"fc.weight": 30, "fc.bias": 6},
        parameter_bytes_of={"float32": 144},
    )


class FakeTraces:
    """Stands in for load_trace: knows a few names and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, request: str, **options: Any) -> CachedTrace:
        self.requests.append((request, options))
        name = request.removeprefix("timm:")
        if name == "untraceable":
            raise TraceError("its forward depends on data\n  more lines follow")
        if name == "broken":
            raise ZeroDivisionError("of ours")
        if name == "fixed_batch":
            return CachedTrace(name, "fake", two_ops(options.get("batch", 1)), {})
        if name == "two_branches":
            note = "branches not folded; timm:two_branches+reparameterized folds them, as for deployment"
            return CachedTrace(name, "fake", replace(two_ops(), notes=(note,)), {})
        if name not in ("two_ops", "two_branches+reparameterized") and request != "elsewhere":
            raise UnknownModelError(f"there is no {request}")
        return CachedTrace(name, "fake", two_ops(), {})
