"""Lifetimes of storages by launch, on plans small enough to be walked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from costmodel.engines import lower
from costmodel.execution import Execution, Precision
from costmodel.graph import OpGraph
from costmodel.hardware import load
from costmodel.kernels import Kernel, KernelPlan, Launch
from costmodel.kernels.plan import Read
from costmodel.memory import ExactBytes, SmallBlocks, footprint, lifetimes, occupancy, run_bytes
from costmodel.nodes import OpNode, Storage, Tensor
from costmodel.tensor import Role, TensorSpec

F32 = TensorSpec((1,), "float32", Role.ACTIVATION)


def by_hand():
    """0 is the input; the first kernel writes 1, the second 2 from 1, the third 3 from 1 and 2; 3 is put out."""
    graph = OpGraph(
        symbols={}, specs=[F32], calls=[],
        storages=[Storage(n, "float32", Role.INPUT if n == 5 else Role.ACTIVATION) for n in (5, 10, 100, 1000)],
        tensors=[Tensor(0, 0), Tensor(0, 1, 0), Tensor(0, 2, 1), Tensor(0, 3, 2)],
        nodes=[
            OpNode("a", "aten.relu", "", "", 0, (0,), (1,)),
            OpNode("b", "aten.relu", "", "", 0, (1,), (2,)),
            OpNode("c", "aten.add", "", "", 0, (1, 2), (3,)),
        ],
        inputs=[0], outputs=[3],
    )  # fmt: skip
    launches = (
        Launch(0, (0,), (Read(0, 0),), (1,)),
        Launch(0, (1,), (Read(1, 0),), (2,)),
        Launch(0, (2,), (Read(1, 0), Read(2, 0)), (3,)),
    )
    return KernelPlan((Kernel("op", "elementwise"),), launches, (5, 10, 100, 1000)), graph


def test_a_storage_lives_from_the_first_launch_that_touches_it_to_the_last():
    plan, graph = by_hand()
    assert lifetimes(plan, graph) == [((1,), ()), ((2,), ()), ((3,), (1, 2))]


def test_occupancy_counts_what_is_alive_while_a_launch_runs():
    plan, graph = by_hand()
    assert occupancy(plan, graph, ExactBytes()) == [10, 110, 1110]
    assert occupancy(plan, graph, SmallBlocks(threshold_bytes=100)) == [10, 110, 110]


def test_the_peak_is_what_lies_there_throughout_and_the_most_alive_at_once():
    plan, graph = by_hand()
    graph.parameter_bytes_of["float32"] = 400
    graph.buffer_bytes_of["int64"] = 8
    found = footprint(plan, graph, Execution())
    assert (found.peak_launch, found.peak_bytes) == (2, 400 + 8 + 5 + 1110)


@pytest.mark.parametrize(("dtype", "nbytes"), [("fp32", 400 + 10 + 8), ("fp16", 200 + 10 + 8), ("amp_fp16", 418)])
def test_only_fp32_is_moved_to_the_dtype_of_a_run(dtype, nbytes):
    assert run_bytes({"float32": 400, "bfloat16": 10, "int64": 8}, Precision.of(dtype)) == nbytes


def test_a_model_held_in_bf16_is_not_halved_again():
    import costmodel

    model = nn.Linear(1000, 10).to(torch.bfloat16)
    analysis = costmodel.analyze(model, torch.empty(1, 1000, dtype=torch.bfloat16), hw="a100", dtype="bf16")
    assert analysis.memory.parameter_bytes == 2 * (1000 * 10 + 10)
    assert analysis.totals.param_bytes == analysis.memory.parameter_bytes


def test_every_activation_of_a_traced_network_is_freed_unless_it_is_put_out(traced):
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.GELU())
    graph = traced(block, torch.empty(2, 3, 8, 8))
    found = lifetimes(lower(graph, Execution(), load("a100")), graph)
    allocated = [s for life in found for s in life.allocated]
    freed = [s for life in found for s in life.freed]
    kept = {graph.tensors[t].storage for t in graph.outputs}
    assert len(allocated) == len(set(allocated)) == 2  # the convolution's output and GELU's; a view allocates nothing
    assert set(allocated) - set(freed) == kept
    assert len(freed) == len(set(freed))


def test_autocast_holds_its_copies_of_weights_and_drops_those_of_operands():
    """Two layers of 1000 x 1000: at the second, copies of both, of its operand, the operand, the result."""
    import costmodel

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (nn.Linear(1000, 1000, bias=False) for _ in range(2))

        def forward(self, x):
            return self.second(self.first(x).softmax(-1))  # softmax runs in fp32

    analysis = costmodel.analyze(Two(), torch.empty(1, 1000), hw="a100", dtype="amp_fp16")
    weight, row = 2 * 1000 * 1000, 1000
    assert analysis.memory.parameter_bytes == 4 * weight
    assert analysis.memory.activation_bytes == 2 * weight + 4 * row + 2 * row + 2 * row
