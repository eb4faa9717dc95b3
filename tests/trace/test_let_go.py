"""How long Python's variables hold what an operator has made."""

from __future__ import annotations

import torch
from torch import nn

import costmodel
from costmodel.memory import Footprint

ROWS, WIDTH = 10, 100
ROW = 4 * ROWS * WIDTH


def memory(module: nn.Module, **words: str) -> Footprint:
    return costmodel.analyze(module, torch.empty(ROWS, WIDTH), hw="a100", **words).memory


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sin().cos().tan()


class Holds(nn.Module):
    """``x`` of this frame holds the result of ``exp`` while the inner chain runs: three rows at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.exp()
        return self.inner(x)


class Passes(nn.Module):
    """Nobody holds it here: two rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp().sin().cos().tan()


def test_a_callers_variable_keeps_its_argument_until_the_call_returns():
    assert memory(Holds()).activation_bytes == 3 * ROW
    assert memory(Passes()).activation_bytes == 2 * ROW


def test_a_list_keeps_all_that_is_in_it():
    class Collects(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = [x]
            for _ in range(5):
                found.append(found[-1].exp())
            return found[-1].sum()

    assert 5 * ROW <= memory(Collects()).activation_bytes <= 5 * ROW + 4


def test_compiled_code_has_no_variables():
    assert memory(Holds(), mode="compile").activation_bytes == ROW


def test_what_was_let_go_is_kept_with_the_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path))
    first, again = (costmodel.analyze("resnet18", hw="a100") for _ in range(2))
    assert first.record.let_go == again.record.let_go != {}
    assert first.memory.peak_bytes == again.memory.peak_bytes
