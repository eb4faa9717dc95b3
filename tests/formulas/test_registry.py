"""The table of formulas: registration, a user's own operator, the default rule, failures that say what to do."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.cost import Cost
from costmodel.errors import FormulaError
from costmodel.formulas import cost_of, default_cost, formula, free, is_free, known_operators, lookup, registry
from costmodel.symbols import symbol
from costmodel.tensor import TensorSpec, f32


@pytest.fixture(autouse=True)
def _table_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test registers into a copy of the table."""
    monkeypatch.setattr(registry, "_FORMULAS", dict(registry._FORMULAS))
    monkeypatch.setattr(registry, "_PARAMETERS", dict(registry._PARAMETERS))
    monkeypatch.setattr(registry, "_FREE", set(registry._FREE))


def test_a_users_operator_gets_its_cost() -> None:
    @formula("mylib.fused_swiglu")
    def fused_swiglu(x: TensorSpec, w1: TensorSpec, w2: TensorSpec, *, out: TensorSpec) -> Cost:
        return Cost(matrix_flops=4 * x.numel * w1.shape[0], bytes_read=x.nbytes + w1.nbytes + w2.nbytes, launches=1)

    arguments = {"x": f32(2, 8), "w1": f32(16, 8), "w2": f32(16, 8), "an_option_that_it_does_not_name": True}
    cost = cost_of("mylib.fused_swiglu", arguments, f32(2, 16))
    assert cost is not None
    assert cost.matrix_flops == sum(2 for _ in range(2) for _ in range(16) for _ in range(8) for _ in ("w1", "w2"))
    assert lookup("mylib.fused_swiglu") is fused_swiglu
    assert "mylib.fused_swiglu" in set(known_operators())


def test_a_formula_may_take_whatever_there_is() -> None:
    seen: dict[str, Any] = {}

    @formula("mylib.any")
    def any_arguments(*, out: Any, **arguments: Any) -> Cost:
        seen.update(arguments)
        return Cost(launches=1)

    cost_of("mylib.any", {"input": f32(2), "alpha": 3}, f32(2))
    assert seen == {"input": f32(2), "alpha": 3}


def test_registering_twice_says_how_to_replace() -> None:
    with pytest.raises(FormulaError, match=r"aten\.relu already has a formula\n.*replace=True"):
        formula("aten.relu")(lambda *, out: Cost())


def test_a_view_is_not_costed_by_accident() -> None:
    with pytest.raises(FormulaError, match=r"aten\.view already has a formula"):
        formula("aten.view")(lambda *, out: Cost())
    with pytest.raises(FormulaError, match=r"aten\.relu already has a formula and cannot be free"):
        free("aten.relu")


def test_replacing_is_allowed_when_asked() -> None:
    mine = formula("aten.relu", "aten.view", replace=True)(lambda input, *, out: Cost(vector_flops=7))
    assert lookup("aten.relu") is mine
    assert not is_free("aten.view")
    assert cost_of("aten.view", {"input": f32(2)}, f32(2)) == Cost(vector_flops=7)
    assert sorted(known_operators()).count("aten.view") == 1


def test_an_unknown_operator_has_no_cost_not_zero() -> None:
    assert cost_of("mylib.mystery", {"input": f32(2)}, f32(2)) is None
    assert lookup("mylib.mystery") is None
    assert not is_free("mylib.mystery")


def test_the_default_reads_and_writes_once_and_invents_no_flops() -> None:
    arguments = {"a": f32(2, 3), "pair": [f32(4), (f32(5), None)], "eps": 1e-5, "name": "x"}
    cost = default_cost(arguments, (f32(6), [f32(7)]))
    assert cost == Cost(bytes_read=(6 + 4 + 5) * 4, bytes_written=(6 + 7) * 4, launches=1)


@pytest.mark.parametrize("batch", [1, 6])
def test_the_default_is_symbolic_too(batch: int) -> None:
    n = symbol("batch")
    assert default_cost({"a": f32(n, 3)}, f32(n)).bind({"batch": batch}) == default_cost(
        {"a": f32(batch, 3)}, f32(batch)
    )


def test_a_formula_that_fails_names_operator_shapes_and_place() -> None:
    @formula("mylib.broken")
    def broken(input: TensorSpec, *, out: TensorSpec) -> Cost:
        return Cost(vector_flops=input.shape[5])

    with pytest.raises(FormulaError) as caught:
        cost_of("mylib.broken", {"input": f32(2, 3)}, f32(2, 3))
    text = str(caught.value)
    assert "mylib.broken" in text
    assert "(2, 3)" in text
    assert "IndexError" in text
    assert "test_registry" in text
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_missing_argument_is_a_failure_of_the_formula() -> None:
    with pytest.raises(FormulaError, match=r"aten\.embedding failed.*indices"):
        cost_of("aten.embedding", {"weight": f32(2, 3)}, f32(2, 3))


def test_where_a_result_is_put_is_no_operand():
    plain = cost_of("aten.cumsum", {"input": f32(4, 5), "dim": 1}, f32(4, 5))
    assert cost_of("aten.cumsum", {"input": f32(4, 5), "dim": 1, "out": f32(4, 5)}, f32(4, 5)) == plain
