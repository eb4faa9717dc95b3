"""Control flow on the batch: what a model does at the batch asked for is counted, whatever a prime would take."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import costmodel
from costmodel.graph_json import from_json, to_json
from costmodel.trace.watched import Watch, WatchedSize

LAYER = 8 * 8  # MACs of one layer for one sample


class OfTheBatch(nn.Module):
    """One layer, called as often as a rule about the batch says."""

    def __init__(self, rule) -> None:
        super().__init__()
        self.layer, self.rule = nn.Linear(8, 8), rule

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.rule(x)):
            x = self.layer(x)
        return x


def times(tensor_rule):
    return lambda batch: tensor_rule(torch.empty(batch, 8, device="meta"))


RULES = {
    "one": lambda x: 1 if x.shape[0] == 1 else 2,
    "threshold": lambda x: 2 if x.size(0) > 4 else 1,
    "least": lambda x: min(len(x), 3),
    "odd": lambda x: 1 + x.shape[0] % 2,
    "rows left over": lambda x: 2 if (-x.shape[0]) % 4 else 1,
    "fraction": lambda x: 2 if x.shape[0] / 16 > 0.2 else 1,
    "int": lambda x: 2 if int(x.shape[0]) > 4 else 1,
    "numel": lambda x: 2 if x.numel() > 32 else 1,
    "unpacked": lambda x: (lambda batch, width: 2 if 2 * batch > width else 1)(*x.shape),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_about_the_batch_is_followed_at_every_batch(rule):
    module = OfTheBatch(rule).eval()
    for own in (1, 2):
        analysis = costmodel.analyze(module, torch.empty(own, 8), hw="t4")
        assert analysis.totals.macs == own * LAYER * times(rule)(own)
        for batch in (1, 3, 4, 5, 64):
            assert analysis.at(batch=batch).totals.macs == batch * LAYER * times(rule)(batch)


class PassesOn(nn.Module):
    """What most models do with their batch: shapes, and checks that hold for any."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        assert batch > 0 and x.numel() and x.size(0) * tokens == x.flatten(0, 1).shape[0]
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        assert q.shape == k.shape and (x.shape[0], width) == (v.size(0), 8)
        out = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return out.transpose(1, 2).reshape(batch, -1, width) + torch.zeros(x.shape)


def test_a_model_that_passes_its_batch_on_is_traced_once(monkeypatch):
    import costmodel.trace.tracer as tracer

    runs = []
    record = tracer.record
    monkeypatch.setattr(tracer, "record", lambda *args, **how: runs.append(how["prime"]) or record(*args, **how))

    class NoConstants(PassesOn):
        def forward(self, x):
            return self.qkv(x.reshape(x.shape[0], -1, 8)).view(x.shape[0], x.shape[1], -1)

    analysis = costmodel.analyze(NoConstants().eval(), torch.empty(2, 5, 8), hw="t4")
    assert analysis.at(batch=7).totals.macs == 7 * 5 * 8 * 24
    assert len(runs) == 1 and runs[0] > 2
    passes = costmodel.analyze(PassesOn().eval(), torch.empty(2, 5, 8), hw="t4")
    assert not passes.record.domain.each_batch
    assert passes.totals.macs == 2 * (5 * 8 * 24 + 2 * 5 * 5 * 8)


def test_the_graph_remembers_that_batches_differ():
    graph = costmodel.analyze(OfTheBatch(RULES["threshold"]).eval(), torch.empty(8, 8), hw="t4").record
    assert graph.domain.each_batch
    assert graph.holds_at({"batch": 8}) and not graph.holds_at({"batch": 9})
    assert from_json(to_json(graph)).domain == graph.domain


def test_watched_sizes_are_whole_numbers_that_arithmetic_carries_on():
    watch = Watch(1_000_003)
    batch = watch.watched(1_000_003)
    carried = [batch + 1, 1 + batch, batch * 2, 2 * batch, batch // 2, -batch]
    assert all(type(size) is WatchedSize for size in carried)
    plain = 1_000_003
    expected = [plain + 1, 1 + plain, plain * 2, 2 * plain, plain // 2, -plain]
    assert [repr(size) for size in carried] == [repr(size) for size in expected]
    assert (batch * 12 // batch, batch * 12 % batch, batch - batch, divmod(batch * 3, batch)) == (12, 0, 0, (3, 0))
    assert f"{batch:,}" == "1,000,003"
    assert not watch.noted
    assert (copy.deepcopy(batch) > 5) and watch.noted
