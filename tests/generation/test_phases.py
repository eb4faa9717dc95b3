"""Prompts and steps of decoding: counts equal to torch's own counter, caches equal to a formula by hand."""

from __future__ import annotations

import json

import pytest

import costmodel
from costmodel.errors import InputError, UnknownModelError
from costmodel.tensor import CACHED
from tests.generation.configs import CONFIGS, cache_elements

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from costmodel.sources import resolve  # noqa: E402

BATCH, PROMPT, CONTEXT = 3, 10, 40


def written(tmp_path, name):
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
    return f"hf:{file}"


def analyzed(tmp_path, name, phase, **more):
    sizes = {"batch": BATCH} | ({"seq_len": PROMPT} if phase == "prefill" or name == "encoder_decoder" else {})
    sizes |= {"context": CONTEXT} if phase == "decode" else {}
    symbols = ("batch", "seq_len", "context")
    return costmodel.analyze(
        written(tmp_path, name), hw="a100", phase=phase, symbols=symbols, use_cache=False,
        **{**sizes, **more},
    )  # fmt: skip


def counted(model, name, phase):
    """FLOPs of the model itself on the meta device, the prompt before a step left out."""

    def tokens(count):
        return torch.zeros(BATCH, count, dtype=torch.int64, device="meta")

    accepted = {"use_cache": True} if name == "encoder_decoder" else {"use_cache": True, "logits_to_keep": 1}
    counter = FlopCounterMode(display=False)
    with torch.inference_mode():
        if phase == "prefill":
            new = {"input_ids": tokens(PROMPT)}
            new |= {"decoder_input_ids": tokens(1)} if name == "encoder_decoder" else {}
            with counter:
                model(**new, **accepted)
        elif name == "encoder_decoder":
            ran = model(input_ids=tokens(PROMPT), decoder_input_ids=tokens(CONTEXT), **accepted)
            with counter:
                model(decoder_input_ids=tokens(1), encoder_outputs=(ran.encoder_last_hidden_state,),
                      past_key_values=ran.past_key_values, **accepted)  # fmt: skip
        else:
            ran = model(input_ids=tokens(CONTEXT), **accepted)
            with counter:
                model(input_ids=tokens(1), past_key_values=ran.past_key_values, **accepted)
    return counter.get_total_flops()


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", CONFIGS)
def test_flops_are_those_that_torch_counts(tmp_path, name, phase):
    from costmodel.execution import Phase

    found = analyzed(tmp_path, name, phase)
    options = {"context": CONTEXT} if phase == "decode" else {"seq_len": PROMPT}
    if name == "encoder_decoder":
        options["seq_len"] = PROMPT
    # torch's counter knows no grouped products: the model that it counts gathers the weights of each token's experts.
    gathers = "(experts_implementation='batched_mm')" if "experts" in name else ""
    model = resolve(f"{written(tmp_path, name)}{gathers}", phase=Phase(phase), **options).module
    assert 2 * found.totals.macs == counted(model, name, phase)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_of_a_step_is_what_the_formula_says(tmp_path, name):
    found = analyzed(tmp_path, name, "decode")
    cache = [spec for spec in found.model.inputs if spec.name.startswith(f"{CACHED}")]
    assert sum(spec.nbytes for spec in cache) == 4 * cache_elements(name, BATCH, CONTEXT, PROMPT)


def test_batch_and_context_stay_open(tmp_path):
    found = analyzed(tmp_path, "gqa", "decode")
    assert set(found.record.symbols) == {"batch", "context"}
    longer = found.at(context=100, batch=7)
    again = analyzed(tmp_path, "gqa", "decode", context=100, batch=7)
    assert longer.totals.macs == again.totals.macs


def test_a_prompt_may_find_tokens_in_the_cache(tmp_path):
    alone = analyzed(tmp_path, "gqa", "prefill")
    after = analyzed(tmp_path, "gqa", "prefill", context=CONTEXT)
    # Each new token meets the cached ones too: 3 layers, 6 heads of 16, keys and values.
    assert after.totals.macs - alone.totals.macs == BATCH * 3 * 6 * PROMPT * CONTEXT * 2 * 16


def test_the_class_is_said_and_can_be_named(tmp_path):
    found = analyzed(tmp_path, "gqa", "decode")
    assert "LlamaForCausalLM" in found.model.notes[0]
    trunk = costmodel.analyze(f"{written(tmp_path, 'gqa')}:LlamaModel", hw="a100", use_cache=False)
    assert "LlamaModel" in trunk.model.notes[0]
    assert found.totals.params - trunk.totals.params == 96 * 101
    with pytest.raises(UnknownModelError, match="LlamaForCausalLM"):
        costmodel.analyze(f"{written(tmp_path, 'gqa')}:LlamaForCausalML", hw="a100", use_cache=False)


@pytest.mark.parametrize(
    ("model", "more", "says"),
    [
        ("hf:bert", {"phase": "decode"}, "bert writes no text"),
        ("resnet18", {"phase": "decode"}, "belongs to models that write text"),
        ("resnet18", {"context": 5}, "belongs to models that write text"),
        ("hf:gpt2", {"phase": "decode", "context": 2000}, "1024 positions"),
    ],
)
def test_what_writes_no_text_is_refused(model, more, says):
    with pytest.raises(InputError, match=says):
        costmodel.analyze(model, hw="a100", use_cache=False, **more)


def test_layers_with_a_window_stop_growing(tmp_path):
    inside, beyond = (analyzed(tmp_path, "sliding", "decode", context=n, batch=1) for n in (10, 400))
    cache = [sum(s.nbytes for s in a.model.inputs if s.name.startswith(CACHED)) for a in (inside, beyond)]
    assert cache == [4 * cache_elements("sliding", 1, n, 0) for n in (10, 400)]


def test_states_of_recurrent_layers_do_not_depend_on_the_context(tmp_path):
    file = tmp_path / "mamba.json"
    file.write_text(json.dumps({"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 32, "state_size": 4,
                                "vocab_size": 101}), encoding="utf-8")  # fmt: skip
    found = costmodel.analyze(f"hf:{file}", hw="a100", phase="decode", context=300, use_cache=False)
    cache = sum(spec.nbytes for spec in found.model.inputs if spec.name.startswith(CACHED))
    # 2 layers, width 2 * 32: a state of 4 each, and the last 4 inputs of the convolution.
    assert cache == 4 * 2 * (64 * 4 + 64 * 4)
