"""A serving library's step: nothing of the cache is copied, projections are merged, the work stays what it is."""

from __future__ import annotations

import json

import pytest

import costmodel
from costmodel.errors import InputError
from costmodel.memory.liveness import caches
from tests.generation.configs import CONFIGS, cache_elements

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    file = tmp_path_factory.mktemp("served") / "gqa.json"
    file.write_text(json.dumps(CONFIGS["gqa"]), encoding="utf-8")
    conditions = {"hw": "a100", "dtype": "bf16", "phase": "decode", "context": 400, "use_cache": False}
    eager = costmodel.analyze(f"hf:{file}", symbols=("batch", "context"), **conditions)
    return eager, eager.at(mode="serving")


def test_the_work_is_the_same_and_the_cache_stays_where_it_is(steps):
    eager, served = steps
    assert served.totals.macs == eager.totals.macs
    assert served.totals.params == eager.totals.params
    cache = 2 * cache_elements("gqa", 1, 400, 0)
    # transformers reads and writes all of it once more for each token.
    assert eager.totals.bytes_written - served.totals.bytes_written > 0.9 * cache
    new = 2 * cache_elements("gqa", 1, 1, 0)
    assert sum(row.bytes_written for row in served.rows() if row.op == "costmodel.cache_write") == new


def test_projections_of_one_input_are_one_product(steps):
    eager, served = steps
    products = [[k for k in a.plan.launches if a.plan.kernels[k.kernel].algorithm == "gemm"] for a in steps]
    # Of seven in each of three layers, three and two become one; the head stays.
    assert [len(found) for found in products] == [3 * 7 + 1, 3 * 4 + 1]
    assert served.kernels and eager.kernels


def test_memory_holds_no_copy_of_the_cache(steps):
    eager, served = steps
    one = 2 * cache_elements("gqa", 1, 400, 0) // 6  # keys or values of one of three layers, copied while they grow
    assert eager.totals.peak_memory_bytes - served.totals.peak_memory_bytes > 0.9 * one


def test_queries_of_several_sequences_are_packed_by_copies(steps):
    eager, served = steps
    counts = []
    for batch in (1, 3):
        plan = eager.at(mode="serving", batch=batch).plan
        counts.append(sum(plan.kernels[launch.kernel].algorithm == "contiguous_copy" for launch in plan.launches))
    attended = sum(
        served.plan.kernels[launch.kernel].algorithm == "flash_attention_paged" for launch in served.plan.launches
    )
    assert counts[1] - counts[0] == 2 * attended > 0


def test_packed_weights_are_merged_as_they_are_packed(steps):
    eager, _ = steps
    served = eager.at(mode="serving", weights="int4")
    algorithms = {served.plan.kernels[launch.kernel].algorithm for launch in served.plan.launches}
    assert "marlin_int4_gemm" in algorithms
    assert served.totals.macs == eager.totals.macs
    assert served.memory.parameter_bytes == eager.at(weights="int4").memory.parameter_bytes


def test_the_attention_is_that_of_the_library(steps):
    _, served = steps
    for machine, name in (
        ("a100", "flash_attention_paged"),
        ("h100", "flash_attention_3"),
        ("l40s", "flash_attention_paged"),
    ):
        assert name in {kernel.algorithm for kernel in served.at(hw=machine).plan.kernels}


def test_keys_and_values_may_be_kept_in_fewer_bits(steps):
    eager, served = steps
    narrow = served.at(kv_dtype="fp8")
    cache = 2 * cache_elements("gqa", 1, 400, 0)
    sizes = [sum(a.plan.storage_bytes[s] for s in caches(a.bound)) for a in (served, narrow)]
    assert sizes == [cache + 2 * cache_elements("gqa", 1, 1, 0), cache_elements("gqa", 1, 401, 0)]
    assert served.totals.bytes_read - narrow.totals.bytes_read == cache_elements("gqa", 1, 401, 0)
    assert narrow.totals.macs == served.totals.macs
    assert narrow.at(dtype="fp16").execution.precision.cache == "fp8"
    with pytest.raises(InputError, match="what serving libraries keep"):
        eager.at(kv_dtype="fp8")


def test_a_cache_of_fewer_bits_is_converted_by_those_who_write_and_read_it(steps):
    """No kernel goes over the cache to narrow it: attention reads one byte for each of its elements."""
    served = steps[1].at(kv_dtype="fp8", batch=16)
    assert not [row for row in served.kernels if row.algorithm == "cast" and row.op == "costmodel.cache_write"]
    counts = [sum(k.bytes for k in a.kernels) for a in (steps[1].at(batch=16), served)]
    assert counts[0] - counts[1] == pytest.approx(cache_elements("gqa", 16, 401, 0), rel=0.02)


def test_a_cache_is_read_from_memory_however_small_it_is(steps):
    """A step writes one row of it; what the step before read has been pushed out by all the weights since."""
    eager, served = steps
    attention = [row for row in served.kernels if row.algorithm == "flash_attention_paged"]
    one = 2 * cache_elements("gqa", 1, 400, 0) / 3  # B of keys and values of a layer
    assert [row.dram_bytes >= one for row in attention] == [True] * 3
    # transformers copies the cache while it grows, and so finds it in the cache of the device.
    assert min(row.dram_bytes for row in eager.kernels if "attention" in row.algorithm) < one


def test_states_of_recurrent_layers_are_no_pages(tmp_path):
    """The window of Mamba's convolution [N, C, K - 1] has one size, and no tokens to write behind others."""
    config = {
        "model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 96, "state_size": 8, "vocab_size": 101,
        "intermediate_size": 192, "time_step_rank": 6,
    }  # fmt: skip
    file = tmp_path / "mamba.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    step = costmodel.analyze(f"hf:{file}", hw="a100", phase="decode", context=40, mode="serving", use_cache=False)
    assert "costmodel.cache_write" not in {row.op for row in step.rows()}


def test_attention_that_is_written_out_is_told(tmp_path, steps):
    """Gemma-2 caps its scores: transformers multiplies, caps and takes the softmax itself, in each layer."""
    assert "written out" not in steps[1].to_markdown()
    config = {
        "model_type": "gemma2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256,
        "attn_implementation": "eager",
    }  # fmt: skip
    file = tmp_path / "capped.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    conditions = {"hw": "a100", "dtype": "bf16", "phase": "decode", "context": 64, "use_cache": False}
    served = costmodel.analyze(f"hf:{file}", mode="serving", **conditions)
    assert "attention of 2 layers is written out" in served.to_markdown()


def test_what_writes_no_text_is_refused():
    with pytest.raises(InputError, match="prompts and steps of writing text"):
        costmodel.analyze("resnet18", hw="a100", mode="serving")
