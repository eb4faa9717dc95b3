"""A cost for every call: repeated calls counted, views free, and what has no formula named with its bytes."""

from __future__ import annotations

import pytest

from costmodel.cost import Cost
from costmodel.costing import cost_graph
from costmodel.errors import FormulaError
from costmodel.formulas import formula
from costmodel.formulas import registry as registry
from costmodel.graph import OpGraph, Symbol
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.tensor import Role, TensorSpec


def chain(*ops: str) -> OpGraph:
    """Operators one after the other, each from (batch, 10) float32 to the same; one distinct call for each name."""
    distinct = list(dict.fromkeys(ops))
    return OpGraph(
        symbols={"batch": Symbol("batch", 4)},
        specs=[TensorSpec(("batch", 10))],
        calls=[Call(op, (("input", SpecRef(0)),), (SpecRef(0),)) for op in distinct],
        storages=[Storage("40*batch", "float32", Role.ACTIVATION) for _ in range(len(ops) + 1)],
        tensors=[Tensor(0, i, i - 1 if i else None) for i in range(len(ops) + 1)],
        nodes=[OpNode(f"{op}_{i}", op, "", "", distinct.index(op), (i,), (i + 1,)) for i, op in enumerate(ops)],
        inputs=[0],
        outputs=[len(ops)],
    )


@pytest.fixture
def own_formulas(monkeypatch):
    """Formulas registered inside a test are gone after it."""
    for table in ("_FORMULAS", "_PARAMETERS"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


def test_a_call_counts_as_often_as_nodes_make_it():
    costs = cost_graph(chain("aten.relu", "aten.neg", "aten.relu", "aten.relu").bind({"batch": 7}))
    assert costs.total.launches == 4
    assert (costs.total.bytes_read, costs.total.bytes_written) == (4 * 7 * 40, 4 * 7 * 40)
    assert len(costs.of_call) == 2
    assert sum(costs.of_node(i).launches for i in range(4)) == 4


def test_an_operator_without_a_formula_is_named_and_moves_its_bytes():
    costs = cost_graph(chain("aten.relu", "mylib.magic", "mylib.magic").bind({"batch": 4}))
    assert dict(costs.uncosted) == {"mylib.magic": 2}
    assert costs.of_node(1) == Cost(bytes_read=160, bytes_written=160, launches=1)  # no FLOP is invented


def test_views_are_free_and_counted_apart():
    costs = cost_graph(chain("aten.detach", "aten.relu", "aten.detach").bind({}))
    assert costs.free_count == 2
    assert costs.of_node(0) == Cost()
    assert not costs.uncosted


def test_costs_of_a_symbolic_graph_bind_to_those_of_the_bound_graph():
    graph = chain("aten.relu", "mylib.magic", "aten.detach", "aten.gelu")
    symbolic = cost_graph(graph.symbolic()).total
    assert symbolic.is_symbolic
    for batch in (1, 3, 64):
        assert symbolic.bind({"batch": batch}) == cost_graph(graph.bind({"batch": batch})).total


def test_a_users_formula_is_used(own_formulas):
    @formula("mylib.magic")
    def magic(input, *, out):
        return Cost(matrix_flops=2 * input.numel, launches=3)

    costs = cost_graph(chain("mylib.magic").bind({"batch": 5}))
    assert not costs.uncosted
    assert (costs.total.macs, costs.total.launches) == (50, 3)


def test_a_formula_that_fails_names_its_operator_and_shapes(own_formulas):
    @formula("mylib.broken")
    def broken(input, *, out):
        raise ZeroDivisionError("no rows")

    with pytest.raises(FormulaError, match=r"mylib\.broken failed on tensors of shape \(4, 10\).*no rows"):
        cost_graph(chain("mylib.broken").bind({}))
