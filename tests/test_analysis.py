"""An analysis adds up: rows to totals, storages to peak memory, and another binding to the same trace."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import costmodel
from costmodel import Analysis
from costmodel.errors import InputError
from costmodel.execution import Execution, NodePhase
from costmodel.graph_json import from_json, to_json
from costmodel.hardware import load


class Tied(nn.Module):
    """An encoder and decoder that share a weight, used by two modules; a residual; in-place ReLU."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(32, 32), nn.Linear(32, 32, bias=False)
        self.decode.weight = self.encode.weight
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return x + self.decode(self.relu(self.encode(x)))


@pytest.fixture(scope="module")
def tied():
    return costmodel.analyze(Tied().eval(), torch.empty(4, 32), hw="a100")


SUMMED = "flops matrix_flops vector_flops macs params bytes_read bytes_written activations kernels".split()


@pytest.mark.parametrize("by", ["op", "module", "type"])
@pytest.mark.parametrize("dtype", ["fp32", "amp_fp16"])
def test_rows_sum_to_the_totals_though_a_weight_is_shared(tied, by, dtype):
    analysis = tied.at(dtype=dtype)
    rows, totals = analysis.rows(by), analysis.totals
    for name in SUMMED:
        assert sum(getattr(row, name) for row in rows) == getattr(totals, name), name
    assert sum(row.latency_s for row in rows) == pytest.approx(totals.latency_s)
    assert sum(row.count for row in rows) == len(analysis.bound.nodes)
    assert totals.params == 32 * 32 + 32  # the shared weight once


def test_rows_by_an_unknown_word_name_what_there_is(tied):
    with pytest.raises(InputError, match="module"):
        tied.rows("layer")


# -- peak memory by hand: weights, the step's input, and the activations alive at once --------------------------------

ROW = 4 * 1000  # B of one tensor of 1000 floats


def peak(module, **conditions):
    analysis = costmodel.analyze(module.eval(), torch.empty(1, 1000), hw="a100", **conditions)
    return analysis.memory.peak_bytes


class Residual(nn.Module):
    def forward(self, x):
        kept = x.exp()
        return kept + kept.neg().abs().sqrt()


def test_operators_in_place_allocate_nothing():
    assert peak(nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True), nn.ReLU(inplace=True))) == ROW + ROW
    assert peak(nn.Sequential(nn.Tanh(), nn.ReLU(), nn.ReLU())) == ROW + 2 * ROW  # one read, one written


def test_a_chain_of_any_length_needs_two_and_a_residual_keeps_a_third():
    assert peak(nn.Sequential(*(nn.Tanh() for _ in range(9)))) == ROW + 2 * ROW
    assert peak(Residual()) == ROW + 3 * ROW


def test_weights_are_resident_and_halve_with_their_dtype():
    weights = 4 * (1000 * 10 + 10)
    assert peak(nn.Linear(1000, 10)) == weights + ROW + 40
    assert peak(nn.Linear(1000, 10), dtype="fp16") == (weights + ROW + 40) // 2


# -- phases ------------------------------------------------------------------------------------------------------------


def two_phases(analysis):
    """The same program, its second half marked as a backward pass."""
    record = analysis.record
    nodes = [replace(node, phase=NodePhase.BACKWARD) if i else node for i, node in enumerate(record.nodes)]
    marked = replace(record, nodes=nodes, memo={})
    return Analysis(name="marked", source="", record=marked, hardware=load("a100"), execution=Execution.of(batch=4))


def test_rows_by_phase_add_up_and_a_graph_of_one_phase_has_one_row(tied):
    (forward,) = tied.rows("phase")
    assert (forward.name, forward.latency_s) == ("forward", pytest.approx(tied.latency))
    marked = two_phases(tied)
    assert [row.name for row in marked.rows("phase")] == ["forward", "backward"]
    for name in SUMMED:
        assert sum(getattr(row, name) for row in marked.rows("phase")) == getattr(tied.totals, name), name
    assert marked.rows("phase")[0].latency_s == marked.rows()[0].latency_s
    assert "| backward" in marked.to_markdown(by="phase")


def test_a_phase_is_kept_in_the_cached_json_and_is_forward_where_there_is_none(tied):
    marked = two_phases(tied).record
    assert from_json(json.loads(json.dumps(to_json(marked)))).nodes == marked.nodes
    value = to_json(tied.record)
    assert {len(node) for node in value["nodes"]} == {8}
    assert {node.phase for node in from_json(value).nodes} == {NodePhase.FORWARD}
    value["nodes"][0].append("sideways")
    with pytest.raises(ValueError, match="sideways"):
        from_json(value)


# -- other conditions --------------------------------------------------------------------------------------------------


def test_at_reuses_the_trace_and_the_binding_where_it_may(tied, monkeypatch):
    macs = tied.totals.macs
    import costmodel.trace as room

    monkeypatch.setattr(room, "trace", None)  # calling it would fail
    other = tied.at(hw="t4", dtype="fp16")
    assert other.record is tied.record and other.bound is tied.bound
    assert other.totals.macs == macs
    instant = tied.at(host="instant")
    assert instant.plan is tied.plan and instant.latency < tied.latency
    assert tied.at(hw="t4").plan is not tied.plan
    larger = tied.at(batch=12)
    assert larger.totals.macs == 3 * macs
    assert larger.at(batch=4).totals == tied.totals


def test_at_changes_any_word_and_the_rest_stays(tied):
    changed = tied.at(dtype="amp_fp16", mode="compile", host="instant", torch="2.4.0")
    assert changed.execution == tied.execution.changed(dtype="amp_fp16", mode="compile", host="instant", torch="2.4.0")
    assert changed.at(batch=3).execution.precision == changed.execution.precision


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        ({"layout": "nhcw"}, "there is no layout 'nhcw'"),
        ({"frames": 3}, "has no size 'frames' to change"),
        ({"decoder_seq_len": 7}, "has no size 'decoder_seq_len'"),
        ({"dytpe": "fp16"}, "neither a condition of a run nor a size .* 'dytpe'"),
        ({"phase": "decode"}, "phase=decode belongs to models that write text"),
    ],
)
def test_at_refuses_what_cannot_change(tied, conditions, says):
    with pytest.raises(InputError, match=says):
        tied.at(**conditions)


def test_coverage_counts_every_node_once_and_shares_lie_between_none_and_all(tied):
    coverage = tied.coverage
    assert coverage.ops == len(tied.bound.nodes) == coverage.costed + coverage.free
    assert coverage.uncosted == ()


def test_at_another_layout_traces_a_module_of_ones_own_again():
    module = nn.Conv2d(4, 8, 3).eval()
    image = torch.zeros(2, 4, 8, 8)
    there = costmodel.analyze(module, image, hw="a100", layout="nhwc")
    assert costmodel.analyze(module, image, hw="a100").at(layout="nhwc").totals == there.totals


@pytest.mark.parametrize("dtype", ["fp32", "amp_fp16"])
def test_bounds_are_those_of_the_rows_so_that_no_part_is_longer_than_its_whole(tied, dtype):
    """A convolution of several kernels has one bound: its time by type is part of the time by bound."""
    analysis = tied.at(dtype=dtype, batch=64)
    for bound, share in analysis.bounds.items():
        parts = [row.latency_s for row in analysis.rows() if row.bound == bound]
        assert sum(parts) == pytest.approx(share * analysis.latency)
    assert sum(analysis.bounds.values()) == pytest.approx(1)
