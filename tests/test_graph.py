"""The graph by itself: sizes open and bound, JSON, order, lifetimes. A residual block is built by hand."""

from __future__ import annotations

import json

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.errors import InputError
from costmodel.graph import OpGraph, Symbol
from costmodel.graph_json import from_json, to_json
from costmodel.nodes import Call, DimCode, OpNode, SpecRef, Storage, Tensor
from costmodel.symbols import ceil_div, symbol
from costmodel.tensor import Role, TensorSpec

ROWS = "batch*(-(-(width)//(2)))"  # batch · ⌈width/2⌉


def residual() -> OpGraph:
    """y = relu_(x @ w) + view(x @ w); of the sum only a slice is put out, beside a node that only must run later.

    Nodes: 0 matmul, 1 relu_ (in place), 2 view, 3 add, 4 fill of a buffer ordered after 1.
    """
    wide, weight = TensorSpec((ROWS, 8)), TensorSpec((8, 8), role=Role.PARAMETER)
    spec = SpecRef(0)
    calls = [
        Call("aten.matmul", (("input", spec), ("other", SpecRef(1))), (spec,)),
        Call("aten.relu_", (("input", spec),), (spec,)),
        Call("aten.view", (("input", spec), ("size", (DimCode(ROWS), 8))), (spec,)),
        Call("aten.add", (("input", spec), ("other", spec)), (spec,)),
        Call("aten.fill", (("input", SpecRef(2)), ("value", 0.5)), (SpecRef(2),)),
    ]
    return OpGraph(
        symbols={"batch": Symbol("batch", 2), "width": Symbol("width", 6, multiple_of=2, minimum=4)},
        specs=[wide, weight, TensorSpec((4,), "int64", Role.BUFFER)],
        calls=calls,
        storages=[
            Storage(f"32*{ROWS}", "float32", Role.INPUT),
            Storage(256, "float32", Role.PARAMETER),
            Storage(f"32*{ROWS}", "float32", Role.ACTIVATION),  # the product, relu_ and the view share it
            Storage(f"32*{ROWS}", "float32", Role.ACTIVATION),  # the sum
            Storage(32, "int64", Role.BUFFER),
        ],
        tensors=[
            Tensor(0, 0, None, "x"),
            Tensor(1, 1, None, "w"),
            Tensor(0, 2, 0),
            Tensor(0, 2, 1),
            Tensor(0, 2, 2),
            Tensor(0, 3, 3),
            Tensor(2, 4, None, "steps"),
            Tensor(2, 4, 4),
        ],
        nodes=[
            OpNode("matmul", "aten.matmul", "", "", 0, (0, 1), (2,)),
            OpNode("relu_", "aten.relu_", "", "", 1, (2,), (3,), True),
            OpNode("view", "aten.view", "", "", 2, (2,), (4,), False, (1,)),
            OpNode("add", "aten.add", "", "", 3, (3, 4), (5,)),
            OpNode("fill", "aten.fill", "", "", 4, (6,), (7,), True, (1, 3)),
        ],
        inputs=[0],
        outputs=[5],
        parameters={"w": 64},
        parameter_bytes_of={"float32": 256},
        buffer_bytes_of={"float32": 32},
        notes=("a note",),
        layout="nhwc",
    )


@given(st.integers(1, 5000), st.integers(2, 3000).map(lambda half: 2 * half))
def test_bind_evaluates_every_size(batch, width):
    bound = residual().bind({"batch": batch, "width": width})
    rows = batch * -(-width // 2)
    assert bound.specs[0].shape == (rows, 8)
    assert [s.nbytes for s in bound.storages] == [32 * rows, 256, 32 * rows, 32 * rows, 32]
    assert bound.arguments(bound.calls[2])["size"] == [rows, 8]
    assert all(isinstance(size, int) for size in bound.sizes())


def test_bind_takes_defaults_and_leaves_the_graph_open():
    graph = residual()
    assert graph.bind({}).specs[0].shape == (2 * 3, 8)
    assert graph.bind({"batch": 5}).specs[0].shape == (5 * 3, 8)
    assert graph == residual()


def test_symbolic_sizes_are_expressions_and_code_again_says_the_same():
    symbolic = residual().symbolic()
    batch, width = symbol("batch"), symbol("width")
    assert symbolic.specs[0].shape == (batch * ceil_div(width, 2), 8)
    assert symbolic.storages[2].nbytes == 32 * batch * ceil_div(width, 2)
    assert symbolic.coded().bind({"batch": 3, "width": 8}) == residual().bind({"batch": 3, "width": 8})


def test_json_brings_everything_back():
    graph = residual()
    text = json.dumps(to_json(graph))
    assert from_json(json.loads(text)) == graph
    assert json.dumps(to_json(graph.symbolic().coded())) == json.dumps(to_json(graph.symbolic()))


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ({"height": 8}, "batch, width"),
        ({"width": 7}, "multiple of 2"),
        ({"width": 2}, "at least 4"),
        ({"batch": 0}, "at least 1"),
        ({"batch": -3}, "at least 1"),
        ({"batch": 2.0}, "whole number"),
        ({"batch": True}, "whole number"),
        ({"batch": "2"}, "whole number"),
    ],
)
def test_sizes_outside_the_domain_are_refused_with_what_is_allowed(binding, told):
    with pytest.raises(InputError, match=told):
        residual().bind(binding)


def test_predecessors_follow_tensors_and_orderings_once_each():
    graph = residual()
    assert [graph.predecessors(i) for i in range(5)] == [[], [0], [0, 1], [1, 2], [1, 3]]


def test_networkx_dag_carries_specs_and_pure_orderings():
    dag = residual().symbolic().networkx()
    assert networkx.is_directed_acyclic_graph(dag)
    order = {name: i for i, name in enumerate(("matmul", "relu_", "view", "add", "fill"))}
    assert all(order[before] < order[after] for before, after in dag.edges)
    assert dag.edges["relu_", "view"]["tensors"] == []  # written in place before: no tensor passes
    assert [spec.shape[1] for spec in dag.edges["view", "add"]["tensors"]] == [8]
    assert dag.nodes["matmul"]["arguments"]["other"].role is Role.PARAMETER
    assert set(dag.graph["symbols"]) == {"batch", "width"}


def test_results_and_call_counts():
    graph = residual()
    assert graph.results(graph.calls[0]) == graph.specs[0]
    assert graph.call_counts == [1, 1, 1, 1, 1]
    assert graph.param_count == 64
