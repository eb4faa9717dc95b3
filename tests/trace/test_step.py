"""A training step is what autograd runs: its own dispatch, seen without the recorder, is the expected value."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import costmodel
from costmodel.costing import cost_graph
from costmodel.errors import CostmodelError
from costmodel.execution import NodePhase, Phase, Variant
from costmodel.graph import OpGraph
from costmodel.sources import from_module, resolve
from costmodel.trace import trace

TRAINING = Variant(train_mode=True, phase=Phase.TRAINING)
IMAGE = torch.zeros(4, 3, 16, 16)


def step_of(module: nn.Module, *inputs: torch.Tensor, device: str = "cuda") -> OpGraph:
    variant = Variant(device=device, train_mode=True, phase=Phase.TRAINING)
    return trace(from_module(module, inputs), symbols=(), sizes={"batch": len(inputs[0])}, variant=variant)


class Convolutions(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=8),
            nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.head(y + torch.tanh(self.second(y)) * y)


class Dispatched(TorchDispatchMode):
    """What autograd hands to the dispatcher on meta, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        function = torch._C._current_autograd_node()
        name = func._schema.name.partition("::")[2].removesuffix("_")
        keeps = function is not None and "AccumulateGrad" in function.name()  # which launches nothing on CUDA
        if name != "detach" and not keeps:
            self.seen.append((f"aten.{name}", function is not None))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("module", "inputs"), [(Convolutions(), IMAGE), (Residual(), torch.zeros(4, 8))])
def test_nodes_are_what_autograd_dispatches_in_its_order(module, inputs):
    alone, inputs = copy.deepcopy(module).to("meta").train(), inputs.to("meta")
    target = torch.zeros(len(inputs), dtype=torch.int64, device="meta")
    with Dispatched() as mode:
        logits = alone(inputs)
        functional.cross_entropy(logits, target).backward()
    seed = "aten.ones_like"  # made before autograd enters its first function
    found = [(n.op, n.phase is NodePhase.BACKWARD) for n in step_of(module, inputs).nodes]
    assert [call for call in found if call[0] != seed] == [call for call in mode.seen if call[0] != seed]
    assert found.count((seed, True)) == 1


def test_a_backward_node_knows_the_node_it_differentiates():
    graph = step_of(Convolutions(), IMAGE)
    partners = {
        (node.op, graph.nodes[node.forward].op)
        for node in graph.nodes
        if node.phase is NodePhase.BACKWARD and node.forward is not None
    }
    assert {
        ("aten.convolution_backward", "aten.convolution"),
        ("aten.native_batch_norm_backward", "aten.native_batch_norm"),
        ("aten.threshold_backward", "aten.relu"),
        ("aten.gelu_backward", "aten.gelu"),
        ("aten.max_pool2d_with_indices_backward", "aten.max_pool2d_with_indices"),
        ("aten.mm", "aten.addmm"),
    } <= partners
    for node in graph.nodes:
        if node.forward is not None:
            assert node.module == graph.nodes[node.forward].module


def test_every_trained_parameter_ends_with_a_gradient_of_its_shape():
    module = Convolutions()
    graph = step_of(module, IMAGE)
    shapes = {name: graph.specs[graph.tensors[index].spec].shape for name, index in graph.gradients.items()}
    assert shapes == {name: tuple(p.shape) for name, p in module.named_parameters()}


def test_frozen_parameters_and_the_first_input_get_no_gradient():
    module = Residual()
    module.first.requires_grad_(False)
    graph = step_of(module, torch.zeros(4, 8))
    assert set(graph.gradients) == {"second.weight", "second.bias", "head.weight", "head.bias"}
    # second: its weight alone, as its input needs none; head: input and weight
    assert sum(node.op == "aten.mm" for node in graph.nodes) == 1 + 2


def test_a_tied_weight_has_one_gradient_added_up():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.words(x)).mean(1)

    graph = step_of(Tied(), torch.zeros(4, 6, dtype=torch.int64))
    (index,) = graph.gradients.values()
    producer = graph.nodes[graph.tensors[index].producer]
    assert (producer.op, producer.in_place) == ("aten.add", True)


def test_gradients_that_meet_are_added_in_the_storage_of_the_first():
    graph = step_of(Residual(), torch.zeros(4, 8))
    added = [n for n in graph.nodes if n.op == "aten.add" and n.phase is NodePhase.BACKWARD]
    assert len(added) == 2  # the three uses of y
    for node in added:
        into, result = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
        assert node.in_place == (into.storage == result.storage)
    # The gradient of the sum goes to tanh's branch too, but has been read there before the first addition.
    assert all(node.in_place for node in added)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_computes_its_part_again(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.head = nn.Linear(8, 8), Residual(), nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.body, self.stem(x), use_reentrant=reentrant))

    nodes = step_of(Checkpointed(), torch.zeros(4, 8)).nodes
    again = [n for n in nodes if n.op == "aten.addmm" and n.phase is NodePhase.BACKWARD]
    assert [n.module for n in again][:2] == ["body.first", "body.second"]
    assert all(n.forward is None for n in again)


def test_a_function_of_ones_own_runs_its_own_backward():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return torch.sin(gradient)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Twice.apply(self.head(x))

    nodes = step_of(Net(), torch.zeros(4, 8)).nodes
    assert [n.op for n in nodes if n.phase is NodePhase.BACKWARD].count("aten.sin") == 1


@pytest.mark.parametrize(
    ("device", "forward"),
    [
        ("cuda", "aten._scaled_dot_product_flash_attention"),
        ("cpu", "aten._scaled_dot_product_flash_attention_for_cpu"),
    ],
)
def test_attention_is_one_node_each_way(device, forward):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(32, 96)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4)
            return functional.scaled_dot_product_attention(q, k, v).mean((1, 2))

    ops = [n.op for n in step_of(Attention(), torch.zeros(4, 7, 32), device=device).nodes]
    assert ops.count(forward) == ops.count(f"{forward}_backward") == 1


@pytest.mark.parametrize("machines", [("i9-10940x", "a100"), ("a100", "i9-10940x")])
def test_a_trace_with_operators_of_one_device_is_not_taken_for_another(machines):
    """Neither attention nor dropout asks where its tensors lie, yet each device differentiates its own operator."""
    layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True)
    first = costmodel.analyze(layer, torch.zeros(4, 7, 32), hw=machines[0], phase="training")
    moved = {
        run.hardware.name: {call.op for call in run.costs.graph.calls} for run in (first, first.at(hw=machines[1]))
    }
    (gpu,), (cpu,) = ([ops for name, ops in moved.items() if name.startswith(kind)] for kind in ("a100", "i9"))
    assert "aten.native_dropout" in gpu
    assert "aten.native_dropout" not in cpu


def test_a_step_without_operators_of_a_device_is_traced_for_all():
    assert step_of(Convolutions(), IMAGE).device == ""


def test_dropout_draws_its_mask_in_one_kernel_on_cuda():
    module = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 5))
    ops = [n.op for n in step_of(module, torch.zeros(4, 8)).nodes]
    assert ops.count("aten.native_dropout") == ops.count("aten.native_dropout_backward") == 1
    assert "aten.bernoulli" in [n.op for n in step_of(module, torch.zeros(4, 8), device="cpu").nodes]


def test_the_module_is_not_touched():
    module = Convolutions().eval()
    module.requires_grad_(True)
    before = copy.deepcopy(module.state_dict())
    step_of(module, IMAGE)
    assert not module.training
    assert all(p.grad is None for p in module.parameters())
    assert not any(m._forward_hooks or m._backward_hooks or "forward" in vars(m) for m in module.modules())
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_trains_nothing_is_refused():
    with pytest.raises(CostmodelError, match="takes a gradient"):
        step_of(Convolutions().requires_grad_(False), IMAGE)
    with pytest.raises(CostmodelError, match="no floating-point tensor"):
        step_of(Indices(), torch.zeros(4, 16))


class Indices(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).argmax(-1)


def test_the_loss_is_said():
    assert any("cross entropy" in note for note in step_of(Convolutions(), IMAGE).notes)
    pixels = step_of(nn.Conv2d(3, 2, 3), IMAGE)
    assert any("sum of its output's elements" in note for note in pixels.notes)


def test_a_step_with_the_batch_open_is_the_step_at_that_batch():
    loaded = from_module(Convolutions(), (IMAGE,))
    symbolic = trace(loaded, symbols=("batch",), variant=TRAINING)
    for batch in (2, 5, 64):
        there = trace(loaded, symbols=(), sizes={"batch": batch}, variant=TRAINING)
        bound = symbolic.bind({"batch": batch})
        assert [(n.op, n.phase, n.forward) for n in bound.nodes] == [(n.op, n.phase, n.forward) for n in there.nodes]
        assert [bound.specs[t.spec] for t in bound.tensors] == [there.specs[t.spec] for t in there.tensors]
        assert [s.nbytes for s in bound.storages] == [s.nbytes for s in there.storages]


def test_a_long_backward_pass_is_not_taken_for_a_loop_over_the_batch():
    module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(200)), nn.Linear(8, 5))
    loaded = from_module(module, (torch.zeros(4, 8),))
    graph = trace(loaded, symbols=("batch",), variant=TRAINING)
    assert list(graph.symbols) == ["batch"]


def test_batch_norm_over_a_single_value_says_what_to_do():
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 5))
    with pytest.raises(CostmodelError, match="larger batch"):
        step_of(module, torch.zeros(1, 8))


def test_a_loss_of_ones_own_is_part_of_the_step(tmp_path):
    def distance(output: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(output, torch.zeros_like(output))

    loaded = from_module(nn.Conv2d(3, 2, 3), (IMAGE,))
    loaded.loss = distance
    graph = trace(loaded, symbols=("batch",), variant=TRAINING)
    assert "trained on the loss distance" in graph.notes
    assert {"aten.mse_loss", "aten.mse_loss_backward"} <= {n.op for n in graph.nodes}
    loaded.loss = lambda output: output
    with pytest.raises(CostmodelError, match="gives no scalar"):
        trace(loaded, symbols=(), variant=TRAINING)


def test_a_factory_may_bring_its_loss(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    return nn.Linear(8, 4), torch.zeros(2, 8), lambda output: output.abs().mean()\n"
    )
    loaded = resolve(f"{file}:net")
    assert "aten.abs" in {n.op for n in trace(loaded, symbols=(), variant=TRAINING).nodes}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("learns_input", [False, True])
def test_a_recurrent_layer_is_one_call_of_cudnn_each_way(kind, layers, learns_input):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Linear(6, 6).requires_grad_(learns_input)
            self.layer = kind(6, 8, num_layers=layers, bidirectional=True, batch_first=True)
            self.head = nn.Linear(16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(self.words(x))[0][:, -1])

    module = Net()
    graph = step_of(module, torch.zeros(4, 7, 6))
    ops = [n.op for n in graph.nodes]
    assert ops.count("aten._cudnn_rnn") == ops.count("aten._cudnn_rnn_backward") == 1
    assert set(graph.gradients) == {name for name, p in module.named_parameters() if p.requires_grad}
    alone = copy.deepcopy(module).to("meta").train()
    with FlopCounterMode(display=False) as counter:
        logits = alone(torch.zeros(4, 7, 6, device="meta"))
        functional.cross_entropy(logits, torch.zeros(4, dtype=torch.int64, device="meta")).backward()
    assert 2 * cost_graph(graph).total.macs == counter.get_total_flops()


def test_the_gradient_of_silu_is_one_operator_as_every_device_runs_it():
    model = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))
    found = costmodel.analyze(model, torch.empty(2, 8), hw="a100", phase="training").bound
    backward = [node.op for node in found.nodes if node.phase is NodePhase.BACKWARD]
    assert backward.count("aten.silu_backward") == 1
    assert "aten.sigmoid" not in backward


@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm_is_one_kernel_each_way_on_cuda(weighted):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(8, 8), nn.RMSNorm(8, elementwise_affine=weighted)
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.layer(x)))

    module = Net()
    graph = step_of(module, torch.zeros(4, 8))
    ops = [n.op for n in graph.nodes]
    assert ops.count("aten._fused_rms_norm") == ops.count("aten._fused_rms_norm_backward") == 1
    assert "aten.rsqrt" not in ops
    backward = next(n for n in graph.nodes if n.op == "aten._fused_rms_norm_backward")
    assert graph.nodes[backward.forward].op == "aten._fused_rms_norm"
    assert backward.module == "norm"
    assert set(graph.gradients) == {name for name, _ in module.named_parameters()}
    assert "aten.rsqrt" in [n.op for n in step_of(module, torch.zeros(4, 8), device="cpu").nodes]


def test_a_gradient_that_every_device_has_a_kernel_for_is_one_operator():
    for layer, gradient in ((nn.Mish(), "aten.mish_backward"), (nn.SiLU(), "aten.silu_backward")):
        nodes = step_of(nn.Sequential(nn.Linear(8, 8), layer, nn.Linear(8, 5)), torch.zeros(4, 8)).nodes
        backward = [n for n in nodes if n.module == "1" and n.phase is NodePhase.BACKWARD]
        assert [n.op for n in backward] == [gradient]
        assert nodes[backward[0].forward].module == "1"


def test_speech_is_trained_on_alignments_of_its_own():
    class Speech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            steps = torch.full((len(x),), x.shape[1]), torch.full((len(x),), target.shape[1])
            return functional.ctc_loss(self.head(x).log_softmax(-1).transpose(0, 1), target, *steps)

    loaded = from_module(Speech(), (torch.zeros(4, 12, 8), torch.ones(4, 3, dtype=torch.int64)))
    ops = [n.op for n in trace(loaded, symbols=("batch",), variant=TRAINING).nodes]
    assert ops.count("aten._ctc_loss") == ops.count("aten._ctc_loss_backward") == 1


def _vision_ops():
    resolve("timm:resnet18")  # makes torchvision importable, whatever torch it was compiled for
    return pytest.importorskip("torchvision").ops


def test_gradients_go_through_deformable_convolutions():
    ops = _vision_ops()

    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset, self.layer = nn.Conv2d(3, 18, 3, padding=1), ops.DeformConv2d(3, 8, 3, padding=1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x, self.offset(x))

    module = Deformed()
    graph = step_of(module, IMAGE)
    assert set(graph.gradients) == {name for name, _ in module.named_parameters()}
    costs = cost_graph(graph)
    macs = {n.op: costs.of_node(i).macs for i, n in enumerate(graph.nodes) if "deform" in n.op}
    one = 4 * 16 * 16 * 8 * 3 * 9
    assert macs == {"torchvision.deform_conv2d": one, "torchvision._deform_conv2d_backward": 2 * one}
    assert not costs.uncosted


@pytest.mark.parametrize("name", ["roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"])
def test_gradients_go_through_pooled_regions(name):
    ops = _vision_ops()

    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(ops, name)(self.layer(x), torch.zeros(6, 5, device=x.device), (2, 2))

    graph = step_of(Regions(), IMAGE)
    backward = [n.op for n in graph.nodes if n.phase is NodePhase.BACKWARD]
    assert backward[-2:] == [f"torchvision._{name}_backward", "aten.convolution_backward"]
    assert set(graph.gradients) == {"layer.weight", "layer.bias"}
    node = next(n for n in graph.nodes if n.op == backward[-2])
    assert graph.specs[graph.tensors[node.outputs[0]].spec].shape == (4, 8, 14, 14)


def test_flex_attention_in_training_is_refused_in_a_sentence():
    from torch.nn.attention.flex_attention import flex_attention

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(32, 96)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return flex_attention(*self.qkv(x).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4))

    with pytest.raises(CostmodelError, match="backward pass of flex_attention is not modelled"):
        step_of(Attention(), torch.zeros(2, 128, 32))


@pytest.mark.parametrize(
    ("module", "why"),
    [(nn.ReLU(), "no output depends on a parameter that takes a gradient"), (nn.Embedding(3, 4), "")],
)
def test_what_cannot_be_trained_is_said_without_a_word_of_lines(module, why):
    tokens = torch.zeros(2, 3, dtype=torch.int64) if isinstance(module, nn.Embedding) else torch.zeros(2, 3)
    if not why:
        module.weight.requires_grad_(False)
    with pytest.raises(CostmodelError) as raised:
        step_of(module, tokens)
    first, second = str(raised.value).splitlines()
    assert first == f"the loss of {type(module).__name__} failed"
    assert why in second
