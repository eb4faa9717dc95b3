"""Cells of recurrent networks: as many operators as their device runs."""

from __future__ import annotations

import pytest

from costmodel import analyze
from costmodel.formulas.recurrent import CELL_FLOPS

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

N, WIDTH, H = 8, 32, 64
GATES = {"LSTMCell": 4, "GRUCell": 3}
FUSED = {"LSTMCell": "_thnn_fused_lstm_cell", "GRUCell": "_thnn_fused_gru_cell"}
BACKWARD = {"LSTMCell": "_thnn_fused_lstm_cell_backward_impl", "GRUCell": "_thnn_fused_gru_cell_backward"}


class Steps(nn.Module):
    """A cell that is stepped through time by hand."""

    def __init__(self, kind: str, steps: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.cell, self.steps = getattr(nn, kind)(WIDTH, H, bias=bias), steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        for _ in range(self.steps):
            state = self.cell(x, state)
        return state[0] if isinstance(state, tuple) else state


def operators(analysis) -> list[str]:
    return [node.op.removeprefix("aten.") for node in analysis.record.nodes]


@pytest.mark.parametrize("kind", sorted(GATES))
@pytest.mark.parametrize("bias", [False, True])
def test_a_step_on_cuda_is_two_products_and_a_fused_cell(kind: str, bias: bool) -> None:
    found = analyze(Steps(kind, bias=bias), torch.empty(N, WIDTH), hw="a100", use_cache=False)
    assert operators(found) == ["zeros", "t", "matmul", "t", "matmul", FUSED[kind]]
    biases = 2 * GATES[kind] * H * N if bias else 0
    assert found.totals.macs == N * GATES[kind] * H * (WIDTH + H)
    assert found.totals.vector_flops == N * H * CELL_FLOPS[kind[:-4].lower()] + biases
    assert [k.algorithm for k in found.plan.kernels].count("elementwise") >= 1


@pytest.mark.parametrize("kind", sorted(GATES))
def test_a_cpu_has_no_fused_cell(kind: str) -> None:
    found = analyze(Steps(kind), torch.empty(N, WIDTH), hw="epyc-7763", use_cache=False)
    assert {"linear", "sigmoid", "tanh"} <= set(operators(found)) and FUSED[kind] not in operators(found)
    assert found.totals.macs == N * GATES[kind] * H * (WIDTH + H)


@pytest.mark.parametrize("kind", sorted(GATES))
@pytest.mark.parametrize("hw", ["a100", "mi210", "epyc-7763"])
def test_training_multiplies_what_autograd_multiplies(kind: str, hw: str) -> None:
    module, x = Steps(kind, steps=3), torch.empty(N, WIDTH)
    found = analyze(module, x, hw=hw, phase="training", use_cache=False)
    assert not found.coverage.uncosted
    assert operators(found).count(BACKWARD[kind]) == (0 if hw == "epyc-7763" else 3)
    with FlopCounterMode(display=False) as counter:
        module(x).sum().backward()
    assert 2 * found.totals.macs == counter.get_total_flops()
    assert len(found.record.gradients) == 4  # both matrices, both biases


def test_an_unbatched_input_and_mixed_precision() -> None:
    alone = analyze(Steps("LSTMCell"), torch.empty(WIDTH), hw="a100", use_cache=False)
    assert alone.totals.macs == 4 * H * (WIDTH + H)
    low = analyze(Steps("LSTMCell"), torch.empty(N, WIDTH), hw="a100", dtype="amp_fp16", use_cache=False)
    products = [k for k in low.plan.kernels if k.matrix_flops]
    assert {k.dtype for k in products} == {"fp16"}


@pytest.mark.parametrize("mode", ["compile", "cudagraph"])
def test_compiled_code_calls_the_fused_cell(mode: str) -> None:
    found = analyze(Steps("GRUCell", 2), torch.empty(N, WIDTH), hw="a100", mode=mode, use_cache=False)
    assert [k.op for k in found.plan.kernels].count("aten._thnn_fused_gru_cell") >= 1
