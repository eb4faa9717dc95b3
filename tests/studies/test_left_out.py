"""Constants fitted again without some rows: rows made of known constants give them back."""

from __future__ import annotations

import pytest

from costmodel.studies.left_out import Served, constants, errors_left_out


def row(size, weights, rest_s, start_s, between_us=500.0, start=4.0):
    """2,000 tokens on a host that is twice as slow as the reference core."""
    between_s = 2000 * 2 * 1e-6
    return Served(size, weights, rest_s + between_s * between_us + start_s * start, rest_s, between_s, start_s)


ROWS = [row("small", "dense", 5.0, 0.0), row("small", "int4", 3.0, 0.5), row("large", "dense", 40.0, 0.0),
        row("large", "int4", 20.0, 1.5)]  # fmt: skip


def test_rows_that_follow_the_model_give_its_constants_back():
    assert constants(ROWS) == pytest.approx((500.0, 4.0))
    assert errors_left_out(ROWS, lambda one: one.size) == pytest.approx([0.0] * 4, abs=1e-12)


def test_rows_without_narrow_weights_leave_the_start_at_that_of_other_products():
    dense = [one for one in ROWS if one.weights == "dense"]
    assert constants(dense) == pytest.approx((500.0, 1.0))
    errors = errors_left_out(ROWS, lambda one: one.weights)
    assert errors[1] == pytest.approx(-3 * 0.5 / ROWS[1].measured_s)  # three units of a start of 0.5 s are missing


def test_a_row_that_is_off_is_judged_by_the_others():
    off = row("odd", "int4", 10.0, 1.0)._replace(measured_s=2 * ROWS[0].measured_s)
    found = errors_left_out([*ROWS, off], lambda one: one.size)
    assert found[-1] == pytest.approx((10.0 + 4e-3 * 500 + 4.0) / off.measured_s - 1)
