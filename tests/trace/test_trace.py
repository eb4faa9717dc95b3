"""Tracing: the graph is complete, exact at other sizes, and the user's module stays as it was."""

from __future__ import annotations

import copy

import networkx
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from costmodel.costing import cost_graph
from costmodel.errors import TraceError
from costmodel.formulas import is_free
from costmodel.graph import OpGraph
from costmodel.graph_json import from_json, to_json
from costmodel.sources import from_module, resolve
from costmodel.trace import trace
from costmodel.trace.forward import meta_copy


def counted_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """torch's own counter, on the meta device."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        meta_copy(module)(*(i.to("meta") for i in inputs))
    return counter.get_total_flops() // 2


def macs(graph: OpGraph, **sizes: int) -> int:
    return cost_graph(graph.bind(sizes)).total.macs


class Branches(nn.Module):
    """In-place operators, views written into, a shared layer, two inputs, a cat."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = self.shared(x).relu_()
        x[:, 0] = 0.0
        z = torch.cat([x, self.shared(y)], dim=1)
        return self.head(z.mean((2, 3)))


@pytest.fixture
def branches() -> OpGraph:
    shape = (2, 4, 8, 8)
    return trace(from_module(Branches(), (torch.empty(shape), torch.empty(shape))))


def test_every_input_of_a_node_is_made_before_it(branches):
    for index in range(len(branches.nodes)):
        assert all(before < index for before in branches.predecessors(index))


def test_a_write_through_a_view_is_an_ordering_edge(branches):
    names = [node.op for node in branches.nodes]
    written = next(i for i, n in enumerate(branches.nodes) if n.in_place and n.op in ("aten.copy", "aten.fill"))
    reader = names.index("aten.cat")
    assert written in branches.nodes[reader].after


def test_shared_parameters_count_once(branches):
    module = Branches()
    assert branches.param_count == sum(p.numel() for p in module.parameters())
    assert cost_graph(branches.bind({"batch": 1})).total.macs == counted_macs(module, *[torch.empty(1, 4, 8, 8)] * 2)


def test_networkx_graph_is_a_dag_with_specs_on_its_edges(branches):
    graph = branches.symbolic().networkx()
    assert networkx.is_directed_acyclic_graph(graph)
    assert len(graph) == len(branches.nodes)
    head = next(name for name, data in graph.nodes(data=True) if data["op"] == "aten.linear")
    passed = [spec for _, _, data in graph.in_edges(head, data=True) for spec in data["tensors"]]
    assert [str(size) for size in passed[0].shape] == ["batch", "8"]


def test_json_round_trip_is_the_same_graph(branches):
    assert from_json(to_json(branches)) == branches


def test_views_are_free_and_take_no_time(branches):
    costs = cost_graph(branches.bind({"batch": 2}))
    for index, node in enumerate(branches.nodes):
        if is_free(node.op):
            assert costs.of_node(index).launches == 0


def test_the_users_module_is_left_as_it_was():
    module = Branches().train()
    module.shared.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(module.state_dict())
    keys = [set(m.__dict__) for m in module.modules()]
    hooks = [len(m._forward_hooks) for m in module.modules()]
    ids = [id(t) for t in (*module.parameters(), *module.buffers())]
    trace(from_module(module, tuple(torch.rand(2, 4, 8, 8) for _ in range(2))))
    assert module.training
    assert all(m.training for m in module.modules())
    assert [set(m.__dict__) for m in module.modules()] == keys
    assert [len(m._forward_hooks) for m in module.modules()] == hooks
    assert [id(t) for t in (*module.parameters(), *module.buffers())] == ids
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not any(p.device.type == "meta" for p in module.parameters())


class Caching(nn.Module):
    """Fills an attribute in its first forward, as relative-position caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.cached: torch.Tensor | None = None
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.cached is None:
            self.cached = self.weight * 2
        return x * self.cached


def test_caches_filled_by_the_trace_do_not_reach_the_module():
    module = Caching()
    trace(from_module(module, torch.rand(3, 4)))
    assert module.cached is None
    assert torch.equal(module(torch.ones(1, 4))[0], module.weight * 2)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line that the message must name
            return x
        return -x


def test_data_dependent_control_flow_names_the_line():
    with pytest.raises(TraceError, match=r"test_trace\.py:\d+.*if x\.sum\(\) > 0"):
        trace(from_module(Branching(), torch.rand(2, 2)))


class HalvesTheBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0] // 2, 2, -1).sum(1)


def test_a_batch_that_cannot_be_a_symbol_stays_a_number_and_says_so():
    graph = trace(from_module(HalvesTheBatch(), torch.rand(4, 3)), sizes={"batch": 4})
    assert "batch" not in graph.symbols
    assert any(note.startswith("batch stays 4") for note in graph.notes)


class PlusOne(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x[:1]])


def test_a_batch_with_an_offset_is_affine():
    graph = trace(from_module(PlusOne(), torch.rand(4, 3)))
    bound = graph.bind({"batch": 7})
    assert bound.specs[bound.tensors[bound.outputs[0]].spec].shape == (8, 3)


def test_constants_made_inside_forward_are_recorded_beside_meta_tensors():
    class Positions(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(x.shape[1])

    graph = trace(from_module(Positions(), torch.rand(2, 5)))
    working = [n.name for n in graph.nodes if not is_free(n.op)]
    assert working == ["arange", "add"]
    assert networkx.has_path(graph.networkx(), "arange", "add")


SIZES = ((1, 224, 224), (8, 256, 320), (3, 320, 192))

NETWORKS = [
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "convnext_atto",
    "regnety_002",
    "googlenet",
    "repvgg_a0",
    "poolformer_s12",
    "ghostnet_100",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_symbolic_counts_equal_a_concrete_trace_at_three_sizes(name):
    loaded = resolve(name)
    symbolic = trace(loaded, symbols=("batch", "height", "width"))
    assert {"batch", "height", "width"} <= set(symbolic.symbols)
    for batch, height, width in SIZES:
        sizes = {"batch": batch, "height": height, "width": width}
        there = cost_graph(symbolic.bind(sizes)).total
        assert there == cost_graph(trace(loaded, symbols=(), sizes=sizes)).total
        args, _ = loaded.inputs(sizes)
        assert there.macs == counted_macs(loaded.module, *args)


@pytest.mark.parametrize("name", ["hf:bert", "hf:gpt2"])
def test_sequence_length_is_symbolic_for_transformers(name):
    pytest.importorskip("transformers", reason="the hf extra is not installed")
    loaded = resolve(name)
    symbolic = trace(loaded, symbols=("batch", "seq_len"))
    assert {"batch", "seq_len"} == set(symbolic.symbols)
    for batch, seq_len in ((1, 128), (2, 77), (5, 200)):
        sizes = {"batch": batch, "seq_len": seq_len}
        assert cost_graph(symbolic.bind(sizes)).total == cost_graph(trace(loaded, symbols=(), sizes=sizes)).total


def test_a_fixed_grid_keeps_the_number_and_says_why():
    graph = trace(resolve("vit_tiny_patch16_224"), symbols=("batch", "height", "width"))
    assert set(graph.symbols) == {"batch"}
    assert any("height stays 224" in note for note in graph.notes)


def test_resnet50_is_what_the_literature_says():
    graph = trace(resolve("resnet50"))
    assert macs(graph, batch=1) == 4_089_184_256
    assert graph.param_count == 25_557_032


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_have_the_shapes_that_torch_gives_and_take_no_time_to_trace(kind):
    module = kind(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    graph = trace(from_module(module, torch.rand(3, 7, 5)))
    bound = graph.bind({"batch": 3})
    found = [bound.specs[bound.tensors[t].spec].shape for t in bound.outputs]
    output, states = module(torch.rand(3, 7, 5))
    real = [output, *(states if isinstance(states, tuple) else (states,))]
    assert found == [tuple(t.shape) for t in real]


def test_constants_repeated_for_the_batch_are_not_allocated():
    class Grid(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(64.0).reshape(1, 64).repeat(x.shape[0], 1)

    graph = trace(from_module(Grid(), torch.rand(2, 64)))
    assert set(graph.symbols) == {"batch"}


class GivenPlaces(nn.Module):
    """Results that are put where the caller says."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        place = torch.empty(4, 6)
        torch.mm(x, y, out=place)
        torch.add(place, 1.0, out=place)
        torch.topk(place, 2, out=(values := torch.empty(4, 2), torch.empty(4, 2, dtype=torch.int64)))
        return values


def test_places_for_results_are_written_and_not_read():
    graph = trace(from_module(GivenPlaces(), (torch.empty(4, 5), torch.empty(5, 6))))
    made = [node for node in graph.nodes if node.op in ("aten.mm", "aten.add", "aten.topk")]
    costs = cost_graph(graph)
    mm, add, topk = (costs.of_call[node.call] for node in made)
    assert (mm.macs, mm.bytes_read, mm.bytes_written) == (4 * 5 * 6, (4 * 5 + 5 * 6) * 4, 4 * 6 * 4)
    assert (add.flops, add.bytes_read, add.bytes_written) == (24, 24 * 4, 24 * 4)
    assert (topk.bytes_read, topk.bytes_written) == (24 * 4, 4 * 2 * (4 + 8))
    index = graph.nodes.index(made[0])
    assert index in graph.predecessors(graph.nodes.index(made[1]))  # what is read was written by the product


class MakesConstants(nn.Module):
    """Tensors made in the forward pass, one of them detached by the model itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        return (x + positions) * torch.zeros(x.shape[1], device=x.device) + (x * 2).detach()


def test_what_a_factory_does_to_hand_its_tensor_over_is_no_operator():
    graph = trace(from_module(MakesConstants(), torch.empty(2, 3)))
    ops = [node.op.removeprefix("aten.") for node in graph.nodes]
    assert ops == ["arange", "add", "zeros", "mul", "mul", "detach", "add"]
    for index, op in enumerate(ops[:4]):
        made_by = [ops[before] for before in graph.predecessors(index)]
        assert made_by == {"arange": [], "add": ["arange"], "zeros": [], "mul": ["add", "zeros"]}[op]


class KeyCache(nn.Module):
    """One more token in a cache of keys, as static caches write it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 8, 1000, 64))

    def forward(self, key: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        self.keys.index_copy_(2, place, key)
        self.keys[:, :, place] = key
        return self.keys


def test_a_token_put_into_a_cache_moves_the_token_alone():
    graph = trace(from_module(KeyCache(), (torch.empty(1, 8, 1, 64), torch.tensor([5]))))
    costs = cost_graph(graph.bind({}))
    token = 8 * 64 * 4
    written = [costs.of_call[n.call] for n in graph.nodes if n.op in ("aten.index_copy", "aten.index_put")]
    assert [(cost.bytes_read, cost.bytes_written) for cost in written] == [(token + 8, token)] * 2
