"""Values that exist are known in the trace, and what asks for one that does not is refused with its source."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import costmodel
from costmodel.costing import cost_graph
from costmodel.errors import TraceError
from costmodel.graph_json import from_json, to_json
from costmodel.sources import from_module
from costmodel.tensor import Role
from costmodel.trace import trace


def traced(module, *inputs, **options):
    return trace(from_module(module.eval(), inputs), **options)


def macs(graph, **sizes):
    return cost_graph(graph.bind(sizes)).total.macs


class TopByBuffer(nn.Module):
    def __init__(self, device=None):
        super().__init__()
        self.head = nn.Linear(8, 4, device=device)
        self.register_buffer("keep", torch.tensor(3, device=device))

    def forward(self, x):
        return self.head(x).topk(int(self.keep), dim=-1).values


def test_a_buffer_is_read_without_a_run_and_the_batch_stays_open():
    graph = traced(TopByBuffer(), torch.zeros(2, 8))
    (values,) = graph.bind({"batch": 5}).outputs
    assert graph.bind({"batch": 5}).specs[graph.tensors[values].spec].shape == (5, 3)
    assert macs(graph, batch=5) == 5 * 8 * 4
    (asked,) = [node for node in graph.nodes if node.op == "aten._local_scalar_dense"]
    assert asked.synchronizes and not asked.outputs


def test_a_buffer_on_meta_has_no_value_and_the_refusal_says_so():
    with pytest.raises(TraceError, match=r"buffer keep, whose values are not there \(on meta\)"):
        traced(TopByBuffer("meta"), torch.zeros(2, 8))


def test_synchronizations_are_kept_by_the_cache():
    graph = traced(TopByBuffer(), torch.zeros(2, 8))
    assert from_json(to_json(graph)) == graph


CONSTANTS = {
    "tensor": lambda x: torch.tensor([1, 3], device=x.device),
    "as_tensor": lambda x: torch.as_tensor([1, 3], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1, 3]),
    "new_tensor_of_a_type": lambda x: x.new_tensor([1, 3], dtype=torch.long),
    "host": lambda x: torch.tensor([1, 3]),
}


class FirstColumns(nn.Module):
    """As many columns as a constant of the forward pass says, and each as often as another does."""

    def __init__(self, constant):
        super().__init__()
        self.head, self.constant = nn.Linear(8, 2), constant

    def forward(self, x):
        constant = self.constant(x)
        return self.head(x)[:, : int(constant[0]) + 1].repeat_interleave(constant.long(), dim=1)


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_made_in_the_forward_pass_keeps_its_data(name):
    constant = CONSTANTS[name]
    assert constant(torch.zeros(2)).tolist() == [1, 3]
    graph = traced(FirstColumns(constant), torch.zeros(2, 8)).bind({"batch": 5})
    assert graph.specs[graph.tensors[graph.outputs[0]].spec].shape == (5, 1 + 3)


class Anchors(nn.Module):
    """A grid for each map, and the stride of each, from a tensor that is neither parameter nor buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.strides = torch.tensor([2.0, 4.0])

    def forward(self, x):
        maps = [self.first(x)]
        maps.append(self.second(maps[0]))
        found = []
        for stride, level in zip(self.strides, maps, strict=True):
            height, width = level.shape[2:]
            rows, columns = torch.meshgrid(
                torch.arange(height, device=x.device), torch.arange(width, device=x.device), indexing="ij"
            )
            scale = torch.full((height * width, 1), stride, device=x.device)
            found.append(torch.stack((columns, rows), -1).view(-1, 2) * scale)
        return torch.cat([m.flatten(2).mean(1) for m in maps], 1), torch.cat(found)


@pytest.mark.parametrize("format", ["table", "markdown", "json", "csv", "html"])
def test_a_loop_over_a_tensor_of_strides_is_analyzed_in_every_format(format):
    found = costmodel.analyze(Anchors().eval(), torch.zeros(1, 3, 32, 32), hw="a100")
    # 16x16 positions of 8 channels over 3x3x3 windows; 8x8 of 16 over 8x3x3
    assert found.totals.macs == 16 * 16 * 8 * 27 + 8 * 8 * 16 * 72
    from costmodel.report import render

    assert "conv2d" in render(found, format)


def test_reading_the_hosts_own_memory_is_no_work_of_the_device():
    graph = traced(Anchors(), torch.zeros(1, 3, 32, 32))
    assert not any(node.synchronizes for node in graph.nodes)


class AsksAround(nn.Module):
    """The many ways in which forward passes look at values that exist."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.tensor([4.0, 2.0, 3.0]))
        self.head = nn.Linear(8, 8)

    def forward(self, x, lengths):
        grid = torch.arange(4, device=x.device).type_as(self.table)
        grid[1:] += 1  # through a view, in place: 0, 2, 3, 4
        assert grid.tolist() == [0, 2, 3, 4]
        assert bool((grid > 3).any()) and not torch.equal(grid, grid + 1)
        assert lengths.cpu().numpy().tolist() == [3, 1]
        mask = torch.zeros(3, dtype=torch.bool, device=x.device)
        mask[torch.where(self.table < 4)[0]] = True
        rows = self.table[mask]  # 2 and 3
        assert rows.shape == (2,)
        x = x[:, : int(rows.sum())]  # 5 of 6
        return [self.head(x[:, :n]) for n in lengths.cpu().tolist()]


def test_values_follow_views_writes_masks_and_copies_to_the_host():
    graph = traced(AsksAround(), torch.zeros(2, 6, 8), torch.tensor([3, 1]))
    assert macs(graph) == 2 * (3 + 1) * 8 * 8
    assert any(note.startswith("batch stays 2") for note in graph.notes), "lengths are known at the batch given"


class WritesUnknown(nn.Module):
    def forward(self, x):
        grid = torch.zeros(4, device=x.device)
        part = grid[:2]
        part += x[0, :2]
        return x[:, : int(grid[3])]


def test_what_something_unknown_was_written_into_is_not_known_any_more():
    with pytest.raises(TraceError, match="made of x"):
        traced(WritesUnknown(), torch.zeros(2, 4))


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(32, 64, batch_first=True, bidirectional=True)

    def forward(self, x, lengths=None):
        lengths = [x.shape[1]] * x.shape[0] if lengths is None else lengths
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


def test_packed_sequences_of_full_length_leave_the_batch_open():
    graph = traced(Packed(), torch.zeros(2, 20, 32))
    per_step = 2 * 4 * 64 * (32 + 64)  # two directions, four gates, input and state
    assert macs(graph, batch=7) == 7 * 20 * per_step


def test_packed_sequences_cost_the_steps_that_the_given_lengths_keep():
    graph = traced(Packed(), torch.zeros(3, 20, 32), torch.tensor([20, 11, 5]))
    assert macs(graph) == (20 + 11 + 5) * 2 * 4 * 64 * (32 + 64)


class Constants(nn.Module):
    def forward(self, x):
        scale = torch.arange(x.shape[1], device=x.device) * 2.0
        return x * scale


def test_that_a_value_is_known_does_not_take_it_out_of_memory():
    graph = traced(Constants(), torch.zeros(2, 5))
    (scaled,) = [node for node in graph.nodes if node.name == "mul"]
    assert graph.storages[graph.tensors[scaled.outputs[0]].storage].role is Role.ACTIVATION


def test_roles_do_not_depend_on_the_batch_of_the_trace():
    class Grid(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[0] * 4).reshape(-1, 4)

    small = traced(Grid(), torch.zeros(2, 4), symbols=())
    large = trace(from_module(Grid(), (torch.zeros(2, 4),)), symbols=(), sizes={"batch": 100_000})
    assert [s.role for s in small.storages] == [s.role for s in large.storages]


@pytest.mark.parametrize("execute", [False, True])
def test_a_packed_sequence_is_an_input(execute):
    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(2, 5, 4), [5, 3], batch_first=True)
    found = costmodel.analyze(nn.LSTM(4, 3, batch_first=True), (packed,), hw="a100", execute=execute)
    assert found.totals.macs == (5 + 3) * 4 * 3 * (4 + 3)
