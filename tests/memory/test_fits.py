"""Whether a step fits a machine: what torch says of boards, networks that are known not to fit, and the search."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import costmodel
from costmodel.hardware import load
from costmodel.memory import Range, largest_batch
from costmodel.memory.machine import usable_bytes
from costmodel.memory.verdict import _word
from costmodel.report.as_json import analysis_json

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "gib"),
    [  # total_memory of torch.cuda.get_device_properties, as it stands in out-of-memory messages
        ("rtx2080ti", 10.76), ("t4", 14.75), ("v100-sxm-16gb", 15.77), ("rtx3090", 23.69), ("rtx4090", 23.65),
        ("v100-sxm-32gb", 31.74), ("a100-sxm-40gb", 39.39), ("l40s", 44.39), ("rtxa6000", 47.54),
        ("h100-sxm-80gb", 79.11), ("a100-sxm-80gb", 79.15),
    ],
)  # fmt: skip
def test_a_process_can_have_what_torch_says_is_there(name, gib):
    found = usable_bytes(load(name))
    assert found.usual / GIB == pytest.approx(gib, rel=0.012)
    assert found.low < found.usual < found.high


def test_a_machine_of_unknown_memory_has_no_verdict():
    found = costmodel.analyze(nn.Linear(4, 4), torch.empty(1, 4), hw="xeon-6148")
    assert found.memory.usable_bytes is None
    assert found.totals.fits is None
    assert found.max_batch() is None
    assert "not known" in found.to_markdown()


@pytest.mark.parametrize(
    ("need", "word"),
    [
        ((50, 60, 70), "fits"), ((60, 80, 120), "tight"), ((70, 104, 120), "likely out of memory"),
        ((110, 120, 130), "certainly out of memory"),
    ],
)  # fmt: skip
def test_the_verdict_is_read_from_both_intervals(need, word):
    assert _word(Range(*need), need[1] - 100, Range(98, 100, 102)) == word


@pytest.mark.parametrize("slope", [1, 7, 1000])
@pytest.mark.parametrize("start", [1, 8, 100_000])
def test_the_largest_batch_is_the_last_that_leaves_something(slope, start):
    asked = []

    def spare(batch):
        asked.append(batch)
        return 1e6 - 500 - slope * batch - 10 * math.sin(batch)

    found = largest_batch(spare, start)
    assert spare(found) >= 0 > spare(found + 1)
    assert len(asked) < 40


@pytest.fixture(scope="module")
def resnet50():
    return costmodel.analyze("resnet50", hw="t4", batch=4096)


def test_resnet50_at_batch_4096_does_not_fit_a_t4_and_every_page_says_so(resnet50):
    """The first block's map alone: 4096 x 256 x 56 x 56 floats are 13.2 GB."""
    assert resnet50.totals.fits is False
    assert resnet50.totals.peak_memory_bytes > 2 * 4 * 4096 * 256 * 56 * 56
    assert "DOES NOT FIT (certainly out of memory)" in resnet50.to_markdown()
    assert analysis_json(resnet50)["totals"]["fits"] is False
    most = resnet50.max_batch()
    assert f"largest batch that fits is {most:,}" in resnet50.to_markdown()
    assert resnet50.at(batch=most).totals.fits
    assert not resnet50.at(batch=most + 1).totals.fits
    assert "DOES NOT FIT" not in resnet50.at(batch=64).to_markdown()
    several = costmodel.report.render([resnet50, resnet50.at(hw="a100")], "markdown")
    assert "certainly out of memory" in several


def test_remedies_are_the_step_predicted_again(resnet50):
    found = resnet50.remedies
    by_name = {remedy.name: remedy for remedy in found.each}
    half, smaller = by_name["weights in fp16"], found.each[-1]
    again = resnet50.at(**half.words)
    assert half.flags == "--dtype fp16"
    assert half.process_bytes == again.memory.process_bytes == resnet50.memory.process_bytes - half.saved_bytes
    assert half.extra_s == pytest.approx(again.latency - resnet50.latency)
    assert not half.fits
    assert smaller.words == {"batch": resnet50.max_batch()}
    assert found.smallest.fits


def test_a_70b_model_in_bf16_is_larger_than_131_gib_and_fits_no_card_of_80_gb(tmp_path):
    """Llama 3 70B: 70.6 G parameters of 2 B are 131.4 GiB."""
    pytest.importorskip("transformers")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
        "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80, "vocab_size": 128256,
        "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    first = costmodel.analyze(f"hf:{tmp_path}", hw="h100", use_cache=False)
    for found in (first, first.at(hw="a100"), first.at(hw="h100-pcie-80gb")):
        assert found.totals.peak_memory_bytes > 131 * GIB
        assert found.totals.fits is False
        assert found.max_batch() == 0


class _WithToken(nn.Module):
    """A token that is repeated for each sample: of one sample, autograd has nothing to sum."""

    def __init__(self):
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.zeros(1, 1, 64)), nn.Linear(64, 64)

    def forward(self, x):
        return self.layer(torch.cat([self.token.expand(len(x), -1, -1), x], 1))


def test_the_largest_batch_is_found_from_a_step_of_one_sample_that_copies_less_than_others():
    found = costmodel.analyze(_WithToken(), torch.empty(1, 196, 64), hw="t4", phase="training")
    assert not found.record.symbols
    most = found.max_batch()
    assert most == found.at(batch=64).max_batch()
    assert found.at(batch=most).totals.fits
    assert not found.at(batch=most + 1).totals.fits


def test_what_lies_there_at_the_peak_adds_up_but_for_the_rounding_of_blocks(resnet50):
    memory = resnet50.at(batch=8).memory
    moment = memory.moment
    blocks = len(memory.graph.parameters) + len(memory.graph.storages)
    assert moment.nbytes <= memory.allocated_bytes <= moment.nbytes + 512 * blocks
    assert sum(moment.by_kind.values()) == pytest.approx(moment.nbytes)
    assert sum(sum(kinds.values()) for kinds in moment.by_module().values()) == pytest.approx(moment.nbytes)
    assert moment.phase == "forward"
    assert moment.during
    assert memory.peak_bytes <= memory.allocated_bytes <= memory.reserved_bytes <= memory.process_bytes


def test_the_cache_of_a_step_that_writes_is_there_once(tmp_path):
    """4 layers, 8 heads of 16, keys and values, 8 sequences of 256 tokens and one more, bf16: each layer's longer copy
    replaces what the step found, so that one layer more than the cache lies there at most."""
    pytest.importorskip("transformers")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128,
              "intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 4,
              "vocab_size": 100, "max_position_embeddings": 512, "torch_dtype": "bfloat16"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = costmodel.analyze(f"hf:{tmp_path}", hw="a100", phase="decode", context=256, batch=8, use_cache=False)
    layer = 2 * 8 * 128 * 2  # B a token
    assert found.memory.input_bytes == 8 * 8
    cache = found.memory.moment.by_kind["KV cache"]
    assert 4 * layer * 256 < cache <= 5 * layer * 257
    assert found.memory.activation_bytes < 6 * layer * 257


def test_explain_and_compare_say_what_does_not_fit(capsys):
    from costmodel.cli import main

    assert main(["explain", "resnet50", "--hw", "t4", "--batch", "4096"]) == 0
    assert "DOES NOT FIT" in capsys.readouterr().out
    assert main(["explain", "resnet50", "--hw", "t4", "--batch", "4096", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is False
    found = costmodel.compare(["resnet50", "resnet18"], hw=["t4", "a100"], batch=4096)
    fits = {(c.model, c.machine): c.fits for c in found.contenders}
    assert fits["resnet50", "t4"] is False
    assert fits["resnet18", "a100-sxm-80gb"] is True
    assert "resnet50 on t4: DOES NOT FIT" in found.to_markdown()
