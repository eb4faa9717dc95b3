"""Cost: sums and multiples of what adds, in numbers and in symbols."""

from __future__ import annotations

from dataclasses import astuple, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.cost import Cost, total
from costmodel.symbols import symbol

FIELDS = len(fields(Cost))
costs = st.lists(st.integers(0, 10**15), min_size=FIELDS, max_size=FIELDS).map(lambda values: Cost(*values))


@given(st.lists(costs, max_size=6))
def test_total_adds_every_quantity(parts):
    assert astuple(total(parts)) == tuple(sum(astuple(part)[i] for part in parts) for i in range(FIELDS))


@given(costs, costs, st.integers(0, 50))
def test_multiples_are_repeated_sums(first, second, times):
    assert times * (first + second) == total([first, second] * times)
    assert (first + second) * times == times * first + times * second


@given(costs, st.integers(1, 100))
def test_binding_a_symbolic_cost_is_multiplying(cost, batch):
    symbolic = cost * symbol("batch")
    assert symbolic.bind({"batch": batch}) == cost * batch
    assert total([symbolic, symbolic]).bind({"batch": batch}) == 2 * batch * cost


def test_flops_macs_and_bytes_are_sums_of_their_parts():
    cost = Cost(matrix_flops=10, vector_flops=3, bytes_read=5, bytes_written=7)
    assert (cost.flops, cost.macs, cost.bytes) == (13, 5, 12)
    n = symbol("n")
    symbolic = Cost(matrix_flops=2 * n**2, vector_flops=n)
    assert (symbolic.flops, symbolic.macs) == (2 * n**2 + n, n**2)
    assert symbolic.is_symbolic and not cost.is_symbolic


def test_a_symbol_without_a_size_is_named():
    with pytest.raises(KeyError, match="height"):
        Cost(bytes_read=symbol("batch") * symbol("height")).bind({"batch": 1})
