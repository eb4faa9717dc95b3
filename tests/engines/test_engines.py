"""The room of engines: what all of them hold, and that a new one is one class."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

import costmodel
from costmodel.engines import Advice, Engine, engine_names, engine_of, engine_spellings, registry
from costmodel.engines.eager import Eager
from costmodel.engines.engine import TROUBLES
from costmodel.errors import InputError
from costmodel.execution import Phase
from costmodel.explain import findings, split
from costmodel.explain.case import Case
from costmodel.hardware import load
from costmodel.host import host_names, host_of

MACHINES = ("a100", "xeon-6148")
#: Engines and machines that go together: what captures a device's launches needs one.
#: Engines that run an ordinary forward pass.
PLAIN = engine_names(Phase.INFERENCE)
PAIRS = [(w, m) for w in PLAIN for m in MACHINES if m == "a100" or not engine_of(w).captures]


@pytest.fixture(scope="module")
def chain():
    """Forty tiny layers: on a GPU the host holds the step back."""
    layers = [layer for _ in range(20) for layer in (nn.Linear(64, 64), nn.ReLU())]
    return costmodel.analyze(nn.Sequential(*layers).eval(), torch.empty(2, 64), hw="a100")


@pytest.mark.parametrize(("word", "machine"), PAIRS)
def test_every_launch_is_issued_and_time_never_runs_back(chain, word, machine):
    now = chain.at(mode=word, hw=machine)
    assert len(now.issued) == len(now.plan.launches) > 0
    assert now.issued == sorted(now.issued)
    assert now.latency >= now.issued[-1] * (1 - 1e-12)


@pytest.mark.parametrize(("word", "machine"), PAIRS)
def test_a_host_that_takes_no_time_leaves_the_device_alone(chain, word, machine):
    now, instant = chain.at(mode=word, hw=machine), chain.at(mode=word, hw=machine, host="instant")
    assert set(instant.issued) == {0.0}
    assert instant.latency <= now.latency
    assert instant.latency < now.latency or not now.hardware.family.issues_ahead
    assert split(instant).seconds("host") == 0


@pytest.mark.parametrize("word", engine_names())
def test_advice_answers_known_troubles_with_engines_that_there_are(word):
    for trouble, advice in engine_of(word).advice.items():
        assert trouble in TROUBLES
        assert advice.change
        assert advice.engine is None or advice.engine in set(engine_names()) - {word}


def test_eager_is_the_first_word_and_every_spelling_leads_to_an_engine():
    assert engine_names()[0] == "eager"
    assert engine_spellings()["inductor"] == engine_spellings()["dynamo"] == "compile"
    assert set(engine_spellings().values()) == set(engine_names())


def test_unknown_engines_and_hosts_are_refused_with_what_there_is(chain):
    with pytest.raises(InputError, match=r"mode 'egaer'\n  there are: eager, .*\n  did you mean eager"):
        chain.at(mode="egaer")
    with pytest.raises(InputError, match=r"host 'usaul'\n  there are: usual, instant, .*\n  did you mean usual"):
        chain.at(host="usaul")
    with pytest.raises(InputError, match="there is no mode"):
        costmodel.analyze("resnet18", hw="a100", mode="fast")
    assert host_names()[:2] == ("usual", "instant")


@pytest.mark.parametrize("word", [word for word in PLAIN if engine_of(word).captures])
def test_what_captures_launches_needs_a_device(chain, word):
    with pytest.raises(InputError, match=f"mode {word} captures a GPU's launches, and xeon-6148 is a CPU"):
        _ = chain.at(mode=word, hw="xeon-6148").plan


def test_guards_of_a_cpu_are_its_own_time():
    assert host_of("usual", load("a100")).guards_s == 0 < host_of("usual", load("xeon-6148")).guards_s


class Replay(Eager):
    """A toy: an eager step that was captured and is replayed by one call."""

    name = "toy-replay"
    title = "replayed"
    help = "a captured eager step"
    spellings = ("toyreplay",)
    advice: ClassVar = {"starts": Advice("fuse first", "compile")}

    def issued(self, plan, graph, execution, host):
        return [host.seconds(5.0)] * len(plan.launches)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(registry, "_ENGINES", dict(registry._ENGINES))
    monkeypatch.setattr(registry, "_found", lambda: registry._ENGINES)
    registry.register(Replay)
    return Replay.name


def test_a_new_engine_is_one_class(toy, chain):
    """Words, times, rows and findings follow from what it says of itself."""
    from costmodel.cli import _parser

    assert toy in engine_names()
    assert engine_spellings()["toyreplay"] == toy
    now, eager = chain.at(mode=toy), chain.at(mode="eager")
    assert now.execution.words["mode"] == toy
    assert now.plan == eager.plan
    assert now.latency == pytest.approx(eager.at(host="instant").latency + now.host.seconds(5.0))
    parts = split(now)
    assert parts.latency_s == pytest.approx(now.latency)
    assert parts.seconds("host") == pytest.approx(now.host.seconds(5.0))
    found = {finding.rule: finding for finding in findings(now)}
    assert "launch_bound" not in found
    assert found["small_kernels"].seconds_at_stake > 0
    assert Case(now).advised("starts") == ("fuse first", {"mode": "compile"})
    assert Case(now).advised("traffic") is None
    assert f'"{toy}"' in now.to_json()
    assert _parser().parse_args(["analyze", "resnet18", "--hw", "a100", "--mode", toy]).mode == (toy,)


def test_an_engine_takes_its_name_once(toy):
    with pytest.raises(ValueError, match="registered twice"):
        registry.register(Replay)


def test_every_engine_says_what_readers_ask():
    for word in engine_names():
        engine: Engine = engine_of(word)
        assert engine.title and engine.help and engine.idle_word
        assert engine.fuses_pointwise == (engine.idle_word != "view")
