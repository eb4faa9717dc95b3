"""Training steps of a sample of architectures: MACs as torch counts them, the same at any batch, the module untouched.

``benchmarks/training_counts.py`` does the first for many more; its code is what runs here.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from costmodel.costing import cost_graph
from costmodel.execution import NodePhase, Phase, Variant

torch = pytest.importorskip("torch")

SURVEY = Path(__file__).parents[1] / "benchmarks" / "training_counts.py"
TRAINING = Variant(train_mode=True, phase=Phase.TRAINING)

#: Plain, grouped and depthwise convolutions, every kind of norm and attention, resampling, losses of their own.
SAMPLE = """torchvision:squeezenet1_1 torchvision:shufflenet_v2_x0_5 torchvision:mobilenet_v3_small torchvision:resnet18
timm:convnext_atto timm:vit_tiny_patch16_224 timm:coat_lite_tiny timm:efficientvit_b0 timm:resnetv2_50
timm:mobilevit_xxs timm:levit_128s timm:pvt_v2_b0 timm:tresnet_m timm:mixer_s32_224 timm:hrnet_w18_small
transformers:bert transformers:albert transformers:gpt2 transformers:llama transformers:t5""".split()
#: Models of different kinds that are traced with the batch open and at three batches.
AT_ANY_BATCH = """torchvision:squeezenet1_1 torchvision:mobilenet_v3_small torchvision:resnet18 torchvision:alexnet
timm:convnext_atto timm:vit_tiny_patch16_224 timm:lcnet_050 timm:pit_ti_224 timm:resnetv2_50 timm:mixer_s32_224
transformers:bert transformers:llama""".split()


@pytest.fixture(scope="module")
def survey():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("training_counts_survey", SURVEY)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("request_", SAMPLE)
def test_macs_of_a_step_are_torchs_own(survey, request_):
    step = survey.count(request_)
    assert not step.failure
    assert step.macs == step.macs_torch > step.macs_forward > 0
    assert not step.uncosted


def test_torchs_counter_is_taken_as_it_is_where_nothing_is_grouped(survey):
    assert (plain := survey.count("torchvision:resnet18")).macs == plain.macs_torch_unmended
    assert (grouped := survey.count("torchvision:mobilenet_v3_small")).macs < grouped.macs_torch_unmended


@pytest.mark.parametrize("request_", AT_ANY_BATCH)
def test_a_step_with_the_batch_open_costs_what_it_costs_at_that_batch(survey, request_):
    from costmodel.trace import trace

    loaded = survey.request_of(request_)
    graph = trace(loaded, symbols=("batch",), variant=TRAINING)
    assert list(graph.symbols) == ["batch"]
    closed = cost_graph(graph.symbolic()).total
    for batch in (2, 5, 32):
        bound, there = graph.bind({"batch": batch}), trace(loaded, symbols=(), sizes={"batch": batch}, variant=TRAINING)
        ours, expected = cost_graph(bound), cost_graph(there)
        assert [(n.op, n.phase) for n in bound.nodes] == [(n.op, n.phase) for n in there.nodes]
        for index, node in enumerate(there.nodes):
            assert ours.of_node(index) == expected.of_node(index), node.name
        assert closed.bind({"batch": batch}) == expected.total


def test_every_part_of_a_step_is_there_and_the_parts_add_up(survey):
    from costmodel.trace import trace

    graph = trace(survey.request_of("torchvision:resnet18"), symbols=(), sizes={"batch": 2}, variant=TRAINING)
    costs = cost_graph(graph)
    macs = dict.fromkeys(NodePhase, 0)
    for index, node in enumerate(graph.nodes):
        macs[node.phase] += costs.of_node(index).macs
    # Each of the forward's products comes again for the input and for the weight; the picture takes no gradient.
    stem = next(costs.of_node(i).macs for i, node in enumerate(graph.nodes) if node.module == "conv1")
    assert macs[NodePhase.BACKWARD] == 2 * macs[NodePhase.FORWARD] - stem
    assert sum(macs.values()) == costs.total.macs


def test_the_callers_module_is_left_as_it_was():
    import costmodel

    timm = pytest.importorskip("timm")
    module = timm.create_model("resnet10t").train()
    module.layer1.eval()  # a norm that is frozen keeps its flag
    module.conv1.requires_grad_(False)
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    called = []
    handle = module.fc.register_forward_hook(lambda *_: called.append("hook"))
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    before = {name: (t.detach().clone(), t._version, t.data_ptr(), t.requires_grad) for name, t in tensors.items()}
    flags = {name: part.training for name, part in module.named_modules()}
    hooks = {name: (len(m._forward_hooks), len(m._backward_hooks)) for name, m in module.named_modules()}
    attributes = {name: set(vars(part)) for name, part in module.named_modules()}

    analysis = costmodel.analyze(module, torch.zeros(2, 3, 64, 64), hw="a100", phase="training")
    assert analysis.totals.macs > 0

    after = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        values, version, place, takes_gradient = before[name]
        assert tensor is tensors[name]
        assert torch.equal(tensor, values)  # the running statistics of batch norms among them
        assert (tensor._version, tensor.data_ptr(), tensor.requires_grad) == (version, place, takes_gradient)
    assert [name for name, p in module.named_parameters() if p.grad is not None] == ["fc.weight"]
    assert torch.equal(module.fc.weight.grad, torch.ones_like(module.fc.weight))
    assert {name: part.training for name, part in module.named_modules()} == flags
    assert {name: (len(m._forward_hooks), len(m._backward_hooks)) for name, m in module.named_modules()} == hooks
    assert {name: set(vars(part)) for name, part in module.named_modules()} == attributes
    handle.remove()


def _checkpointed(module):
    module.set_grad_checkpointing()


def _head_alone(module):
    module.requires_grad_(False)
    module.get_classifier().requires_grad_(True)


def _biases_alone(module):
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))


@pytest.mark.parametrize("change", [_checkpointed, _head_alone, _biases_alone])
@pytest.mark.parametrize("request_", ["timm:vit_tiny_patch16_224", "timm:resnet18", "timm:convnext_atto"])
def test_what_is_frozen_or_computed_again_counts_as_torch_runs_it(survey, request_, change):
    from costmodel.trace import trace

    loaded = survey.request_of(request_)
    whole, _ = survey.macs_by_torch(loaded)
    change(loaded.module)
    by_torch, _ = survey.macs_by_torch(loaded)
    costs = cost_graph(trace(loaded, symbols=(), sizes={"batch": survey.BATCH}, variant=TRAINING))
    assert costs.total.macs == by_torch != whole
    assert not costs.uncosted
