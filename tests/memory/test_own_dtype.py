"""A model that holds its weights in another dtype than fp32 is costed in it; a dtype that is asked for wins."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import costmodel


def layer() -> nn.Module:
    return nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 10, bias=False)).to(torch.bfloat16)


def analyzed(**conditions: str) -> costmodel.Analysis:
    return costmodel.analyze(layer(), torch.empty(1, 1000, dtype=torch.bfloat16), hw="a100", **conditions)


@pytest.mark.parametrize(
    ("dtype", "runs_in", "nbytes"), [(None, "bf16", 2), ("bf16", "bf16", 2), ("fp16", "fp16", 2), ("fp32", "fp32", 4)]
)
def test_a_dtype_that_is_asked_for_wins_over_that_of_the_weights(dtype, runs_in, nbytes):
    """A million weights and ten thousand more; the row that comes in, the one between, ten results."""
    found = analyzed(**({} if dtype is None else {"dtype": dtype}))
    assert str(found.execution.precision) == runs_in
    assert found.totals.param_bytes == nbytes * (1000 * 1000 + 1000 * 10)
    assert found.memory.input_bytes == nbytes * 1000
    assert found.totals.bytes_read >= found.totals.param_bytes
    assert found.totals.bytes_read == nbytes * (1_010_000 + 1000 + 1000)


def test_every_page_says_in_which_dtype_the_model_is_held():
    assert "in bf16, the dtype that the model holds its weights in" in analyzed().to_markdown()
    asked = analyzed(dtype="fp32").to_markdown()
    assert "the model holds its weights in bf16: converted to fp32, since fp32 is asked for" in asked
    plain = costmodel.analyze(nn.Linear(4, 4), torch.empty(1, 4), hw="a100")
    assert not plain.dtype_notes


def test_at_keeps_the_dtype_of_the_model_until_another_is_asked_for():
    found = analyzed()
    assert str(found.at(batch=4).execution.precision) == "bf16"
    assert found.at(dtype="fp32").totals.param_bytes == 2 * found.totals.param_bytes


def test_a_cast_to_fp32_inside_a_bf16_model_starts_nothing_when_all_is_fp32():
    class Upcasts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1000, 1000, bias=False).to(torch.bfloat16)

        def forward(self, x):
            return self.layer(x).float().exp()

    found = costmodel.analyze(Upcasts(), torch.empty(1, 1000, dtype=torch.bfloat16), hw="a100")
    assert found.totals.kernels == 3  # the product, the cast, exp
    assert found.at(dtype="fp32").totals.kernels == 2


def test_autocast_around_a_bf16_model_means_fp32_weights():
    found = analyzed(dtype="amp_bf16")
    assert found.totals.param_bytes == 4 * 1_010_000


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_configuration_is_costed_in_the_dtype_that_it_names(tmp_path, key):
    pytest.importorskip("transformers")
    small = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
             "num_key_value_heads": 4, "num_hidden_layers": 2, "vocab_size": 100}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({**small, key: "bfloat16"}))
    found = costmodel.analyze(f"hf:{tmp_path}", hw="a100", use_cache=False)
    assert str(found.execution.precision) == "bf16"
    assert found.totals.param_bytes == 2 * found.totals.params
    assert any(f"{key} bfloat16" in note for note in found.model.notes)
    (tmp_path / "config.json").write_text(json.dumps(small))
    assert str(costmodel.analyze(f"hf:{tmp_path}", hw="a100", use_cache=False).execution.precision) == "fp32"


def test_a_model_in_float64_says_that_it_stays_so():
    module, x = torch.nn.Linear(64, 64).double(), torch.empty(4, 64, dtype=torch.float64)
    for dtype in (None, "fp16"):
        found = costmodel.analyze(module, x, hw="a100", dtype=dtype)
        assert found.totals.param_bytes == 8 * 65 * 64
        assert "weights in float64 stay so" in " ".join(found.to_markdown().split())
