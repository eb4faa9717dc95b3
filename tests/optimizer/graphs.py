"""Training graphs by hand: parameters, a loss, the seed of the gradient, and a gradient for each parameter."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.execution import NodePhase
from costmodel.graph import OpGraph
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.tensor import Role, TensorSpec

SHAPES = ((4, 3, 2, 2), (4,), (5, 4), (5,))


def training_graph(shapes: Sequence[tuple[int, ...]] = SHAPES, dtypes: Sequence[str] = ()) -> OpGraph:
    """The loss is the sum of the first parameter, whatever the gradients say; the last parameter has no gradient."""
    dtypes = dtypes or ["float32"] * len(shapes)
    size = {"float32": 4, "float64": 8, "float16": 2}
    specs = [TensorSpec(shape, dtype, Role.PARAMETER) for shape, dtype in zip(shapes, dtypes, strict=True)]
    specs += [TensorSpec(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    specs.append(TensorSpec(()))
    scalar, count = len(specs) - 1, len(shapes)
    tensors = [Tensor(i, i, None, f"layer{i}.weight") for i in range(count)]
    tensors += [Tensor(scalar, count, 0, "loss"), Tensor(scalar, count + 1, 1)]
    storages = [Storage(s.numel * size[s.dtype], s.dtype, s.role) for s in specs[:count]] + [
        Storage(4, "float32", Role.ACTIVATION) for _ in range(2)
    ]
    calls = [
        Call("aten.sum", (("input", SpecRef(0)),), (SpecRef(scalar),)),
        Call("aten.ones_like", (("input", SpecRef(scalar)),), (SpecRef(scalar),)),
    ]
    nodes = [
        OpNode("loss", "aten.sum", "", "Net", 0, (0,), (count,)),
        OpNode("seed", "aten.ones_like", "", "Net", 1, (count,), (count + 1,), phase=NodePhase.BACKWARD, forward=0),
    ]
    gradients = {}
    for i in range(count - 1):
        calls.append(Call("aten.clone", (("input", SpecRef(scalar)),), (SpecRef(count + i),)))
        tensors.append(Tensor(count + i, len(storages), len(nodes)))
        storages.append(Storage(storages[i].nbytes, dtypes[i], Role.ACTIVATION))
        gradients[f"layer{i}.weight"] = len(tensors) - 1
        nodes.append(
            OpNode(f"grad{i}", "aten.clone", f"layer{i}", "Layer", len(calls) - 1, (count + 1,), (len(tensors) - 1,),
                   phase=NodePhase.BACKWARD, forward=0)
        )  # fmt: skip
    return OpGraph(
        symbols={}, specs=specs, calls=calls, storages=storages, tensors=tensors, nodes=nodes, inputs=[],
        outputs=[count], parameters={t.name: specs[t.spec].numel for t in tensors[:count]}, gradients=gradients,
    )  # fmt: skip
