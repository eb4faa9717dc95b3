"""Which clock a board holds: between its base and boost clock."""

from __future__ import annotations

import pytest

from costmodel.hardware import load, names
from costmodel.timing.clock import Clock, sustained_hz

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
