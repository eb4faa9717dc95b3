"""Cells of recurrent networks as a device runs them: two products and one fused kernel on CUDA, many elsewhere.

``torch.lstm_cell`` and ``torch.gru_cell`` are written in C++ and ask where their input lies
(aten/src/ATen/native/RNN.cpp, torch 2.13), so on meta they are always made of many operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["CELLS"]

_ops: Any = torch.ops.aten


def _lstm(
    input: Any, hx: Any, w_ih: torch.Tensor, w_hh: torch.Tensor, b_ih: Any = None, b_hh: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    hidden, cell = hx
    gates = torch.matmul(input, w_ih.t()), torch.matmul(hidden, w_hh.t())
    found, state, _ = _ops._thnn_fused_lstm_cell(*gates, cell, b_ih, b_hh)
    return found, state


def _gru(
    input: Any, hx: Any, w_ih: torch.Tensor, w_hh: torch.Tensor, b_ih: Any = None, b_hh: Any = None
) -> torch.Tensor:
    gates = torch.matmul(input, w_ih.t()), torch.matmul(hx, w_hh.t())
    found: torch.Tensor = _ops._thnn_fused_gru_cell(*gates, hx, b_ih, b_hh)[0]
    return found


#: torch's function -> what it runs on CUDA. Simple cells have no kernel of their own.
CELLS: dict[Any, Callable[..., Any]] = {torch.lstm_cell: _lstm, torch.gru_cell: _gru}
