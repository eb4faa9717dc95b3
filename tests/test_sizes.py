"""Sizes: a number left open changes no answer, and what cannot be answered for is refused with what to do."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import costmodel
from costmodel.api import ALL_SYMBOLS
from costmodel.cli import main
from costmodel.domain import Domain, any_batch
from costmodel.errors import InputError
from costmodel.graph_json import from_json, to_json
from costmodel.traced import load_trace

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import binding


def told(capsys, *arguments: str) -> str:
    """What the command line writes for a bad request, which ends with status 2."""
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


# -- a size left open changes no answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes", "batches"),
    [
        ("timm:convnext_tiny", (197,), (1, 3)),  # strides of channels-last maps, halved where odd
        ("timm:edgenext_x_small", (197,), (1, 3)),  # a positional encoding made for the batch
        ("timm:coatnet_nano_rw_224", (256,), (1, 3)),  # tables of relative positions are resampled
        ("timm:mobilevit_xs", (224,), (1, 3)),  # resamples where a side is no multiple of 64
        ("timm:resnet50", (33, 320), (1, 2)),
        ("torchvision:vit_b_16", ("own",), (1, 2)),  # copies its sequence-first tensors in a batch only
    ],
)
def test_open_and_bound_is_what_a_trace_made_there_says(name, sizes, batches):
    assert binding.compare(name, sizes, batches).differences == []


def test_the_benchmark_of_bindings_sees_a_graph_that_is_bound_where_it_does_not_hold(monkeypatch):
    """coatnet's convolutions lie in memory otherwise at a batch of one: to take the open graph there is wrong."""
    monkeypatch.setattr(Domain, "holds", lambda *_: True)
    monkeypatch.setattr("costmodel.trace.tracer.difference", lambda *_: None)
    assert binding.compare("timm:coatnet_nano_rw_224", ("own",), (1,)).differences


class Padded(nn.Module):
    """Pads to windows of 7, and resamples what is larger than 40: another path at other sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 7, stride=7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        missing = -x.shape[-1] % 7
        if missing:
            x = nn.functional.pad(x, (0, missing, 0, missing))
        if x.shape[-1] > 40:
            x = nn.functional.interpolate(x, (28, 28))
        return self.mix(x)


@pytest.mark.parametrize("own", [28, 30, 64])
def test_a_model_that_pads_and_resamples_is_answered_at_every_size(own):
    module = Padded().eval()
    opened = costmodel.analyze(module, torch.zeros(2, 4, own, own), hw="a100", symbols=ALL_SYMBOLS)
    for size in (28, 29, 35, 40, 41, 49, 100):
        windows = -(-size // 7)
        maps = 4 if 7 * windows > 40 else windows  # 28 / 7 where it is resampled
        there = opened.at(image_size=size)
        assert there.totals.macs == 2 * 4 * 4 * 49 * maps * maps
        traced = costmodel.analyze(module, torch.zeros(2, 4, size, size), hw="a100", symbols=())
        assert there.totals == traced.totals


class Eighths(nn.Module):
    """Takes sides that are multiples of 8 only, as optical flow does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 8, stride=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] % 8 or x.shape[-2] % 8:
            raise ValueError("sides must be divisible by 8")
        return self.stem(x)


def test_the_models_own_size_is_never_refused():
    opened = costmodel.analyze(Eighths().eval(), torch.zeros(1, 3, 520, 960), hw="a100", symbols=ALL_SYMBOLS)
    assert opened.totals.macs == 2 * 3 * 64 * 65 * 120
    assert opened.at(image_size=(64, 8)).totals.macs == 2 * 3 * 64 * 8
    assert str(opened.costs.total.macs) == "6*batch*height*width"


def test_a_graph_and_its_domain_pass_through_json():
    graph = costmodel.analyze(Eighths().eval(), torch.zeros(1, 3, 64, 64), hw="a100", symbols=ALL_SYMBOLS).record
    back = from_json(to_json(graph))
    assert back.domain == graph.domain
    assert back == graph
    old = {key: value for key, value in to_json(graph).items() if key not in ("domain", "batch")}
    assert from_json(old).holds_at({"batch": 1})  # an entry of before answers as it did


def test_a_domain_holds_between_its_runs_and_at_its_points():
    domain = Domain({"batch": any_batch(one=False), "height": (168, 1000)}).also({"batch": 1, "height": 224})
    assert domain.holds({"batch": 2, "height": 168}) and domain.holds({"batch": 9, "height": 1000})
    assert domain.holds({"batch": 1, "height": 224})
    assert not domain.holds({"batch": 1, "height": 225})
    assert not domain.holds({"batch": 2, "height": 167})


# -- what a cached graph answers for -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_warm_cache_refuses_the_lengths_that_a_cold_one_does(folder, capsys):
    pytest.importorskip("transformers", reason="the hf extra is not installed")
    command = ("analyze", "hf:bert", "--hw", "a100", "--seq-len")
    cold = told(capsys, *command, "513")
    assert main(["analyze", "hf:bert", "--hw", "a100", "--format", "json"]) == 0
    capsys.readouterr()
    assert told(capsys, *command, "513") == cold
    assert "longer than the 512 positions" in cold


def test_a_size_outside_the_domain_is_run_once_and_then_remembered(folder, monkeypatch):
    first = load_trace("resnet18", symbols=ALL_SYMBOLS, checked=True)
    runs = []
    import costmodel.trace as room

    agrees = room.agrees
    monkeypatch.setattr(room, "agrees", lambda *arguments: runs.append(1) or agrees(*arguments))
    for _ in range(2):
        served = load_trace("resnet18", symbols=ALL_SYMBOLS, checked=True, sizes={"height": 64, "width": 64})
        assert served.graph.nodes == first.graph.nodes
    assert len(runs) == 1


# -- the batch that a request has --------------------------------------------------------------------------------------

NET = """
    import torch
    from torch import nn

    def make():
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()).eval(), (torch.zeros(4, 3, 16, 16),)
"""
MACS = 8 * 27 * 16 * 16


@pytest.fixture
def request_name(folder):
    (folder / "net.py").write_text(textwrap.dedent(NET))
    return "net.py:make"


def test_a_factory_whose_inputs_have_a_batch_is_analyzed_at_it(request_name):
    for _ in range(2):  # traced, and then from the cache
        own = costmodel.analyze(request_name, hw="a100")
        assert (own.execution.batch, own.totals.macs) == (4, 4 * MACS)
    two = costmodel.analyze(request_name, hw="a100", batch=2)
    assert (two.execution.batch, two.totals.macs) == (2, 2 * MACS)
    assert costmodel.analyze(request_name, hw="a100").execution.batch == 4  # what was asked before does not stay
    compared = costmodel.compare([request_name, "resnet18"], hw="a100")
    assert [row[0].execution.batch for row in compared.analyses] == [4, 1]


@pytest.mark.parametrize("verb", ["analyze", "explain"])
def test_the_command_line_takes_the_batch_of_the_inputs_unless_it_is_told(verb, request_name, capsys):
    assert main([verb, request_name, "--hw", "a100"]) == 0
    assert "batch 4" in capsys.readouterr().out
    assert main([verb, request_name, "--hw", "a100", "--batch", "2"]) == 0
    assert "batch 2" in capsys.readouterr().out


def test_a_program_exported_at_a_fixed_batch_keeps_it(folder, capsys):
    module, image = nn.Conv2d(3, 8, 3, padding=1).eval(), torch.zeros(1, 3, 16, 16)
    torch.export.save(torch.export.export(module, (image,)), "fixed.pt2")
    dynamic = ({0: torch.export.Dim("batch")},)
    free = torch.export.export(module, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=dynamic)
    torch.export.save(free, "free.pt2")
    text = told(capsys, "analyze", "fixed.pt2", "--hw", "a100", "--batch", "8")
    assert "fixes the batch at 1, 8 is asked for" in text and "dynamic_shapes" in text
    assert costmodel.analyze("fixed.pt2", hw="a100").totals.macs == MACS
    assert costmodel.analyze("free.pt2", hw="a100", batch=8).totals.macs == 8 * MACS


def test_a_model_whose_inputs_have_no_common_batch_refuses_one():
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x @ y

    with pytest.raises(InputError, match="has no batch that could be 8"):
        costmodel.analyze(Two(), (torch.zeros(3, 5), torch.zeros(5, 2)), hw="a100", batch=8)


# -- sizes that nothing holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        ("--image-size", "99999999999999999999"),
        ("--image-size", "9999999999"),  # each side is a size, their product is none
        ("--batch", "99999999999999999999"),
        ("--seq-len", "99999999999999999999"),
        ("--input-shape", "3,99999999999,99999999999"),
    ],
)
def test_a_size_that_nothing_holds_is_refused_in_a_second(option, capsys):
    started = time.perf_counter()
    text = told(capsys, "analyze", "resnet50", "--hw", "a100", *option)
    assert time.perf_counter() - started < 1
    assert "larger than any machine holds" in text and "64 bits" in text


def test_a_batch_at_which_a_tensor_overflows_is_refused():
    module = nn.Conv2d(3, 64, 3, padding=1).eval()
    opened = costmodel.analyze(module, torch.zeros(1, 3, 64, 64), hw="a100")
    most = (2**63 - 1) // (4 * 64 * 64 * 64)  # fp32 results of the convolution
    assert opened.at(batch=most).totals.macs == most * 64 * 27 * 64 * 64
    with pytest.raises(InputError, match="one tensor takes"):
        _ = opened.at(batch=most + 1).totals
