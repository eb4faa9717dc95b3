"""analyze(): totals, re-evaluation, user modules, and errors that name what to do."""

from __future__ import annotations

import pytest
import sympy
import torch
from torch import nn

import costmodel
from costmodel.errors import InputError, TraceError, UnknownHardwareError, UnknownModelError


@pytest.fixture(scope="module")
def resnet18():
    return costmodel.analyze("resnet18", hw="a100", symbols=("batch", "height", "width"))


def test_parts_sum_to_the_whole(resnet18):
    totals = resnet18.totals
    for by in ("op", "module", "type"):
        rows = resnet18.rows(by)
        for name in ("flops", "macs", "params", "bytes_read", "bytes_written", "activations", "kernels"):
            assert sum(getattr(row, name) for row in rows) == getattr(totals, name), (by, name)
        assert sum(row.latency_s for row in rows) == pytest.approx(totals.latency_s)
        assert sum(row.share for row in rows) == pytest.approx(1)
    assert sum(resnet18.bounds.values()) == pytest.approx(1)


def test_flops_are_two_per_mac_and_the_rest(resnet18):
    totals = resnet18.totals
    assert totals.macs == 1_814_073_344  # published: 1.814 G
    assert totals.params == 11_689_512
    assert totals.flops == 2 * totals.macs + totals.vector_flops


def test_costs_are_sympy_in_the_models_symbols(resnet18):
    flops = resnet18.costs.total.flops
    assert {s.name for s in flops.free_symbols} == {"batch", "height", "width"}
    names = {s.name: s for s in flops.free_symbols}
    at = {names["batch"]: 2, names["height"]: 256, names["width"]: 192}
    assert flops.subs(at) == resnet18.at(batch=2, image_size=(256, 192)).totals.flops


def test_closed_form_text_is_the_expression(resnet18):
    text = resnet18.closed_forms["macs"]
    names = {n: sympy.Symbol(n, positive=True, integer=True) for n in ("batch", "height", "width")}
    assert sympy.expand(sympy.sympify(text, locals=names) - resnet18.costs.total.macs) == 0


def test_at_is_linear_in_the_batch_and_changes_the_machine(resnet18):
    eight = resnet18.at(batch=8, hw="t4")
    assert eight.totals.macs == 8 * resnet18.totals.macs
    assert eight.hardware.name == "t4"
    assert resnet18.execution.batch == 1  # the first stays as it is


def test_at_traces_another_layout_once(resnet18, monkeypatch):
    from costmodel import traced

    nhwc = resnet18.at(layout="nhwc", batch=4)
    assert (nhwc.record.layout, nhwc.execution.layout) == ("nhwc", "nhwc")
    anew = costmodel.analyze("resnet18", hw="a100", batch=4, layout="nhwc", symbols=("batch", "height", "width"))
    assert nhwc.totals == anew.totals
    monkeypatch.setattr(traced, "load_trace", None)  # calling it would fail
    assert resnet18.at(layout="nhwc").record is nhwc.record
    assert nhwc.at(layout="nchw", batch=1).totals == resnet18.totals


def test_memory_peak_holds_weights_and_at_least_the_largest_pair(resnet18):
    totals = resnet18.totals
    stem = 64 * 112 * 112 * 4  # batch norm reads and writes the stem's output
    assert totals.peak_memory_bytes >= totals.param_bytes + 2 * stem
    assert totals.peak_memory_bytes < totals.param_bytes + 4 * stem + 8_519_680  # cuBLAS keeps a workspace


def test_graph_is_a_networkx_dag(resnet18):
    import networkx

    assert networkx.is_directed_acyclic_graph(resnet18.graph)
    assert resnet18.graph.nodes["conv1"]["op"] == "aten.conv2d"


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "amp_fp16"])
def test_half_precision_moves_fewer_bytes_and_the_same_flops(resnet18, dtype):
    half = resnet18.at(batch=32, dtype=dtype)
    full = resnet18.at(batch=32)
    assert half.totals.flops == full.totals.flops
    assert half.totals.bytes_read < full.totals.bytes_read
    if dtype == "fp16":
        assert half.totals.bytes_read * 2 == full.totals.bytes_read


def test_default_fp32_runs_convolutions_in_tf32_and_products_in_fp32(resnet18):
    by_op = {k.op: k for k in resnet18.plan.kernels if k.matrix_flops}
    assert (by_op["aten.conv2d"].engine, by_op["aten.conv2d"].dtype) == ("matrix", "tf32")
    assert (by_op["aten.linear"].engine, by_op["aten.linear"].dtype) == ("vector", "fp32")
    both = {k.op: k for k in resnet18.at(dtype="tf32").plan.kernels if k.matrix_flops}
    assert both["aten.linear"].dtype == "tf32"
    old = {k.op: k for k in resnet18.at(hw="v100").plan.kernels if k.matrix_flops}  # no TF32 before Ampere
    assert (old["aten.conv2d"].engine, old["aten.conv2d"].dtype) == ("vector", "fp32")


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)

    def forward(self, x: torch.Tensor, *, y: torch.Tensor, scale: float = 1.0, options: dict | None = None):
        return {"sum": self.left(x) * scale + self.right(y), "left": (options or {}).get("left")}


@pytest.mark.parametrize(
    "inputs",
    [
        ((torch.rand(5, 4),), {"y": torch.rand(5, 3), "scale": 2.0}),
        {"x": torch.rand(5, 4), "y": torch.rand(5, 3), "options": {"left": None}},
    ],
)
def test_own_module_with_several_inputs(inputs):
    module = TwoInputs()
    analysis = costmodel.analyze(module, inputs, hw="t4")
    assert analysis.execution.batch == 5
    assert analysis.totals.macs == 5 * (4 * 6 + 3 * 6)
    assert analysis.at(batch=2).totals.macs == 2 * (4 * 6 + 3 * 6)


def test_a_formula_of_ones_own_is_one_function(monkeypatch):
    from costmodel.cost import Cost
    from costmodel.formulas import formula, registry

    monkeypatch.setattr(registry, "_FORMULAS", dict(registry._FORMULAS))  # no other test knows this operator

    library = torch.library.Library("costmodel_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: torch.empty_like(x), "Meta")

    class Custom(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.costmodel_test.twice(x).relu()

    before = costmodel.analyze(Custom(), torch.rand(2, 8), hw="t4")
    assert [(u.op, u.count) for u in before.coverage.uncosted] == [("costmodel_test.twice", 1)]
    assert before.coverage.uncosted[0].bytes == 2 * 2 * 8 * 4  # the default rule: read once, written once
    assert before.coverage.uncosted[0].time_share > 0

    @formula("costmodel_test.twice")
    def twice(x, *, out):
        return Cost(vector_flops=out.numel, bytes_read=x.nbytes, bytes_written=out.nbytes, launches=1)

    after = costmodel.analyze(Custom(), torch.rand(2, 8), hw="t4")
    assert not after.coverage.uncosted
    assert after.totals.vector_flops == 2 * 8 + 2 * 8


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": "resnet5O", "hw": "a100"}, UnknownModelError, "did you mean resnet50"),
        ({"model": "resnet18", "hw": "a1000"}, UnknownHardwareError, "there are"),
        ({"model": "resnet18", "hw": ["a100", "t4"]}, InputError, "hw names one machine"),
        ({"model": "resnet18", "hw": None}, InputError, "hw names one machine"),
        ({"model": "resnet18", "hw": "a100", "mode": ["eager"]}, InputError, "no mode"),
        ({"model": "resnet18", "hw": "a100", "batch": 0}, InputError, "batch must be a whole number of at least 1"),
        ({"model": "resnet18", "hw": "a100", "dtype": "fp61"}, InputError, "did you mean fp16"),
        ({"model": "resnet18", "hw": "a100", "image_size": -3}, InputError, "height must be"),
        ({"model": "resnet18", "hw": "a100", "image_size": 7, "input_shape": (1, 224, 224)}, InputError, "input shape"),
        ({"model": "vit_tiny_patch16_224", "hw": "a100", "input_shape": (4, 224, 224)}, InputError, "input"),
    ],
)
def test_bad_requests_say_what_is_wrong(arguments, error, text):
    with pytest.raises(error, match=text):
        costmodel.analyze(**arguments)


def test_a_wrong_shape_for_ones_own_module_names_the_line():
    with pytest.raises(TraceError, match="failed"):
        costmodel.analyze(nn.Sequential(nn.Linear(4, 6)), torch.rand(2, 5), hw="t4")
