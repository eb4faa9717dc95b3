"""Layers of GPTQ's and AWQ's libraries in eager mode: what they call, make and keep, by hand after their sources."""

from __future__ import annotations

import pytest

from costmodel.host import costs_of, node_us
from costmodel.memory.resident import resident
from costmodel.tensor import Role
from tests.quantization.test_packed_weights import LAYERS, SHAPES, analyzed

pytest.importorskip("torch")
pytest.importorskip("transformers")

GPTQ4 = {"quant_method": "gptq", "bits": 4, "group_size": 32}
GPTQ8 = {"quant_method": "gptq", "bits": 8, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
DOWN = "model.layers.0.mlp.down_proj"
N, K = SHAPES[-1]


def kernels(found, module=DOWN):
    nodes = found.bound.nodes
    launches = [launch for launch in found.plan.launches if nodes[launch.nodes[0]].module == module]
    return [found.plan.kernels[launch.kernel] for launch in launches]


def prompt(tmp_path, quantization, seq_len):
    return analyzed(tmp_path, quantization, phase="prefill", context=None, seq_len=seq_len)


def test_exllama_multiplies_a_few_rows_as_they_lie_and_writes_weights_out_for_more(tmp_path):
    (one,) = kernels(prompt(tmp_path, GPTQ4, 7))
    assert one.algorithm == "int4_weight_gemm"
    wide, product = kernels(prompt(tmp_path, GPTQ4, 8))
    assert (wide.algorithm, wide.bytes_written, wide.scratch_bytes) == ("dequantize", 2 * N * K, 0)
    assert product.bytes_read == 2 * 8 * K + 2 * N * K


def test_exllama_keeps_a_buffer_for_its_widest_weight(tmp_path):
    """The widest is 112 x 96; AutoAWQ keeps none."""
    kept, none = (analyzed(tmp_path, which).memory for which in (GPTQ4, AWQ))
    assert kept.library_bytes - none.library_bytes == 2 * 112 * 96


def test_auto_gptq_casts_to_fp32_and_back_around_its_product(tmp_path):
    made = kernels(prompt(tmp_path, GPTQ8, 5))
    assert [kernel.op for kernel in made] == [
        "aten.zeros", "aten._to_copy", "aten._to_copy", "costmodel.autogptq_linear", "aten._to_copy",
    ]  # fmt: skip
    written = [4 * 5 * N, 4 * 5 * K, 4 * N * -(-K // 32), 4 * 5 * N, 2 * 5 * N]  # result, input, scales, result, result
    assert [kernel.bytes_written for kernel in made] == written


def test_auto_gptq_widens_weights_with_operators_of_pytorch(tmp_path):
    """In 32 bits, of which a copy in 16 is made: 6 B an element at once."""
    made = kernels(prompt(tmp_path, GPTQ8, 128))
    assert [kernel.bytes_written for kernel in made[:-1]] == [4 * N * K, *[2 * N * K] * 4]
    assert sum(kernel.scratch_bytes for kernel in made) == 6 * N * K
    assert made[-1].algorithm == "gemm"


def test_autoawq_adds_eight_parts_up(tmp_path):
    product, summed = kernels(prompt(tmp_path, AWQ, 3))
    assert product.bytes_written == summed.bytes_read == 8 * 2 * 3 * N
    assert summed.bytes_written == 2 * 3 * N


def test_the_host_pays_for_what_a_layer_calls(tmp_path):
    """Zeros and three casts are four operators that write a tensor, beside the product; a view of the input, one of the
    result, and the call of the module."""
    found = analyzed(tmp_path, GPTQ8, host="xeon-8480c")
    costs = costs_of(found.execution.software)
    own = {found.bound.nodes[i].module: us for i, us in enumerate(node_us(found.bound, costs))}
    issued = dict(
        zip((found.bound.nodes[one.nodes[0]].module for one in found.plan.launches), found.issued, strict=True)
    )
    before = DOWN.rpartition(".")[0]  # gate times up
    spent = (issued[DOWN] - issued[before]) * 1e6 / found.host.slowdown
    pointwise, view = costs.classes["pointwise"] + costs.allocation, costs.classes["view"]
    made = costs.classes["movement"] + costs.allocation
    assert own[DOWN] == pytest.approx(pointwise + 2 * view + costs.module)
    assert spent == pytest.approx(own[DOWN] + 4 * made)


def test_exllama_asks_the_host_for_least(tmp_path):
    times = [analyzed(tmp_path, which).issued[-1] for which in (GPTQ4, AWQ, GPTQ8)]
    assert times[0] < times[1]
    assert times[0] < times[2]
    assert LAYERS * len(SHAPES) == sum("_linear" in n.op for n in analyzed(tmp_path, AWQ).bound.nodes)


def test_parameters_come_as_the_module_registers_them(tmp_path):
    """Parts of a packed weight after it, before the next layer's."""
    names = [one.name for one in resident(analyzed(tmp_path, GPTQ4).memory) if one.role is Role.PARAMETER]
    first = names.index("model.layers.0.self_attn.q_proj.weight")
    key = "model.layers.0.self_attn.k_proj.weight"
    parts = ["", ".scales", ".zeros"]
    query = "model.layers.0.self_attn.q_proj.weight"
    assert names[first : first + 6] == [query + part for part in parts] + [key + part for part in parts]
    assert names[0] == "model.embed_tokens.weight"
    assert names[-1] == "lm_head.weight"
