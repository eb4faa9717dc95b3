"""Questions about values: checks are assumed, listed and can be turned round; what decides the work is refused."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn

import costmodel
from costmodel.__main__ import main
from costmodel.costing import cost_graph
from costmodel.errors import InputError, TraceError
from costmodel.graph_json import from_json, to_json
from costmodel.sources import from_module
from costmodel.trace import trace


def traced(module, *inputs, assume=None, **options):
    loaded = from_module(module.eval(), inputs)
    loaded.assume = assume or {}
    return trace(loaded, **options)


def macs(graph, **sizes):
    return cost_graph(graph.bind(sizes)).total.macs


def line_of(text):
    """``test_checks.py:N`` of the line that holds ``text``."""
    with open(__file__, encoding="utf-8") as file:
        (number,) = [n for n, line in enumerate(file, 1) if text in line and "line_of" not in line]
    return f"test_checks.py:{number}"


class Distribution(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return torch.distributions.Categorical(logits=self.head(x)).probs


def test_the_checks_of_a_distribution_pass_and_leave_the_batch_open():
    graph = traced(Distribution(), torch.zeros(2, 8))
    assert macs(graph, batch=7) == 7 * 8 * 4
    (assumed,) = graph.assumed
    assert assumed.answer is True and assumed.name == line_of("torch.distributions.Categorical(")
    assert from_json(to_json(graph)) == graph


class Examined(nn.Module):
    """Arguments examined in the ways that people write; each would raise if its answer were the other one."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        assert (x >= 0).all(), "stated"
        if (x > 9).any():
            raise ValueError("out of range")
        if torch.isnan(x).any():
            raise ValueError("not a number")
        assert x.max() < 10
        if x.min() < 0:
            warnings.warn("negative", stacklevel=2)
        if not torch.equal(x, x):
            raise ValueError("unequal")
        return self.head(x)


@pytest.mark.filterwarnings("ignore:negative")
def test_what_lets_the_model_go_on_is_assumed():
    graph = traced(Examined(), torch.zeros(2, 8))
    assert macs(graph, batch=3) == 3 * 8 * 4
    answers = {a.name: a.answer for a in graph.assumed}
    assert answers[line_of('all(), "stated"')] is True
    assert answers[line_of("if (x > 9).any()")] is False
    assert answers[line_of("if torch.isnan(x)")] is False
    assert answers[line_of("assert x.max() < 10")] is True
    assert len(answers) == 6


def test_an_error_that_is_not_about_an_assumption_is_not_tried_away():
    class Broken(nn.Module):
        def forward(self, x):
            assert (x > 0).all()
            return self.broken(x)

        def broken(self, x):
            raise RuntimeError("no such thing")

    with pytest.raises(TraceError, match="no such thing"):
        traced(Broken(), torch.zeros(2, 8))


class Vocoder(nn.Module):
    """istft checks in C++ that the windows overlap; their envelope is longer than what keeps its values."""

    def forward(self, x):
        window = torch.hann_window(4096).to(x)
        frames = torch.stft(x, 4096, 1024, window=window, return_complex=True)
        return torch.istft(frames, 4096, 1024, window=window)


def test_a_check_inside_an_operator_of_torch_is_assumed_to_pass():
    graph = traced(Vocoder(), torch.zeros(1, 200_000))
    assert [node.op for node in graph.nodes].count("aten._fft_c2r") == 1
    assert [a.answer for a in graph.assumed] == [False]


class MaskIfAny(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.other = nn.Linear(8, 4), nn.Linear(8, 8)

    def forward(self, x, mask):
        if mask.any():  # the question
            x = self.other(x).masked_fill(mask, 0)
        return self.head(x)


WITHOUT, WITH = 2 * 8 * 4, 2 * 8 * (4 + 8)


def test_a_mask_with_values_is_read_at_the_batch_given():
    mask = torch.zeros(2, 8, dtype=torch.bool)
    graph = traced(MaskIfAny(), torch.zeros(2, 8), mask)
    assert macs(graph) == WITHOUT and not graph.assumed
    mask[0, 0] = True
    assert macs(traced(MaskIfAny(), torch.zeros(2, 8), mask)) == WITH


def test_a_mask_without_values_is_assumed_to_hold_somewhere_and_the_answer_can_be_turned_round():
    inputs = torch.zeros(2, 8), torch.zeros(2, 8, dtype=torch.bool, device="meta")
    question = line_of("# the question")
    graph = traced(MaskIfAny(), *inputs)
    assert [(a.name, a.answer) for a in graph.assumed] == [(question, True)]
    assert macs(graph, batch=2) == WITH
    turned = traced(MaskIfAny(), *inputs, assume={question: False})
    assert [(a.name, a.answer) for a in turned.assumed] == [(question, False)]
    assert macs(turned, batch=2) == WITHOUT


def test_an_answer_to_a_question_that_is_not_asked_is_refused_with_those_that_are():
    inputs = torch.zeros(2, 8), torch.zeros(2, 8, dtype=torch.bool, device="meta")
    with pytest.raises(InputError, match=re.escape(line_of("# the question"))):
        traced(MaskIfAny(), *inputs, assume={"test_checks.py:1": False})


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.other = nn.Linear(8, 4), nn.Linear(8, 8)

    def forward(self, x):
        if x.mean() > 0:  # decides the work
            x = self.other(x)
        return self.head(x[:, : int(x.argmax()) + 8])  # asks for a number


def test_what_decides_the_work_is_refused_with_ways_to_say_it():
    with pytest.raises(TraceError) as refused:
        traced(Branch(), torch.zeros(2, 8))
    question = line_of("# decides the work")
    assert f"--assume {question}=true" in str(refused.value) and "--execute" in str(refused.value)


@pytest.mark.parametrize(("answer", "expected"), [(True, WITH), (False, WITHOUT)])
def test_a_caller_may_answer_what_is_not_assumed(answer, expected):
    known = {line_of("# decides the work"): answer, line_of("# asks for a number"): 0}
    graph = traced(Branch(), torch.zeros(2, 8), assume=known)
    assert macs(graph, batch=2) == expected
    assert {a.name: a.answer for a in graph.assumed} == known


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        if (x < 0).any():
            x = x.abs()
        return self.head(x)

def make():
    return Net().eval(), torch.zeros(2, 8)

def again():
    return make()
"""


@pytest.mark.parametrize(
    "command",
    [
        ["analyze", "--hw", "a100", "--format", "table"],
        ["analyze", "--hw", "a100", "--format", "markdown"],
        ["analyze", "--hw", "a100", "--format", "json"],
        ["analyze", "--hw", "a100", "--format", "html"],
        ["explain", "--hw", "a100"],
        ["explain", "--hw", "a100", "--format", "json"],
        ["compare", "--hw", "a100"],
        ["compare", "--hw", "a100", "--format", "json"],
        ["formula"],
    ],
)
def test_what_was_assumed_is_told_by_every_command_and_format(command, tmp_path, capsys):
    (tmp_path / "net.py").write_text(NET)
    verb, *options = command
    models = [f"{tmp_path}/net.py:{name}" for name in ("make", "again")[: 2 if verb == "compare" else 1]]
    assert main([verb, *models, *options]) == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "net.py:11 is assumed true" in told
    assert main([verb, *models, *options, "--assume", "net.py:11=false"]) == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "net.py:11 is assumed false" in told and "is assumed true" not in told


def test_the_analysis_holds_its_assumptions():
    found = costmodel.analyze(Distribution().eval(), torch.zeros(2, 8), hw="a100")
    assert [a.answer for a in found.assumed] == [True]


@pytest.mark.parametrize("read", ["tolist", "numpy", "__bool__", "__float__"])
def test_whoever_reads_all_values_is_told_to_run_it(read):
    """torch refuses some of these in words of its own, before any operator is called."""

    class Reads(nn.Module):
        def forward(self, x):
            getattr(x.sum(), read)()
            return x

    with pytest.raises(TraceError, match=r"decides by the values of a tensor[\s\S]*--execute"):
        trace(from_module(Reads(), (torch.ones(2, 3),)), symbols=())
