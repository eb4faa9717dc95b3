"""Training steps that run on this machine: what torch does in them, on the nodes of the graph, and their memory."""

from __future__ import annotations

import pytest

from costmodel.analysis import Analysis
from costmodel.errors import InputError, ModelError
from costmodel.execution import Execution, NodePhase, Variant
from costmodel.hardware import load

torch = pytest.importorskip("torch")

from costmodel.measure.events import Event  # noqa: E402
from costmodel.measure.items import Vocabulary, items_of  # noqa: E402
from costmodel.measure.run import fitting, place, time_and_profile  # noqa: E402
from costmodel.measure.running import prepare  # noqa: E402
from costmodel.measure.stepping import torch_optimizer  # noqa: E402
from costmodel.traced import load_trace  # noqa: E402

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.Linear(16, 5)
        self.frozen = nn.Linear(5, 5)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        return self.frozen(self.head(x.mean((2, 3))))

def net():
    return Net(), torch.zeros(4, 3, 32, 32)

def with_loss():
    def squares(out):
        return (out * out).sum()
    return Net(), torch.zeros(4, 3, 32, 32), squares

class Blind(Net):
    def forward(self, x):
        return super().forward(x).detach()

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.blocks(x))

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(32, 256), nn.Linear(256, 32)

    def forward(self, x):
        return x + self.b(self.a(x).relu())

def deep():
    return Deep(), torch.zeros(64, 32)

def blind():
    return Blind(), torch.zeros(4, 3, 32, 32)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "net.py"
    path.write_text(NET)
    return path


def measured(request: str, *, batch: int = 4, **words):
    """A measurement of two profiled steps, and the analysis of the same step on a CPU."""
    execution = Execution.of(batch=batch, phase="training", **words)
    traced = load_trace(request, batch=batch, variant=Variant.of(execution, "cpu"), use_cache=False)
    analysis = Analysis(name="net", source="", record=traced.graph, hardware=load("xeon-6148"), execution=execution)
    timed = time_and_profile(fitting(request, execution), repeats=1, steps=2)
    return place(timed, analysis.bound, model="net", device="cpu"), analysis


@pytest.mark.parametrize("optimizer", ["none", "momentum", "adam"])
def test_every_part_of_a_step_finds_its_nodes(folder, optimizer):
    found, analysis = measured(f"{folder}:net", optimizer=optimizer)
    times = {node.name: node.measured_us for node in found.nodes}
    heavy = [
        n for n in analysis.bound.nodes if n.op.split(".")[1] in ("convolution", "convolution_backward", "addmm", "mm")
    ]
    assert {n.phase for n in heavy} == {NodePhase.FORWARD, NodePhase.BACKWARD}
    assert all(times[n.name] > 0 for n in heavy)
    by_phase = {
        phase: sum(n.measured_us for n in found.nodes if n.phase == phase)
        for phase in ("forward", "backward", "optimizer")
    }
    assert by_phase["forward"] > 0 and by_phase["backward"] > 0
    assert (by_phase["optimizer"] > 0) == (optimizer != "none")
    assert found.attributed_share > 0.9
    assert any("cross entropy" in note for note in found.notes)
    assert found.csv_row()["optimizer"] == optimizer


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_memory_is_that_of_the_allocator(folder, optimizer):
    """Predicted tensors and measured allocations are both exact here, but for what torch's kernels take inside."""
    found, analysis = measured(f"{folder}:net", optimizer=optimizer)
    assert found.peak_memory_bytes == pytest.approx(analysis.memory.peak_bytes, rel=0.05)


def test_checkpoints_and_low_rank_weights_run_as_they_are_predicted(folder):
    """Checkpoints run blocks again and take less memory; with low ranks alone A, B and the head are trained."""
    found = {
        word: measured(f"{folder}:deep", batch=64, optimizer="sgd", checkpoint=word) for word in ("none", "blocks")
    }
    peaks = {word: measurement.peak_memory_bytes for word, (measurement, _) in found.items()}
    assert peaks["blocks"] < peaks["none"]
    for measurement, analysis in found.values():
        assert measurement.peak_memory_bytes == pytest.approx(analysis.memory.peak_bytes, rel=0.05)
        assert all(n.measured_us > 0 for n in measurement.nodes if n.op in ("aten.mm", "aten.addmm"))
    assert any("run again" in note for note in found["blocks"][0].notes)
    low, predicted = measured(f"{folder}:deep", batch=64, optimizer="sgd", trainable="lora:4")
    assert sum(node.phase == "optimizer" for node in low.nodes) == len(predicted.record.gradients) == 2 * 8 + 2
    assert all(node.measured_us > 0 for node in low.nodes if node.phase == "optimizer")


def test_weights_change_and_frozen_ones_do_not(folder):
    runnable = prepare(f"{folder}:net", Execution.of(batch=4, phase="training", optimizer="adam"))
    module = runnable.call.module
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    runnable.call()
    assert module.training
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert {"conv.weight", "head.weight"} <= changed
    assert not any(name.startswith("frozen") for name in changed)


def test_a_loss_of_ones_own_is_taken(folder):
    runnable = prepare(f"{folder}:with_loss", Execution.of(batch=4, phase="training"))
    runnable.call()
    assert list(runnable.said()) == ["trained on the loss squares"]


def test_a_model_that_nothing_trains_is_refused(folder):
    with pytest.raises(ModelError, match="does not require grad"):
        fitting(f"{folder}:blind", Execution.of(batch=4, phase="training"))


@pytest.mark.parametrize(
    ("words", "kind", "options"),
    [
        ({"optimizer": "sgd"}, "SGD", {"momentum": 0, "weight_decay": 0}),
        ({"optimizer": "nesterov"}, "SGD", {"momentum": 0.9, "nesterov": True}),
        ({"optimizer": "adamw"}, "AdamW", {"weight_decay": 0.01, "fused": None}),
        ({"optimizer": "adamw", "weight_decay": False}, "AdamW", {"weight_decay": 0.0}),
        ({"optimizer": "adam", "fused_optimizer": True}, "Adam", {"fused": True}),
    ],
)
def test_optimizers_are_torchs_own(words, kind, options):
    made = torch_optimizer([torch.nn.Parameter(torch.ones(2))], Execution.of(phase="training", **words))
    assert type(made).__name__ == kind
    assert {name: made.defaults[name] for name in options} == options


def test_an_optimizer_of_another_library_is_refused():
    with pytest.raises(InputError, match="bitsandbytes"):
        torch_optimizer([], Execution.of(phase="training", optimizer="adam8bit"))


def test_a_backward_pass_is_refused_where_the_graph_has_none():
    event = Event("autograd::engine::evaluate_function: AddmmBackward0", 0.0, 1.0)
    with pytest.raises(InputError, match="--phase training"):
        items_of([event], Vocabulary.of({"aten.addmm"}), on_device=False)
    assert items_of([event], Vocabulary.of({"aten.addmm"}, trains=True), on_device=False) == []
