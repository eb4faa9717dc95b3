"""From graph to plan: work is kept, nodes are served in order, equal calls share a kernel, casts stand ahead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from costmodel.costing import cost_graph
from costmodel.engines import lower
from costmodel.execution import DTYPES, Execution
from costmodel.formulas import is_free
from costmodel.hardware import load

GPU = load("a100")


class Block(nn.Module):
    """Two equal residual branches of convolution, norm and ReLU, then a head."""

    def __init__(self):
        super().__init__()
        self.first, self.second = self.branch(), self.branch()
        self.head = nn.Linear(8, 5)

    @staticmethod
    def branch():
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))

    def forward(self, x):
        x = 2 * x
        x = x + self.first(x)
        x = x + self.second(x)
        return self.head(x.flatten(2).mean(2))


@pytest.fixture(scope="module")
def graph(traced):
    return traced(Block(), torch.empty(2, 8, 14, 14))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hardware", ["a100", "v100", "xeon-6148"])
def test_lowering_keeps_the_flops(graph, dtype, hardware):
    """What the model asks is what the machine runs, whatever is copied, cast or split besides."""
    plan = lower(graph, Execution.of(dtype=dtype, batch=2), load(hardware))
    run = [plan.kernels[launch.kernel] for launch in plan.launches]
    asked = cost_graph(graph).total
    assert sum(k.matrix_flops for k in run) == asked.matrix_flops
    assert sum(k.vector_flops for k in run) == asked.vector_flops


@pytest.mark.parametrize("dtype", ["fp32", "amp_fp16"])
def test_every_node_that_is_no_view_is_served_in_program_order(graph, dtype):
    plan = lower(graph, Execution.of(dtype=dtype, batch=2), GPU)
    served = [node for launch in plan.launches for node in launch.nodes]
    assert served == sorted(served)
    assert set(served) == {i for i, node in enumerate(graph.nodes) if not is_free(node.op)}


def test_equal_calls_share_a_kernel(graph):
    plan = lower(graph, Execution.of(batch=2), GPU)
    by_kernel = {}
    for launch in plan.launches:
        by_kernel.setdefault(launch.kernel, []).append(graph.nodes[launch.nodes[0]].op)
    convolutions = [ops for ops in by_kernel.values() if "aten.conv2d" in ops]
    assert convolutions and all(ops == ["aten.conv2d"] * 2 for ops in convolutions)


def test_casts_run_ahead_of_the_node_that_asks_for_them(graph):
    plan = lower(graph, Execution.of(dtype="amp_fp16", batch=2), GPU)
    for node in range(len(graph.nodes)):
        own = [plan.kernels[launch.kernel].algorithm for launch in plan.launches if launch.nodes == (node,)]
        assert own == sorted(own, key=lambda name: name != "cast")


def test_plan_of_a_binding_has_its_sizes_though_structure_is_shared(traced):
    from costmodel.sources import from_module
    from costmodel.trace import trace

    record = trace(from_module(nn.Linear(16, 4, bias=False).eval(), torch.empty(2, 16)))
    for batch in (1, 7, 64):
        plan = lower(record.bind({"batch": batch}), Execution.of(batch=batch), GPU)
        assert [k.matrix_flops for k in plan.kernels] == [2 * batch * 16 * 4]


def scales(graph, **conditions):
    """Bytes of each storage in a run over its bytes as traced."""
    stored = lower(graph, Execution.of(batch=2, **conditions), GPU).storage_bytes
    return [nbytes / storage.nbytes for nbytes, storage in zip(stored, graph.storages, strict=False)]


def test_storages_shrink_with_the_dtype_of_what_lies_in_them(graph):
    """model.to(fp16) halves everything; autocast leaves the step's input and the weights as they are."""
    used = {graph.tensors[t].storage for node in graph.nodes for t in (*node.inputs, *node.outputs)}
    half = scales(graph, dtype="fp16")
    assert {half[s] for s in used if graph.storages[s].dtype == "float32"} == {0.5}
    mixed = scales(graph, dtype="amp_fp16")
    kept = {graph.tensors[t].storage for t, tensor in enumerate(graph.tensors) if tensor.producer is None}
    assert {mixed[s] for s in kept & used} == {1.0}
    convolution = next(node for node in graph.nodes if node.op == "aten.conv2d")
    assert mixed[graph.tensors[convolution.outputs[0]].storage] == 0.5


def test_an_operator_without_a_formula_is_one_kernel_of_its_bytes(traced):
    from costmodel.graph import OpGraph
    from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
    from costmodel.tensor import Role, TensorSpec

    graph = OpGraph(
        symbols={},
        specs=[TensorSpec((3, 5))],
        calls=[Call("mylib.magic", (("input", SpecRef(0)),), (SpecRef(0),))],
        storages=[Storage(60, "float32", Role.INPUT), Storage(60, "float32", Role.ACTIVATION)],
        tensors=[Tensor(0, 0, None, "x"), Tensor(0, 1, 0)],
        nodes=[OpNode("magic", "mylib.magic", "", "", 0, (0,), (1,))],
        inputs=[0],
        outputs=[1],
    )
    (kernel,) = lower(graph, Execution(), GPU).kernels
    assert (kernel.algorithm, kernel.bytes_read, kernel.bytes_written) == ("unknown", 60, 60)
