"""A compiled step keeps in memory what its kernels store, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import costmodel

ROW = 4 * 1000  # B of one tensor of 1000 floats
MAP = 4 * 8 * 16 * 16  # B of 8 channels of 16x16


def peak(module, *inputs, **conditions):
    return costmodel.analyze(module.eval(), *inputs, hw="a100", mode="compile", **conditions).memory


def test_a_chain_of_pointwise_operators_is_one_kernel_that_stores_its_end():
    chain = nn.Sequential(*(nn.Tanh() for _ in range(9)))
    assert peak(chain, torch.empty(1, 1000)).peak_bytes == ROW + ROW


def test_a_normalization_between_convolutions_is_stored_once_and_its_operand_once():
    """conv1 -> batch norm -> ReLU -> conv2: while the fused kernel runs, conv1's result and its own are alive."""
    block = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
    )
    found = peak(block, torch.empty(1, 8, 16, 16))
    assert found.activation_bytes == 2 * MAP
    assert found.parameter_bytes == 4 * (8 * 8 * 9 + 2 * 8 + 8 * 8 * 9 + 8)


def test_a_convolution_with_a_bias_lies_in_memory_before_the_bias_is_added():
    found = peak(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()), torch.empty(1, 8, 16, 16))
    assert found.activation_bytes == 2 * MAP  # the convolution's, and the sum after ReLU


def test_the_input_of_a_step_in_half_precision_is_halved():
    assert peak(nn.Sequential(nn.Tanh()), torch.empty(1, 1000), dtype="fp16").input_bytes == ROW / 2


def test_what_is_never_stored_has_no_bytes():
    analysis = costmodel.analyze(nn.Sequential(nn.Tanh(), nn.Tanh()), torch.empty(1, 1000), hw="a100", mode="compile")
    graph = analysis.bound
    inner, last = (graph.tensors[node.outputs[0]].storage for node in graph.nodes)
    assert (analysis.plan.storage_bytes[inner], analysis.plan.storage_bytes[last]) == (0, ROW)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_compiled_resnet_needs_no_more_than_eager(dtype):
    eager = costmodel.analyze("resnet50", hw="a100", dtype=dtype)
    assert eager.at(mode="compile").memory.activation_bytes <= eager.memory.activation_bytes


def test_on_a_cpu_too_a_fused_loop_stores_its_end_alone():
    """A chain of nine: the input and the result. Between two convolutions: what the loop reads and what it writes."""
    chain = nn.Sequential(*(nn.Tanh() for _ in range(9)))
    found = costmodel.analyze(chain, torch.empty(1, 1000), hw="xeon-6148", mode="compile")
    assert found.memory.peak_bytes == ROW + ROW
    block = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Hardtanh(), nn.Conv2d(8, 8, 3, padding=1)
    )
    found = costmodel.analyze(block.eval(), torch.empty(1, 8, 16, 16), hw="xeon-6148", mode="compile")
    assert found.memory.activation_bytes == 2 * MAP
    eager = found.at(mode="eager")
    assert found.memory.activation_bytes <= eager.memory.activation_bytes
