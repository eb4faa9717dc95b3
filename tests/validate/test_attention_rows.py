"""Rows of attention layers: what they say, what cannot be judged, what runs."""

from __future__ import annotations

import pytest

from costmodel.hardware import load
from costmodel.validate import read_measured
from costmodel.validate.attention import layer_of, new_token_bytes
from costmodel.validate.cells import RowError
from costmodel.validate.judged import judge_operator, operator_analysis

HEADER = "device,op,dtype,batch,q_len,kv_len,heads,kv_heads,head_dim,causal,latency_us,timing,framework,kernel\n"
CONTEXT = "a100-sxm-80gb,sdpa_context,bf16,2,1024,1024,32,8,128,yes,900,graph_replay,vllm 0.14.0,vllm_flash_attn\n"
GENERATION = (
    "h100-sxm-80gb,sdpa_generation,bf16,8,1,8192,32,8,128,no,120,graph_replay,vllm 0.24.0,vllm_flash_attn_fa3\n"
)
ENCODER = "l40s,sdpa_encoder,bf16,4,576,576,16,16,72,no,60,graph_replay,vllm 0.24.0,vllm_vit_flash_attn_fa2\n"


def rows_of(tmp_path, *lines):
    file = tmp_path / "attention.csv"
    file.write_text(HEADER + "".join(lines), encoding="utf-8")
    return read_measured([file])


def test_a_row_is_queries_against_keys(tmp_path):
    (row,) = rows_of(tmp_path, CONTEXT).rows
    assert (row.input, row.other) == ((2, 32, 1024, 128), (2, 8, 1024, 128))
    assert row.algorithm == "flash_attention_paged"
    assert new_token_bytes(row) == 2 * 2 * 8 * 1024 * 128 * 2  # keys and values, batch, heads, tokens, width, B


def test_a_prompt_counts_every_pair_and_writes_its_keys_to_the_cache(tmp_path):
    (row,) = rows_of(tmp_path, CONTEXT).rows
    analysis = operator_analysis(row, load(row.device))
    write, attention = analysis.plan.kernels
    assert (write.algorithm, attention.algorithm) == ("cache_write", "flash_attention_paged")
    assert attention.matrix_flops == 4 * 2 * 32 * 1024**2 * 128
    assert attention.shape.causal
    assert attention.shape.shared_by == 4


def test_an_encoder_has_no_cache(tmp_path):
    (row,) = rows_of(tmp_path, ENCODER).rows
    assert [k.algorithm for k in operator_analysis(row, load(row.device)).plan.kernels] == ["flash_attention_varlen"]


@pytest.mark.parametrize(
    ("sizes", "copies"), [("8,1,4096,32,8", 2), ("1,1,4096,32,8", 0), ("8,1,4096,32,1", 0), ("8,1,4096,32,32", 0)]
)
def test_flash_2_copies_packed_queries_where_a_view_does_not_do(tmp_path, sizes, copies):
    """(sequences, heads, width) -> (sequences, heads of keys, group, width) -> sequences and group in front."""
    line = CONTEXT.replace("context", "generation").replace("2,1024,1024,32,8", sizes).replace("yes", "no")
    (row,) = rows_of(tmp_path, line).rows
    write, *run = operator_analysis(row, load(row.device)).plan.kernels
    assert write.algorithm == "cache_write"
    assert [k.algorithm for k in run] == (
        ["contiguous_copy", "flash_attention_paged", "contiguous_copy"] if copies else ["flash_attention_paged"]
    )
    if copies:
        assert run[0].elements == run[2].elements == 8 * 32 * 128


def test_flash_3_for_older_cards_plans_its_steps_before(tmp_path):
    line = CONTEXT.replace("vllm 0.14.0,vllm_flash_attn", "sglang 0.5.10,flash_attention")
    (row,) = rows_of(tmp_path, line).rows
    run = [k.algorithm for k in operator_analysis(row, load(row.device)).plan.kernels]
    assert run == ["cache_write", "schedule", "flash_attention_3_mma"]


def test_generation_takes_no_less_than_its_cache_at_the_pin_rate(tmp_path):
    (row,) = rows_of(tmp_path, GENERATION).rows
    cache = 2 * 8 * 8 * 8192 * 128 * 2  # twice the L2
    assert judge_operator(row, load(row.device)).predicted_s > cache / 3352e9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("vllm 0.14.0,vllm_flash_attn", "mystery 1,kernel"), "no kernels are known for sdpa_context in mystery 1"),
        (("32,8,128", "30,8,128"), "heads is no multiple"),
        (("sdpa_context", "sdpa_nowhere"), "unknown operator"),
    ],
)
def test_what_cannot_be_judged_says_why(tmp_path, change, reason):
    found = rows_of(tmp_path, CONTEXT, CONTEXT.replace(*change))
    assert len(found.rows) == 1
    assert reason in found.unusable[0].reason


TRT = "trtllm 1.0.0,torch_flow"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ("1,1,2048,32,1", ["masked_attention"]),  # 16 blocks of 128 tokens, four times counted, are fewer than 108
        ("1,1,4096,32,1", ["cache_write", "xqa"]),
        ("64,1,2048,32,32", ["masked_attention"]),  # no heads share keys
        ("64,1,2048,64,1", ["masked_attention"]),  # more than 32 do
    ],
)
def test_tensorrt_llm_chooses_its_kernel_by_sizes(tmp_path, sizes, expected):
    line = CONTEXT.replace("context", "generation").replace("2,1024,1024,32,8", sizes).replace("yes", "no")
    (row,) = rows_of(tmp_path, line.replace("vllm 0.14.0,vllm_flash_attn", TRT)).rows
    assert [k.algorithm for k in operator_analysis(row, load(row.device)).plan.kernels] == expected


@pytest.mark.parametrize(("sizes", "halved"), [("256,1,4096,32,8", True), ("256,1,4096,32,32", False)])
def test_rows_of_tensorrt_llm_read_half_of_their_cache_where_the_keys_stay_in_l2(tmp_path, sizes, halved):
    """XQA reads keys and values of a step together; the masked kernel all keys of a head first, 108 * 2 MB of them."""
    line = CONTEXT.replace("context", "generation").replace("2,1024,1024,32,8", sizes).replace("yes", "no")
    (row,) = rows_of(tmp_path, line.replace("vllm 0.14.0,vllm_flash_attn", TRT)).rows
    kernel = operator_analysis(row, load(row.device)).plan.kernels[-1]
    batch, kv_heads, keys, width = row.other
    cache = 2 * 2 * batch * kv_heads * keys * width
    assert kernel.bytes_read == pytest.approx(cache / 2 if halved else cache, rel=0.01)


def test_flash_attention_4_is_refused_with_what_its_rows_show():
    with pytest.raises(RowError, match="longer against 2 keys"):
        layer_of("sdpa_generation", "vllm 0.24.0 vllm_flash_attn_fa4")
