"""Executed models: the graph is that of a static trace where there is one, counts are those of the run."""

from __future__ import annotations

import copy
import importlib
import json
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

import costmodel
from costmodel.__main__ import main
from costmodel.costing import cost_graph
from costmodel.errors import InputError, TraceError
from costmodel.formulas import is_free
from costmodel.sources import from_module
from costmodel.sources.building import real_weights
from costmodel.sources.runnable import runnable
from costmodel.trace import execute, trace
from costmodel.trace.forward import record
from costmodel.trace.real import RealSubstrate


def run(module, *inputs, **options):
    with real_weights():
        loaded = from_module(module, inputs)
    return execute(loaded, sizes=loaded.sizes, **options)


def macs(graph):
    return cost_graph(graph.bind({})).total.macs


class KeepRows(nn.Module):
    def __init__(self, device=None):
        super().__init__()
        self.head, self.norm = nn.Linear(8, 4, device=device), nn.BatchNorm1d(4, device=device)

    def forward(self, x):
        x = self.norm(self.head(x[x[:, 0] > 0]))
        assert torch.isfinite(x).all()
        return x


def rows():
    x = torch.ones(6, 8)
    x[:2] = -1
    return x


def test_boolean_indexing_counts_the_rows_that_are_kept():
    graph = run(KeepRows(), rows())
    assert macs(graph) == 4 * 8 * 4  # 4 of the 6 rows
    (selected,) = [node for node in graph.nodes if node.op == "aten.index"]
    assert selected.synchronizes and not graph.symbols


def test_the_users_module_is_left_as_it_was():
    module = KeepRows().train()
    module.head.register_forward_hook(lambda *_: None)
    given, before = rows(), copy.deepcopy(module.state_dict())
    keys = [set(part.__dict__) for part in module.modules()]
    run(module, given)
    assert all(part.training for part in module.modules())
    assert [set(part.__dict__) for part in module.modules()] == keys
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(given, rows()) and torch.backends.mha.get_fastpath_enabled()


def test_weights_on_meta_are_drawn_and_finite():
    graph = run(KeepRows("meta"), rows())
    assert macs(graph) == 4 * 8 * 4 and "random weights" in graph.executed and "given inputs" in graph.executed


class Parts(nn.Module):
    """What the CPU makes otherwise than a GPU: attention, the fast path of transformers, recurrent layers, pools."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.rnn = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.encoder(self.stem(x).flatten(2).transpose(1, 2))
        positions = torch.arange(x.shape[1], device=x.device)
        return self.head(self.rnn(x + positions[:, None])[0]).softmax(-1)


def test_the_graph_of_a_static_model_is_the_same_executed():
    module, x = Parts().eval(), torch.rand(2, 3, 33, 33)
    static, executed = trace(from_module(module, (x,)), symbols=()), run(module, x)
    worked, expected = ([(n.op, n.name) for n in g.nodes if not is_free(n.op)] for g in (executed, static))
    assert worked == expected
    assert cost_graph(executed).total == cost_graph(static).total
    assert {s.role for s in executed.storages} == {s.role for s in static.storages}


def test_attention_lies_in_memory_as_fused_kernels_leave_it():
    class Attention(nn.Module):
        def forward(self, q):
            return nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(2, 5, -1)

    graph = run(Attention(), torch.rand(2, 3, 5, 8))
    assert "aten.clone" not in {node.op for node in graph.nodes}, "the reshape is a view"


class Forgets(nn.Module):
    def forward(self, x):
        first = x * 2
        mark = StorageWeakRef(first.untyped_storage())
        x = first + 1
        del first
        for _ in range(3):
            x = x + 1
        assert mark.expired(), "a result that nobody needs any more is given back while the model runs"
        return x


def test_results_are_not_kept_and_their_identities_are_not_mixed_up():
    graph = run(Forgets(), torch.rand(1000, 10))
    chain = [node for node in graph.nodes if node.op in ("aten.mul", "aten.add")]
    assert len(chain) == 5
    assert all(graph.tensors[b.inputs[0]].producer == graph.nodes.index(a) for a, b in pairwise(chain))
    assert len({graph.tensors[node.outputs[0]].storage for node in chain}) == 5


def test_a_model_larger_than_memory_is_refused_before_it_runs(monkeypatch):
    module = importlib.import_module("costmodel.trace.execute")
    monkeypatch.setattr(module, "free_memory_bytes", lambda: 1 << 28)
    with pytest.raises(TraceError, match=r"takes at least .* of this machine's memory are free"):
        run(nn.Linear(4096, 4096), torch.rand(1, 4096))


def test_a_run_stops_before_memory_is_full():
    substrate = RealSubstrate(free_bytes=lambda: 1 << 20)
    with pytest.raises(TraceError, match=r"this machine's memory are left"):
        record(Doubled(), (torch.rand(1 << 25),), {}, real=substrate)


class Doubled(nn.Module):
    def forward(self, x):
        return x + x


def test_another_machine_or_dtype_runs_nothing_anew_and_another_batch_is_refused():
    runs = []

    class Counted(KeepRows):
        def forward(self, x):
            runs.append(x.is_meta)
            return super().forward(x)

    found = costmodel.analyze(Counted(), rows(), hw="a100", execute=True)
    assert found.at(hw="t4", dtype="fp16").totals.macs == 4 * 8 * 4
    assert runs.count(False) == 1
    with pytest.raises(InputError, match="its numbers are for those inputs"):
        found.at(batch=12)
    assert found.findings is not None and runs.count(False) == 1


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_detectors_count_as_torch_counts_the_same_run(name):
    loaded = runnable(f"torchvision:{name}", None, {}, None)
    picture = torch.rand(1, 3, 320, 480, generator=torch.Generator().manual_seed(1))
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        loaded.module.eval()(picture)
    found = costmodel.analyze(f"torchvision:{name}", picture, hw="a100", execute=True)
    assert 2 * found.totals.macs == counter.get_total_flops()
    assert not found.coverage.uncosted
    assert {"torchvision.nms", "torchvision.roi_align"} <= {node.op for node in found.record.nodes}


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x * 2 if x.mean() > 0.5 else x[:, :, ::2])

def make():
    return Net(), torch.zeros(1, 3, 8, 8)
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py:make"


def totals(capsys, *command):
    assert main(["analyze", *command, "--hw", "a100", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["executed"] and any("for these inputs" in note for note in found["model"]["notes"])
    return found["totals"]["macs"]


def test_a_run_from_the_command_line_takes_files(net, tmp_path, capsys):
    from PIL import Image

    torch.save(torch.ones(1, 3, 8, 8), tmp_path / "x.pt")
    Image.new("RGB", (16, 10), "white").save(tmp_path / "x.png")
    assert totals(capsys, net, "--execute") == 4 * 8 * 3 * 4  # zeros: every other row
    assert totals(capsys, net, "--execute", "--input", f"{tmp_path}/x.pt") == 8 * 8 * 3 * 4
    assert totals(capsys, net, "--execute", "--input", f"{tmp_path}/x.png") == 8 * 8 * 3 * 4  # resized to the model's


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--input", "x.pt"], "--execute"),
        (["--execute", "--input", "x.wav"], "torch.save"),
        (["--execute", "--input", "nowhere.pt"], "no file"),
        (["--execute", "--assume", "net.py:12=true"], "not both"),
    ],
)
def test_what_cannot_be_run_is_said(net, options, said, capsys):
    assert main(["analyze", net, "--hw", "a100", *options]) == 2
    assert said in capsys.readouterr().err


class Routed(nn.Module):
    """Tokens go to the expert that a gate picks: what each expert multiplies depends on values."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Linear(8, width) for width in (8, 8))

    def forward(self, x):
        choice = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            (mine,) = torch.where(choice == number)
            out.index_copy_(0, mine, expert(x[mine]))
        return out


def test_routing_by_nonzero_sends_every_token_once():
    graph = run(Routed(), torch.randn(10, 8))
    assert macs(graph) == 10 * 8 * 2 + 10 * 8 * 8  # the gate, and one expert for each token
    assert sum(node.op == "aten.nonzero" and node.synchronizes for node in graph.nodes) == 2


class Adaptive(nn.Module):
    """An ODE solver that halves its step until two estimates agree."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.rate.weight)

    def forward(self, x):
        time, step = 0.0, 1.0
        while time < 1.0:
            slope = self.rate(x)
            ahead = self.rate(x + step * slope)
            if step > 0.25 and (ahead - slope).abs().max() * step > 0.2:
                step /= 2
                continue
            x, time = x + step * (slope + ahead) / 2, time + step
        return x


def test_an_adaptive_solver_counts_the_steps_that_it_takes():
    calls = []
    module = Adaptive()
    module.rate.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        module(torch.ones(2, 4))
    plain = len(calls)
    assert macs(run(module, torch.ones(2, 4))) == plain * 2 * 4 * 4 and plain > 4
