"""Which clock a board holds: between its base and boost clock, and what power leaves of it."""

from __future__ import annotations

import dataclasses

import pytest

from costmodel.hardware import load, names
from costmodel.timing.clock import CLOCK, Clock, sustained_hz

GPUS = sorted(name for name in names() if load(name).is_gpu)


def test_the_sustained_clock_lies_between_base_and_boost() -> None:
    assert 1.2e9 < sustained_hz(1.4e9, 1.2e9) < 1.4e9
    assert 0.7e9 < sustained_hz(1.4e9, None) < 1.4e9
    assert sustained_hz(1.4e9, 1.4e9) == pytest.approx(1.4e9)


@pytest.mark.parametrize("name", GPUS)
def test_only_geforce_boards_exceed_what_their_datasheet_states(name: str) -> None:
    profile = load(name)
    clock = Clock.of(profile)
    assert (clock.boost_gain > 1) == ("GeForce" in profile.title)
    for peak in profile.peaks.values():
        held = clock.long_product_hz(peak) / (peak.clock_hz or profile.clock_hz)
        assert (held > 1) == (peak.engine == "matrix" and "GeForce" in profile.title)


def test_only_boards_fed_by_the_slot_fall_towards_their_base_clock() -> None:
    for profile in map(load, GPUS):
        fed_by_the_slot = profile.power_w is not None and profile.power_w <= 75 and profile.base_clock_hz is not None
        assert (Clock.of(profile).settled_share < 1) <= fed_by_the_slot, profile.name
    assert all(Clock.of(load(name)).settled_share < 1 for name in ("l4", "p4", "t4"))


def test_a_board_with_more_power_holds_its_clock() -> None:
    t4 = load("t4")
    assert Clock.of(dataclasses.replace(t4, power_w=150.0)).settled_share == 1.0
    assert Clock.of(t4).settled_share == pytest.approx(CLOCK.slot_share * 585 / 1590)


def test_a_long_product_is_stretched_more_than_a_short_one() -> None:
    clock = Clock.of(load("t4"))
    short, long, steady = (clock.stretch(s, steady=held) for s, held in ((1e-5, False), (1.0, False), (1e-5, True)))
    assert 1 < short < long < steady == pytest.approx(1 / clock.settled_share)
