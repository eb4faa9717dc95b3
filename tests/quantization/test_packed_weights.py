"""Weights stored in fewer bits: bytes by hand, work unchanged, kernels by machine, and what is refused."""

from __future__ import annotations

import json

import pytest

import costmodel
from costmodel.errors import InputError
from costmodel.execution import WeightScheme
from costmodel.execution.weights import of_configuration
from costmodel.kernels import packed_layers
from tests.generation.configs import CONFIGS

pytest.importorskip("torch")
pytest.importorskip("transformers")

#: Three layers of 96 wide blocks: queries and output 96x96, keys and values 32x96, gate and up 112x96, down 96x112.
SHAPES = [(96, 96), (32, 96), (32, 96), (96, 96), (112, 96), (112, 96), (96, 112)]
LAYERS = 3
ELEMENTS = LAYERS * sum(n * k for n, k in SHAPES)
REST = 2 * 101 * 96 + (2 * LAYERS + 1) * 96  # embeddings, head, norms


def analyzed(tmp_path, quantization=None, name="gqa", **more):
    config = {**CONFIGS[name], **({"quantization_config": quantization} if quantization else {})}
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    conditions = {"hw": "a100", "phase": "decode", "context": 40, "use_cache": False}
    return costmodel.analyze(f"hf:{file}", **{**conditions, **more})


def groups(size):
    return LAYERS * sum(n * -(-k // size) for n, k in SHAPES)


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        # half a byte each; fp16 scale and half a byte of zero point for a group; 4 B of index for each input channel
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 32},
            ELEMENTS / 2 + groups(32) * 2.5 + LAYERS * sum(4 * k for _, k in SHAPES),
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}, ELEMENTS / 2 + groups(32) * 2.5),
        ({"load_in_4bit": True}, ELEMENTS / 2 + groups(64) * 4),
        ({"load_in_8bit": True}, ELEMENTS + 4 * LAYERS * sum(n for n, _ in SHAPES)),
        ({"quant_method": "fp8"}, ELEMENTS + 4 * LAYERS * len(SHAPES)),
        # blocks of 64 x 64, an fp32 scale each: 2*2 of 96x96, 1*2 of 32x96, 2*2 of 112x96 and of 96x112
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, ELEMENTS + 4 * LAYERS * (2 * 4 + 2 * 2 + 3 * 4)),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_configuration_says_how_weights_are_stored(tmp_path, config, stored):
    found = analyzed(tmp_path, config)
    assert str(found.execution.precision) == "bf16"  # an fp32 model is multiplied in half precision
    assert found.memory.parameter_bytes == stored + 2 * REST
    assert found.totals.params == ELEMENTS + REST


def test_work_is_that_of_the_wide_model(tmp_path):
    wide, narrow = (analyzed(tmp_path, weights=word, dtype="bf16") for word in (None, "int4"))
    assert wide.totals.macs == narrow.totals.macs
    read = [row.bytes_read for row in narrow.rows() if row.op == "costmodel.exllama_linear"]
    assert len(read) == LAYERS * len(SHAPES)
    # One token: what it reads is its row and half a byte a weight, with scales and zero points of whole rows.
    assert sum(read) == LAYERS * sum(2 * k for _, k in SHAPES) + ELEMENTS / 2 + groups(128) * 2.5


def test_what_was_asked_for_wins_over_the_configuration(tmp_path):
    found = analyzed(tmp_path, {"quant_method": "gptq", "bits": 4}, weights="dense", dtype="bf16")
    assert found.memory.parameter_bytes == 2 * (ELEMENTS + REST)
    assert found.at(weights="int8").memory.parameter_bytes == ELEMENTS + groups(128) * 3 + 2 * REST


def test_weights_of_experts_are_packed_too(tmp_path):
    wide, narrow = (analyzed(tmp_path, name="experts", weights=w, dtype="bf16") for w in (None, "int4"))
    experts = 2 * 5 * (224 * 96 + 96 * 112)
    saved = wide.memory.parameter_bytes - narrow.memory.parameter_bytes
    assert saved > 1.4 * experts
    assert wide.totals.macs == narrow.totals.macs


@pytest.mark.parametrize(
    ("hw", "weights", "algorithms"),
    [
        ("a100", "int4", {"int4_weight_gemm"}),
        ("a100", "int8", {"int8_weight_gemm"}),
        ("a100", "fp8", {"int8_weight_gemm"}),  # it multiplies no float8
        ("h100", "fp8", {"quantize", "fp8_gemm_cutlass"}),
        ("l40s", "fp8", {"quantize", "fp8_gemm_cutlass"}),
        ("v100", "int4", {"gemm"}),
    ],
)
def test_who_multiplies_is_a_matter_of_the_machine(tmp_path, hw, weights, algorithms):
    found = analyzed(tmp_path, hw=hw, weights=weights, dtype="fp16")
    packed = {"costmodel.packed_linear", *packed_layers.LAYERS}
    assert {kernel.algorithm for kernel in found.plan.kernels if kernel.op in packed} == algorithms


def test_bitsandbytes_writes_weights_out_for_more_than_one_row(tmp_path):
    one, more = (analyzed(tmp_path, {"load_in_4bit": True}, batch=batch) for batch in (1, 8))
    kernels = [{k.algorithm for k in a.plan.kernels if k.op == "costmodel.packed_linear"} for a in (one, more)]
    assert kernels == [{"int4_weight_gemm"}, {"dequantize", "gemm"}]


def test_narrow_weights_quicken_a_step_that_reads_them():
    wide, narrow = (
        costmodel.analyze("hf:llama", hw="a100", phase="decode", context=100, dtype="bf16", weights=w, mode="cudagraph")
        for w in ("dense", "int4")
    )
    # No more than the bytes say, and more than half of what they would give.
    bytes_saved = wide.totals.bytes_read / narrow.totals.bytes_read
    assert bytes_saved / 2 < wide.latency / narrow.latency < bytes_saved


@pytest.mark.parametrize(
    ("quantization", "more", "says"),
    [
        ({"quant_method": "hqq"}, {}, "quantized by hqq are not modelled"),
        ({"bits": 4}, {}, "an unnamed method"),
        ({"quant_method": "gptq", "bits": 5}, {}, "weights of 5 bits"),
        (None, {"weights": "int4", "dtype": "fp32"}, "fp16 or bf16"),
        ("gptq", {}, "quantization_config is an object"),
        (None, {"weights": "int3"}, "no format of weights 'int3'"),
        (None, {"weights": "int4", "hw": "i9-10940x"}, "modelled on GPUs"),
    ],
)
def test_what_is_not_modelled_is_refused(tmp_path, quantization, more, says):
    with pytest.raises(InputError, match=says):
        analyzed(tmp_path, quantization, **more)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(InputError, match="no linear layer in a block"):
        costmodel.analyze("hf:resnet", hw="a100", weights="int4", dtype="bf16", use_cache=False)


def test_a_star_in_what_is_not_converted_stands_for_any_layer(tmp_path):
    """gpt-oss names its attention so. Three linear layers of each block are packed: 4 bits each, 8 of scale for 32."""
    packed = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    found = analyzed(tmp_path, packed)
    narrow = LAYERS * sum(n * k for n, k in SHAPES[4:])
    scales = LAYERS * (112 * 3 + 112 * 3 + 96 * 4)  # 96 / 32 of each row, and ceil(112 / 32)
    assert found.memory.parameter_bytes == narrow / 2 + scales + 2 * (ELEMENTS - narrow + REST)


def test_schemes_survive_the_cache():
    scheme = of_configuration({"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["visual"]})
    assert WeightScheme.read(json.loads(json.dumps(scheme.plain()))) == scheme
    assert scheme.skipped == ("visual",)


def test_memory_by_module_is_that_of_the_packed_parts(tmp_path):
    """A weight of a block becomes half a byte an element, with scales, zero points and indices; the head stays."""
    memory = analyzed(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 32}).memory
    held = memory.moment.by_module(depth=9)
    rows, columns = SHAPES[-1]
    assert held["model.layers.0.mlp.down_proj"]["parameters"] == rows * columns / 2 + rows * 4 * 2.5 + 4 * columns
    assert held["lm_head"]["parameters"] == 2 * 101 * 96
    assert sum(kinds.get("parameters", 0) for kinds in held.values()) == memory.parameter_bytes
