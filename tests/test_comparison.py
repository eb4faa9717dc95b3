"""A comparison: ratios by counting, stages that add up to the network, causes that add up to the difference."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

import costmodel
from costmodel.comparison import HEAD, Comparison, stages_of
from costmodel.errors import InputError
from tests.explain.networks import NETWORKS, analysis


class Narrowing(nn.Module):
    """Two stages of convolutions and a head: 32x32, 16x16, a vector."""

    def __init__(self, channels: int, gated: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, 2, 1)
        self.gate, self.head = nn.Conv2d(channels, channels, 1), nn.Linear(channels, 10)
        self.gated = gated

    def forward(self, x):
        x = torch.relu(self.first(x))
        if self.gated:
            x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = torch.relu(self.second(x))
        return self.head(x.mean((2, 3)))


class Wide(Narrowing):
    def __init__(self) -> None:
        super().__init__(32)


class Narrow(Narrowing):
    def __init__(self) -> None:
        super().__init__(16)


class Tokens(nn.Module):
    """No maps at all."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return self.decoder(torch.relu(self.encoder(x)))


@pytest.fixture(scope="module")
def found():
    return costmodel.compare(
        [Wide().eval(), Narrow().eval()], torch.empty(4, 8, 32, 32), hw=["a100", "t4", "epyc-milan-2c"]
    )


def macs(channels: int) -> int:
    return 4 * (32 * 32 * 8 * channels * 9 + 16 * 16 * channels * channels * 9 + channels * 10)


def test_ratios_are_of_the_counts(found):
    wide, narrow = found.contenders[:2]
    assert (wide.model, narrow.model, wide.machine) == ("Wide", "Narrow", "a100-sxm-80gb")
    assert wide.flops_ratio == wide.latency_ratio == 1.0
    others = lambda c: 4 * (32 * 32 * c * 2 + 16 * 16 * c * 2 + 16 * 16 * c + 10)  # noqa: E731 - biases, ReLUs, mean
    assert narrow.flops_ratio == pytest.approx((2 * macs(16) + others(16)) / (2 * macs(32) + others(32)), rel=1e-3)
    assert narrow.latency_ratio == pytest.approx(narrow.latency_s / wide.latency_s)


def test_stages_are_the_sizes_of_maps_and_add_up(found):
    assert found.stages == ("32x32", "16x16", HEAD)
    for contender in found.contenders:
        rows = [r for r in found.stage_rows if (r.model, r.machine) == (contender.model, contender.machine)]
        assert sum(row.flops for row in rows) == contender.flops
        assert sum(row.latency_s for row in rows) == pytest.approx(contender.latency_s)
    first = next(r for r in found.stage_rows if r.model == "Narrow" and r.stage == "32x32")
    assert first.flops_ratio == pytest.approx(0.5)  # half the channels of the first convolution


def test_causes_add_up_to_the_difference_in_time(found):
    for contender in found.contenders:
        if contender.model != "Wide":
            apart = found.apart(contender.model, contender.machine)
            wide = next(c for c in found.contenders if (c.model, c.machine) == ("Wide", contender.machine))
            assert sum(a.seconds for a in apart) == pytest.approx(contender.latency_s - wide.latency_s, rel=1e-9)
            assert [abs(a.seconds) for a in apart] == sorted((abs(a.seconds) for a in apart), reverse=True)


def test_nodes_of_a_cause_are_of_the_model_that_spends_more(found):
    names = {node.name for node in found.analyses[0][0].bound.nodes}
    for apart in found.apart("Narrow", "t4"):
        assert {name for name, _ in apart.nodes} <= names


def test_a_gate_on_1x1_maps_belongs_to_the_maps_that_it_scales():
    now = costmodel.analyze(Narrowing(16, gated=True).eval(), torch.empty(4, 8, 32, 32), hw="a100")
    stages = dict(zip((node.name for node in now.bound.nodes), stages_of(now.bound), strict=True))
    assert stages["first"] == stages["gate"] == "32x32"
    assert stages["second"] == "16x16"
    assert stages["head"] == HEAD
    assert [s for n, s in stages.items() if n.startswith("mul")] == ["32x32"]


def test_without_maps_stages_are_modules():
    now = costmodel.analyze(Tokens().eval(), torch.empty(4, 16), hw="a100")
    assert stages_of(now.bound) == ["encoder", "(model)", "decoder"]


def test_the_fastest_is_named_for_each_machine(found):
    assert list(found.fastest) == list(found.machines)
    for machine, model in found.fastest.items():
        times = {c.model: c.latency_s for c in found.contenders if c.machine == machine}
        assert times[model] == min(times.values())


@pytest.mark.parametrize("names", [(), ("grouped",)])
def test_fewer_than_two_models_are_refused(names):
    with pytest.raises(InputError, match="two models or more"):
        Comparison([[analysis(name)] for name in names])


def test_a_model_against_itself_is_refused():
    with pytest.raises(InputError, match="asked for twice"):
        Comparison([[analysis("grouped")], [analysis("grouped")]])


def test_no_machine_is_refused():
    module, x = NETWORKS["grouped"]()
    with pytest.raises(InputError, match="no machine"):
        costmodel.compare([module, module], x, hw=[])


def test_an_unknown_model_or_machine_has_no_causes(found):
    with pytest.raises(KeyError):
        found.apart("resnet50", "t4")
    with pytest.raises(KeyError):
        found.apart("Narrow", "v100")


def test_the_winner_by_batch_is_the_fastest_at_every_batch(found):
    def fastest(batch: int) -> str:
        return min(found.analyses, key=lambda row: row[0].at(batch=batch).latency)[0].name

    by_hand = {batch: fastest(batch) for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256)}
    winners = found.winners_by_batch("a100-sxm-80gb")
    assert winners[0] == (1, by_hand[1])
    for batch, name in winners:
        assert by_hand[batch] == name
    assert [name for _, name in winners][-1] == by_hand[256]
    assert all(a != b for (_, a), (_, b) in pairwise(winners))


def test_models_of_one_class_are_told_apart_by_number():
    layers = [nn.Linear(8, 4), nn.Linear(8, 16), nn.ReLU()]
    found = costmodel.compare(layers, torch.empty(2, 8), hw="a100")
    assert found.models == ("Linear (1)", "Linear (2)", "ReLU")
    assert [c.params for c in found.contenders] == [8 * 4 + 4, 8 * 16 + 16, 0]
    with pytest.raises(InputError, match=r"the model Linear \(1\) is asked for twice"):
        costmodel.compare([layers[0], layers[0]], torch.empty(2, 8), hw="a100")
