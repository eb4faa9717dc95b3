"""A prompt and its steps added up, the cache's traffic, and where it passes the weights."""

from __future__ import annotations

import json

import pytest

import costmodel
from costmodel.cli import main
from costmodel.errors import InputError
from costmodel.generation import cache_traffic
from tests.generation.configs import CONFIGS, cache_elements

pytest.importorskip("torch")
pytest.importorskip("transformers")


def written(folder, name="gqa"):
    file = folder / f"{name}.json"
    file.write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    return f"hf:{file}"


def step(folder, name="gqa", **more):
    conditions = {"hw": "a100", "dtype": "bf16", "phase": "decode", "context": 40, "use_cache": False}
    return costmodel.analyze(written(folder, name), symbols=("batch", "context"), **{**conditions, **more})


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    common = {"hw": "a100", "dtype": "bf16", "mode": "serving", "use_cache": False}
    return costmodel.generate(written(folder), seq_len=32, new_tokens=30, **common)


def test_all_tokens_are_a_prompt_and_a_step_for_each_token_but_the_first(found):
    every = sum(found.steps[-1].in_hand().at(context=context).latency for context in range(32, 32 + 29))
    assert found.steps_s == pytest.approx(every, rel=0.01)
    assert found.total_s == found.prompt.latency + found.steps_s
    assert found.tokens_per_s == pytest.approx(30 / found.total_s)
    low, high = found.interval_s
    assert low < found.total_s < high
    assert found.contexts[0] == 32
    assert found.contexts[-1] == 32 + 28
    assert found.energy_j > 0
    assert found.fits is True


def test_one_token_is_the_prompt_alone(tmp_path):
    alone = costmodel.generate(written(tmp_path), seq_len=16, new_tokens=1, hw="a100", dtype="bf16", use_cache=False)
    assert alone.total_s == alone.first_token_s


def test_between_eager_steps_the_host_chooses_tokens(tmp_path):
    """A step of a small model is over when it is issued but for its last kernels: what the host does then comes on
    top. A serving library's steps hold that themselves, and a host that takes no time adds none."""
    common = {"seq_len": 16, "new_tokens": 5, "dtype": "bf16", "use_cache": False, "hw": "a100"}
    found = costmodel.generate(written(tmp_path), host="epyc-7742", **common)
    between = found.steps_s - found._summed(lambda step: step.latency)
    behind = found._summed(lambda step: step.latency - step.issued[-1])
    assert between == pytest.approx(4 * 2.1 * 850e-6 - behind, rel=1e-6)
    assert 0 < behind < between / 10
    low, high = found.interval_s
    assert high - low > 4 * 2.1 * 1100e-6  # from the likeliest token to four processors and a draw
    for more in ({"host": "instant"}, {"mode": "serving"}):
        other = costmodel.generate(written(tmp_path), **common, **more)
        assert other.steps_s == pytest.approx(other._summed(lambda step: step.latency))


@pytest.mark.parametrize("name", ["dense", "gqa", "mla", "experts", "multimodal"])
def test_a_token_adds_what_the_formula_says(tmp_path, name):
    traffic = cache_traffic(step(tmp_path, name, batch=2))
    assert traffic.token_bytes == 2 * cache_elements(name, 1, 1, 0)
    assert traffic.bytes == 2 * cache_elements(name, 2, 40, 0)
    assert sum(traffic.by_layer.values()) == traffic.bytes
    assert traffic.state_bytes == 0


def test_windows_and_states_do_not_grow(tmp_path):
    traffic = cache_traffic(step(tmp_path, "sliding", context=100))
    assert traffic.token_bytes == 0
    assert traffic.equal is None
    assert traffic.state_bytes == traffic.bytes == 2 * cache_elements("sliding", 1, 100, 0)


def test_the_cache_passes_the_weights_where_both_are_equal(tmp_path):
    import sympy

    traffic = cache_traffic(step(tmp_path, batch=4))
    # Three layers of 2*96*96 + 2*32*96 + 3*96*112, norms, and the head: embeddings are looked up in.
    weights = 2 * (3 * (2 * 96 * 96 + 2 * 32 * 96 + 3 * 96 * 112 + 2 * 96) + 96 + 101 * 96)
    assert traffic.weight_bytes == weights
    token = 2 * cache_elements("gqa", 1, 1, 0)
    assert traffic.equal.subs("batch", 4) == sympy.Rational(weights, 4 * token)
    assert traffic.equal_context == pytest.approx(weights / (4 * token))


def test_of_experts_those_are_read_that_are_met(tmp_path):
    one, many = (cache_traffic(step(tmp_path, "experts", batch=batch)).weight_bytes for batch in (1, 64))
    expert = 2 * 2 * (224 * 96 + 96 * 112)  # two layers, bf16
    assert many - one == 3 * expert  # all five instead of two


def test_how_many_experts_are_met_hangs_on_the_batch_in_the_formula_too(tmp_path):
    """Two of five experts a token: 5 * (1 - (3/5)**batch) of them are expected to be met."""
    import sympy

    one, four = (cache_traffic(step(tmp_path, "experts", batch=batch)) for batch in (1, 4))
    expert = 2 * 2 * (224 * 96 + 96 * 112)  # two layers, bf16
    rest = one.weight_bytes - 2 * expert
    assert one.equal.subs("batch", 1) == sympy.Rational(int(one.weight_bytes), int(one.token_bytes))
    met = 5 * (1 - sympy.Rational(3, 5) ** 4)
    assert one.equal == four.equal
    assert one.equal.subs("batch", 4) == (int(rest) + met * expert) / (4 * int(one.token_bytes))
    assert four.equal_context == pytest.approx(
        (rest + 4 * expert) / (4 * four.token_bytes)
    )  # whole experts: 4.35 are 4


def test_room_is_what_the_machine_has_left(tmp_path):
    small, large = (cache_traffic(step(tmp_path, hw=hw)).room_tokens for hw in ("t4", "a100"))
    assert 0 < small < large
    assert large * 2 * cache_elements("gqa", 1, 1, 0) < 80 * 2**30


def test_a_cache_belongs_to_a_step_of_decoding(found):
    with pytest.raises(InputError, match="step of decoding"):
        cache_traffic(found.prompt)
    with pytest.raises(InputError, match="at least 1"):
        costmodel.generate("hf:gpt2", hw="a100", new_tokens=0)
    with pytest.raises(InputError, match="leave phase out"):
        costmodel.generate("hf:gpt2", hw="a100", new_tokens=2, phase="decode")


def test_keys_were_repeated_until_kernels_shared_them(tmp_path):
    shared = step(tmp_path)
    repeated = costmodel.analyze(
        f"{written(tmp_path)}(attn_implementation='sdpa_repeated')", hw="a100", dtype="bf16", phase="decode",
        context=40, use_cache=False,
    )  # fmt: skip
    assert repeated.totals.macs == shared.totals.macs
    copies = 3 * 2 * cache_elements("gqa", 1, 41, 0)  # for three heads each
    assert repeated.totals.bytes_written - shared.totals.bytes_written == copies


def test_the_page_and_the_data(tmp_path, capsys):
    command = ["analyze", written(tmp_path), "--hw", "a100", "--dtype", "bf16", "--mode", "serving", "--seq-len", "16",
               "--generate", "8", "--no-cache"]  # fmt: skip
    assert main(command) == 0
    page = capsys.readouterr().out
    for words in ("first token", "tokens/s", "cache", "as much traffic as the weights"):
        assert words in page
    assert main([*command, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["new_tokens"] == 8
    assert data["total_low_s"] < data["total_s"] < data["total_high_s"]
    assert main([*command, "--hw", "a100,t4"]) == 2


SEQ_TO_SEQ = "hf:t5(num_layers=2,num_decoder_layers=2,d_model=32,d_kv=8,num_heads=4,d_ff=48,vocab_size=101)"
SPEECH = (
    "hf:whisper(d_model=16,encoder_layers=1,decoder_layers=1,encoder_attention_heads=2,decoder_attention_heads=2,"
    "encoder_ffn_dim=24,decoder_ffn_dim=24,num_mel_bins=8,max_source_positions=30,vocab_size=101,pad_token_id=1)"
)


def test_a_decoder_beside_an_encoder_begins_with_one_token():
    found = costmodel.generate(SEQ_TO_SEQ, hw="a100", seq_len=20, new_tokens=4, dtype="bf16", use_cache=False)
    assert (found.seq_len, found.contexts) == (20, (1, 2, 3))
    # Keys and values of 4 heads of 8 in 2 layers, of the 20 tokens that were read and the 1 to 3 that were written.
    cached = [costmodel.generation.cache_traffic(step).bytes for step in found.steps]
    assert cached == [2 * 2 * 32 * (20 + n) * 2 for n in (1, 2, 3)]
    assert found.what_is_read == "a prompt of 20 tokens"


def test_speech_is_an_input_and_no_prompt():
    found = costmodel.generate(SPEECH, hw="a100", new_tokens=3, dtype="bf16", use_cache=False)
    assert (found.seq_len, found.contexts) == (1, (1, 2))
    assert found.what_is_read == "an input of 8×60"


def test_a_prompt_of_a_model_whose_length_stays_closed_has_its_tokens():
    mamba = "hf:mamba(num_hidden_layers=1,hidden_size=32,state_size=4,vocab_size=101)"
    assert costmodel.generate(mamba, hw="a100", new_tokens=2, use_cache=False).seq_len == 128
