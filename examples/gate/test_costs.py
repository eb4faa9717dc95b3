"""Costs as tests: `pytest`, and `pytest --update-costs` where they may change."""

from __future__ import annotations

import torch
from net import Net

from costmodel.testing import assert_within


def test_a_picture_is_answered_in_time() -> None:
    assert_within("net.py:make", hw="t4", latency="5 ms", memory="1 GiB", confidence=0.95)


def test_the_network_stays_small() -> None:
    assert_within(Net(), torch.zeros(1, 3, 64, 64), hw="t4", params="0.3M", macs="0.3G")


def test_the_network_has_not_grown(cost_baseline) -> None:
    cost_baseline.assert_kept("net.py:make", hw="t4", batch=8)
