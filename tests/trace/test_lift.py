"""Lifting: expressions found from numbers must reproduce numbers that took no part in finding them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.symbols import bind, ceil_div, floor_div, from_code, symbol, to_code
from costmodel.trace.lift import BATCH_PRIMES, BatchLift, SizeLift, Unliftable, split_batch

HEIGHTS = (224, 261, 195, 1117, 612)
WIDTHS = (224, 299, 235, 1498, 851)
POINTS = [{"batch": BATCH_PRIMES[0], "height": h, "width": w} for h, w in zip(HEIGHTS, WIDTHS, strict=True)]


def values_of(function) -> tuple[int, ...]:
    return tuple(function(**point) for point in POINTS)


@pytest.mark.parametrize(
    ("function", "elsewhere"),
    [
        (lambda batch, height, width: batch, {"batch": 3, "height": 7, "width": 9}),
        (lambda batch, height, width: 3 * batch * height * width, {"batch": 3, "height": 70, "width": 91}),
        (lambda batch, height, width: -(-height // 2), {"batch": 1, "height": 333, "width": 9}),
        (lambda batch, height, width: height * -(-width // 32), {"batch": 1, "height": 333, "width": 95}),
        (lambda batch, height, width: height * width + 1, {"batch": 1, "height": 33, "width": 95}),
        (lambda batch, height, width: batch * (height // 7) * 7, {"batch": 4, "height": 33, "width": 95}),
        (lambda batch, height, width: -height % 7, {"batch": 4, "height": 33, "width": 95}),
        (lambda batch, height, width: height + width, {"batch": 4, "height": 33, "width": 95}),
    ],
)
def test_size_lift_finds_the_function_behind_the_numbers(function, elsewhere):
    found = SizeLift(POINTS)(values_of(function))
    assert bind(found, elsewhere) == function(**elsewhere)


def test_products_of_rounded_sizes_are_found_once_the_sizes_are_known():
    lift = SizeLift(POINTS)
    lift(values_of(lambda batch, height, width: -(-height // 32)))
    lift(values_of(lambda batch, height, width: width // 16))
    found = lift(values_of(lambda batch, height, width: 3 * batch * -(-height // 32) * (width // 16)))
    assert bind(found, {"batch": 2, "height": 333, "width": 95}) == 3 * 2 * 11 * 5


def test_size_lift_does_not_guess():
    with pytest.raises(Unliftable):
        SizeLift(POINTS)((3, 1, 4, 1, 59))


def test_a_hint_counts_only_if_it_fits_every_run():
    lift = SizeLift(POINTS)
    wrong = symbol("height") * 5
    assert lift(values_of(lambda batch, height, width: width), [(wrong, tuple(5 * h for h in HEIGHTS))]) == symbol(
        "width"
    )


@given(scale=st.integers(1, 4096), power=st.integers(0, 2))
def test_batch_lift_is_a_monomial_in_the_batch(scale, power):
    found = BatchLift(BATCH_PRIMES)(tuple(scale * p**power for p in BATCH_PRIMES))
    assert bind(found, {"batch": 5}) == scale * 5**power


@given(slope=st.integers(1, 64), offset=st.integers(1, 1000))
def test_two_primes_settle_an_offset(slope, offset):
    found = BatchLift(BATCH_PRIMES)(tuple(slope * p + offset for p in BATCH_PRIMES))
    assert bind(found, {"batch": 9}) == slope * 9 + offset


def test_a_halved_batch_is_doubted_and_then_refused():
    lift = BatchLift(BATCH_PRIMES)
    assert lift.is_doubtful(BATCH_PRIMES[0] // 2)
    assert not lift.is_doubtful(56)
    assert not lift.is_doubtful(7 * BATCH_PRIMES[0])
    with pytest.raises(Unliftable):
        lift(tuple(p // 2 - i for i, p in enumerate(BATCH_PRIMES)))


def test_split_batch_takes_the_common_power_only():
    assert split_batch((7 * 7 * 3, 7 * 5), (7, 7)) == (1, (21, 5))


@given(n=st.integers(1, 5000), a=st.integers(1, 40), b=st.integers(1, 40), k=st.integers(-9, 9), data=st.data())
def test_folded_roundings_equal_nested_ones(n, a, b, k, data):
    first, second = data.draw(st.tuples(*[st.sampled_from([floor_div, ceil_div])] * 2))
    folded = second(first(symbol("n"), a) + k, b)
    assert bind(folded, {"n": n}) == second(first(n, a) + k, b)
    assert from_code(to_code(folded)) == folded
