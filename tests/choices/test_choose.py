"""choose: the batch found is the best of an exhaustive search, and every machine that is out says why."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel
from costmodel.choices import Prices, choose, read_prices
from costmodel.choices.search import largest, smallest, worth_trying
from costmodel.cli import main
from costmodel.errors import InputError

pytest.importorskip("torch")

NET = """
import torch
from torch import nn

def make(width=64):
    convolutions = [nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(4)]
    return nn.Sequential(*convolutions), torch.zeros(1, 3, 64, 64)
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("choose")
    (folder / "net.py").write_text(NET)
    return f"{folder / 'net.py'}:make"


@given(st.integers(0, 5000))
def test_searches_find_the_edge(edge):
    assert largest(lambda batch: batch <= edge) == min(edge, 4096)
    assert smallest(lambda batch: batch >= edge) == (None if edge > 4096 else max(edge, 1))


@given(st.integers(1, 4096))
def test_what_is_worth_trying_is_within_reach(upper):
    found = list(worth_trying(upper))
    assert found == sorted(set(found)) and found[0] == 1 and found[-1] == upper


def test_the_batch_is_the_best_that_keeps_the_latency(net):
    limit = 2e-3
    found = choose(net, hw="t4", max_latency=limit)
    (option,) = found.options
    first = costmodel.analyze(net, hw="t4")
    quick = {}
    for batch in range(1, 2 * option.batch + 8):
        totals = first.at(batch=batch).totals
        if totals.latency_high_s <= limit:  # 95 % is the upper end of the interval
            quick[batch] = batch / totals.latency_high_s
    assert option.latency_bound_s <= limit * (1 + 1e-6)
    assert option.throughput_bound_per_s >= 0.99 * max(quick.values())
    assert option.batch in quick
    assert option.throughput_per_s == option.batch / option.latency_s


def test_margins_are_the_intervals_and_not_the_middle(net):
    sure, likely, even = (choose(net, hw="t4", max_latency="2 ms", confidence=c).options[0] for c in (0.95, 0.8, 0.5))
    assert sure.throughput_bound_per_s < likely.throughput_bound_per_s < even.throughput_bound_per_s
    assert even.latency_bound_s == even.latency_s <= 2e-3 < even.latency_s * sure.latency_bound_s / sure.latency_s


def test_the_least_batch_that_gives_a_throughput(net):
    first = costmodel.analyze(net, hw="t4")
    least = 0.9 * max(b / first.at(batch=b).totals.latency_high_s for b in (8, 32, 128))
    (option,) = choose(net, hw="t4", min_throughput=least).options
    assert option.throughput_bound_per_s >= least
    before = first.at(batch=option.batch - 1)
    assert (option.batch - 1) / before.totals.latency_high_s < least
    assert choose(net, hw="t4", min_throughput=least).ranked_by == "latency"


def test_each_machine_that_is_out_says_why(net):
    found = choose(net, hw=["t4", "a100", "epyc-7763"], max_latency="2 us")
    assert not found.options
    assert [excluded.hw for excluded in found.excluded] == ["t4", "a100-sxm-80gb", "epyc-7763"]
    assert all(re.match(r"batch 1 takes .* µs, up to .* µs at 95 %", excluded.reason) for excluded in found.excluded)
    found = choose(net, hw="t4", max_latency="1 s", min_throughput=1e9)
    assert "samples/s" in found.excluded[0].reason and found.excluded[0].closest is not None
    found = choose(net, hw=["epyc-7763", "a100"], max_latency="1 s", dtype="fp16")
    assert [o.hw for o in found.options] == ["a100-sxm-80gb"] and "epyc-7763" in found.excluded[0].reason


def test_what_does_not_fit_is_out(tmp_path):
    (tmp_path / "huge.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    return nn.Sequential(*[nn.Linear(2**15, 2**15) for _ in range(8)]), torch.zeros(1, 2**15)\n"
    )
    found = choose(f"{tmp_path / 'huge.py'}:make", hw=["t4", "h100"], max_latency="10 s")
    assert [option.hw for option in found.options] == ["h100-sxm-80gb"]
    assert re.match(r"batch 1 needs 34\.\d GB of 1\d\.\d GB", found.excluded[0].reason)  # 8 x 2**30 weights of 4 B
    (option,) = found.options
    assert option.fits is True


def test_prices_rank_and_their_arithmetic(net, tmp_path):
    (tmp_path / "prices.toml").write_text('currency = "EUR"\n[per_hour]\nt4 = 0.36\na100 = 36.0\n')
    prices = read_prices(tmp_path / "prices.toml")
    found = choose(net, hw=["a100", "t4", "l4"], max_latency="5 ms", prices=prices)
    assert found.ranked_by == "cost per million samples"
    assert [option.hw for option in found.options][-1] == "l4" and found.options[-1].cost_per_million is None
    costs = [option.cost_per_million for option in found.options[:-1]]
    assert costs == sorted(costs)
    t4 = next(option for option in found.options if option.hw == "t4")
    assert t4.cost_per_million == pytest.approx(0.36 / 3600 * 1e6 / t4.throughput_bound_per_s)
    assert Prices("EUR", {"t4": 0.36}).per_million("t4", 100) == pytest.approx(1.0)
    assert "no price is given for l4, ranked behind" in found.to_markdown()


@pytest.mark.parametrize(
    "text",
    ["", "t4 = 0.35", "[per_hour]\nnosuch = 1", "[per_hour]\nt4 = -1", "[per_hour]\nt4 = '1'", "[per_hour]\nt4 = true",
     "[per_hour]\na100 = 1\na100-sxm-80gb = 2", "[per_hour\n", "currency = 'EUR'\n[per_hour]\n",
     "[per_hour]\nt4=1\n[x]\n"],
)  # fmt: skip
def test_prices_that_are_none(tmp_path, text):
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(InputError):
        read_prices(tmp_path / "prices.toml")


@pytest.mark.parametrize(
    "words",
    [{}, {"max_latency": 0}, {"max_latency": "10"}, {"min_throughput": -1}, {"max_latency": 1.0, "confidence": 1.0},
     {"max_latency": 1.0, "hw": []}],
)  # fmt: skip
def test_what_cannot_be_asked(net, words):
    with pytest.raises(InputError):
        choose(net, **{"hw": "t4", **words})


def test_utilisation_and_energy_are_those_of_the_step(net):
    (option,) = choose(net, hw="a100", max_latency="5 ms").options
    analysis = costmodel.analyze(net, hw="a100", batch=option.batch)
    peak = analysis.hardware.peak("matrix", "tf32").flop_per_s  # fp32 convolutions run in TF32 there
    assert option.utilisation == pytest.approx(analysis.totals.flops / peak / analysis.latency)
    assert option.energy_per_sample_j == analysis.totals.energy_j / option.batch
    assert option.peak_memory_bytes == analysis.totals.peak_memory_bytes


def test_the_command(net, capsys, tmp_path):
    assert main(["choose", net, "--max-latency", "5ms", "--hw", "t4,a100"]) == 0
    out = capsys.readouterr().out
    assert "2 of 2 machines keep the limits" in out and max(map(len, out.splitlines())) <= 100
    assert main(["choose", net, "--max-latency", "1us", "--hw", "t4", "--format", "json"]) == 1
    page = json.loads(capsys.readouterr().out)
    assert page["options"] == [] and page["excluded"][0]["hw"] == "t4"
    for words in (["--batch", "8"], []):
        assert (
            main(
                ["choose", net, "--hw", "t4", *(["--max-latency", "5ms"] if words == ["--batch", "8"] else []), *words]
            )
            == 2
        )
