"""The batch as a symbol: loops over samples are recognized, and a batch of one is not taken for any batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import costmodel
from costmodel.sources import from_module
from costmodel.trace import trace
from costmodel.trace.batch_of_one import viewable


class Net(nn.Module):
    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.norm, self.todo = nn.Linear(8, 8), nn.BatchNorm1d(8), forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.todo(self, x)


def ghost_norm(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.layer(torch.cat([net.norm(part) for part in x.chunk(-(-x.shape[0] // 4), 0)]))


def rows(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([net.layer(row) for row in x])


def ranged(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([net.layer(x[i]) for i in range(x.shape[0])])


def steps(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([net.layer(part) for part in x.split(4)])


def repeated(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    for _ in range(x.shape[0] - 1):
        x = x + 1  # nothing is cut, and yet the batch says how often
    return net.layer(x)


LOOPS = [ghost_norm, rows, ranged, steps, repeated]


@pytest.mark.parametrize("forward", LOOPS, ids=lambda f: f.__name__)
def test_a_loop_over_the_batch_is_traced_at_the_batch_asked_for_and_says_so(forward):
    analysis = costmodel.analyze(Net(forward).eval(), torch.zeros(16, 8), hw="a100")
    assert analysis.totals.macs == 16 * 8 * 8
    assert "batch" not in analysis.record.symbols
    assert any(n.startswith("batch stays 16: the number of operators grows with it") for n in analysis.symbol_notes)
    eight = analysis.at(batch=8)
    assert (eight.execution.batch, eight.totals.macs) == (8, 8 * 8 * 8)


def heavy(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    for _ in range(20):
        x = net.layer(x)
    return torch.cat([nn.functional.relu(net.layer(part)).sin().cos() for part in x.split(2)])


def test_a_loop_over_the_batch_costs_at_most_three_traces():
    loaded = from_module(Net(heavy).eval(), torch.zeros(128, 8))
    calls = []

    def seconds(symbols: tuple[str, ...]) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            calls.append(len(trace(loaded, symbols=symbols, sizes={"batch": 128}).nodes))
            times.append(time.perf_counter() - started)
        return min(times)

    seconds(())  # warm
    assert seconds(("batch",)) <= 3 * seconds(())
    assert len(set(calls)) == 1


@pytest.mark.parametrize(
    ("forward", "macs"),
    [
        (lambda net, x: net.layer(x) + net.layer(x[:1]), lambda batch: 64 * (batch + 1)),
        (lambda net, x: sum(net.layer(torch.cat([x, x])).chunk(2)), lambda batch: 64 * 2 * batch),
    ],
)
def test_a_batch_that_is_cut_without_a_loop_stays_open(forward, macs):
    analysis = costmodel.analyze(Net(forward).eval(), torch.zeros(16, 8), hw="a100")
    assert "batch" in analysis.record.symbols
    assert [analysis.at(batch=b).totals.macs for b in (1, 5, 16)] == [macs(b) for b in (1, 5, 16)]


def sequence_first(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.layer(x.reshape(x.shape[0], 2, 8).transpose(0, 1).contiguous())


def squeezed(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = net.layer(x.reshape(-1, 2, 8)).squeeze()
    return x if x.dim() == 3 else x * 2


def merged(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net.layer(x.reshape(-1, 1, 2, 8).transpose(0, 2).reshape(-1, 8))


@pytest.mark.parametrize("forward", [sequence_first, squeezed, merged], ids=lambda f: f.__name__)
@pytest.mark.parametrize("traced_at", [1, 4])
def test_a_batch_of_one_is_what_a_trace_at_one_says(forward, traced_at):
    """At batch 1, ``contiguous`` and ``reshape`` copy nothing here, and ``squeeze`` takes the batch away."""
    module = Net(forward).eval()
    open_batch = costmodel.analyze(module, torch.zeros(traced_at, 16), hw="a100")
    for batch in (1, 2, 7):
        there = costmodel.analyze(module, torch.zeros(batch, 16), hw="a100", symbols=())
        assert open_batch.at(batch=batch).totals == there.totals
        assert [n.op for n in open_batch.at(batch=batch).bound.nodes] == [n.op for n in there.bound.nodes]


def test_a_batch_of_one_that_is_special_keeps_the_general_graph_beside_it(tmp_path, monkeypatch):
    """Closed forms stay forms in the batch, and other batches are answered without running the model again."""
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path))
    for _ in range(2):  # traced, and then from the cache
        one = costmodel.analyze("torchvision:vit_b_16", hw="a100")
        assert "batch" not in one.record.symbols
        assert {s.name for s in one.costs.total.macs.free_symbols} == {"batch"}
        assert not any("batch stays" in note for note in one.symbol_notes)  # the closed forms beside them are general
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("costmodel.trace.tracer.record", None)  # calling it would fail
            assert one.at(batch=8).totals.macs == 8 * one.totals.macs


@given(data=st.data())
def test_viewable_is_what_torch_says(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    tensor = torch.empty(shape, device="meta").permute(data.draw(st.permutations(range(len(shape)))))
    factors = [p for size in shape for p in ((2, 2) if size == 4 else (size,))]
    target: list[int] = []
    for factor in data.draw(st.permutations(factors)):
        if target and data.draw(st.booleans()):
            target[-1] *= factor
        else:
            target.append(factor)
    try:
        tensor.view(target)
        possible = True
    except RuntimeError:
        possible = False
    assert viewable(tensor.shape, tensor.stride(), target) == possible
