"""Latent attention as serving libraries decode it, counted by hand: nothing is expanded, the cache is read once."""

from __future__ import annotations

import json

import pytest

import costmodel
from costmodel.engines.absorbed import LEFT, NOTE, absorbed
from tests.generation.configs import CONFIGS, cache_elements

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LAYERS, HEADS, PLAIN, TURNED, LATENT, VALUE = 3, 4, 12, 8, 20, 16
CONTEXT = 400


def analysis_of(folder, name, **conditions):
    file = folder / f"{name}.json"
    file.write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    common = {"hw": "h100", "dtype": "bf16", "use_cache": False}
    return costmodel.analyze(f"hf:{file}", **common, **conditions)


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    return analysis_of(folder, "mla", phase="decode", context=CONTEXT, symbols=("batch", "context"))


@pytest.fixture(scope="module")
def served(eager):
    return eager.at(mode="serving")


def expanded_macs(keys: int) -> int:
    """Of one layer and sequence: every key and value from its latent vector, then ordinary attention."""
    return HEADS * keys * (LATENT * (PLAIN + VALUE) + PLAIN + TURNED + VALUE)


def absorbed_macs(keys: int) -> int:
    """Each head's query times its weight, all keys, all values, each head's result times its weight."""
    return HEADS * (PLAIN * LATENT + keys * (LATENT + TURNED) + keys * LATENT + LATENT * VALUE)


@pytest.mark.parametrize(("batch", "context"), [(1, CONTEXT), (3, CONTEXT), (2, 70)])
def test_work_is_that_of_absorbed_weights(eager, served, batch, context):
    expected = LAYERS * batch * (absorbed_macs(context + 1) - expanded_macs(context + 1))
    found = [analysis.at(batch=batch, context=context).totals.macs for analysis in (served, eager)]
    assert found[0] - found[1] == expected


@pytest.mark.parametrize("batch", [1, 3])
def test_the_cache_is_read_once_and_never_expanded(served, batch):
    analysis = served.at(batch=batch)
    rows = [row for row in analysis.rows() if row.op == "costmodel.latent_attention"]
    queries = batch * HEADS * (LATENT + TURNED)
    cache = cache_elements("mla", batch, CONTEXT + 1, 0) // LAYERS
    assert sum(row.bytes_read for row in rows) == LAYERS * 2 * (queries + cache)
    assert sum(row.bytes_written for row in rows) == LAYERS * 2 * batch * HEADS * LATENT
    products = [row for row in analysis.rows() if row.op == "aten.bmm" and "kv_b_proj" in row.name]
    moved = HEADS * (PLAIN + LATENT + LATENT + VALUE) * batch + HEADS * LATENT * (PLAIN + VALUE)
    assert sum(row.bytes_read + row.bytes_written for row in products) == LAYERS * 2 * moved


def test_weights_and_memory_are_the_same_or_less(eager, served):
    assert served.totals.params == eager.totals.params
    assert served.memory.parameter_bytes == eager.memory.parameter_bytes
    keys_and_values = 2 * HEADS * (CONTEXT + 1) * (PLAIN + VALUE + PLAIN + TURNED)  # of one layer, expanded
    assert eager.totals.peak_memory_bytes - served.totals.peak_memory_bytes > 0.9 * keys_and_values


def test_kernels_are_those_of_the_library(served):
    found = [served.plan.kernels[launch.kernel] for launch in served.plan.launches]
    attention = [kernel for kernel in found if kernel.algorithm == "latent_attention"]
    assert len(attention) == LAYERS
    shape = attention[0].shape
    assert (shape.queries, shape.keys, shape.width, shape.value_width) == (1, CONTEXT + 1, LATENT + TURNED, LATENT)
    assert (shape.heads, shape.kv_heads, shape.sequences) == (HEADS, 1, 1)
    assert not any(kernel.algorithm.startswith("flash") for kernel in found)


def test_both_ways_are_told(eager, served):
    assert NOTE in served.record.notes
    assert NOTE not in eager.record.notes


def test_packed_weights_are_kept_widened_besides(eager, served):
    packed = eager.at(weights="int8")
    widened = LAYERS * 2 * HEADS * LATENT * (PLAIN + VALUE)
    assert packed.at(mode="serving").memory.parameter_bytes - packed.memory.parameter_bytes == widened
    assert packed.at(mode="serving").totals.macs == served.totals.macs


def test_what_is_no_latent_cache_stays_as_it_is(tmp_path):
    grouped = analysis_of(tmp_path, "gqa", phase="decode", context=CONTEXT).record
    assert absorbed(grouped) is grouped
    prompt = analysis_of(tmp_path, "mla", phase="prefill").record
    assert absorbed(prompt) is prompt


@pytest.mark.parametrize(("kind", "note"), [("mistral4", NOTE), ("minicpm3", NOTE), ("deepseek_v32", LEFT)])
def test_types_with_a_latent_cache_are_absorbed_or_told(tmp_path, kind, note):
    """mistral4 scales its queries behind the join; sparse attention masks what its indexer has not chosen."""
    file = tmp_path / f"{kind}.json"
    file.write_text(json.dumps({**CONFIGS["mla"], "model_type": kind}), encoding="utf-8")
    conditions = {"hw": "h100", "dtype": "bf16", "use_cache": False, "phase": "decode", "context": 70, "batch": 2}
    eager = costmodel.analyze(f"hf:{file}", **conditions)
    served = eager.at(mode="serving")
    assert note in served.record.notes
    expected = LAYERS * 2 * (absorbed_macs(71) - expanded_macs(71)) if note == NOTE else 0
    assert served.totals.macs - eager.totals.macs == expected


def test_both_ways_give_the_same_numbers():
    """The identity of the module's text, in double precision."""
    torch.manual_seed(0)
    make = lambda *shape: torch.rand(*shape, dtype=torch.float64)  # noqa: E731
    keys = 7
    plain, turned = make(HEADS, 1, PLAIN), make(HEADS, 1, TURNED)
    latent, rotary = make(keys, LATENT), make(keys, TURNED)
    of_keys, of_values = make(HEADS, PLAIN, LATENT), make(HEADS, VALUE, LATENT)
    key = torch.cat((latent @ of_keys.mT, rotary.expand(HEADS, -1, -1)), -1)
    expanded = torch.softmax(torch.cat((plain, turned), -1) @ key.mT, -1) @ (latent @ of_values.mT)
    joined = torch.cat((plain @ of_keys, turned), -1)
    short = torch.softmax(joined @ torch.cat((latent, rotary), -1).mT, -1) @ latent @ of_values.mT
    torch.testing.assert_close(short, expanded)
