"""What models of transformers take: speech, pictures beside text, boxes of words; and what is refused, by name."""

from __future__ import annotations

import json

import pytest

import costmodel
from costmodel.errors import InputError, ModelError, TraceError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from costmodel.execution import Phase  # noqa: E402
from costmodel.sources import resolve  # noqa: E402
from costmodel.sources.building import real_weights  # noqa: E402

WHISPER = (
    "hf:whisper(d_model=16,encoder_layers=2,decoder_layers=3,encoder_attention_heads=2,decoder_attention_heads=2,"
    "encoder_ffn_dim=24,decoder_ffn_dim=24,num_mel_bins=8,max_source_positions=30,vocab_size=101,pad_token_id=1)"
)
MOONSHINE = (
    "hf:moonshine(hidden_size=32,intermediate_size=48,encoder_num_hidden_layers=2,decoder_num_hidden_layers=2,"
    "encoder_num_attention_heads=2,decoder_num_attention_heads=2,vocab_size=101)"
)
TOWER = "'hidden_size':16,'intermediate_size':24,'num_hidden_layers':2,'num_attention_heads':2"
LLAVA = (
    f"hf:llava(vision_config={{'image_size':28,'patch_size':7,{TOWER}}},"
    f"text_config={{'vocab_size':101,'num_key_value_heads':2,{TOWER}}},image_seq_length=16)"
)


def analyzed(request, phase="inference", **more):
    return costmodel.analyze(request, hw="a100", phase=phase, use_cache=False, **more)


def counted(request, phase, **sizes):
    """MACs that torch counts when the module itself runs on the inputs made for it."""
    loaded = resolve(request, phase=Phase(phase), **sizes)
    args, kwargs = loaded.inputs()
    with torch.inference_mode():
        if loaded.prepare is not None:
            kwargs, _ = loaded.prepare(loaded.module, kwargs)
        with FlopCounterMode(display=False) as counter:
            loaded.module(*args, **kwargs)
    return counter.get_total_flops() // 2


def inputs_of(analysis):
    return {spec.name: spec.shape for spec in analysis.model.inputs}


def class_of(analysis):
    return analysis.model.notes[0].partition(",")[0]


@pytest.mark.parametrize("request_", [WHISPER, MOONSHINE], ids=["whisper", "moonshine"])
@pytest.mark.parametrize("phase", ["inference", "prefill", "decode"])
def test_speech_is_read_by_an_encoder_and_written_by_a_decoder(request_, phase):
    sizes = {"context": 20} if phase == "decode" else {}
    found = analyzed(request_, phase, **sizes)
    assert class_of(found).removesuffix("ForConditionalGeneration").removesuffix("Model") in ("Whisper", "Moonshine")
    assert found.totals.macs == counted(request_, phase, **sizes)


def test_the_first_token_of_whisper_by_hand():
    frames, positions, wide, inner, words = 60, 30, 16, 24, 101
    stem = frames * wide * 8 * 3 + positions * wide * wide * 3
    per_token = 4 * wide * wide + 2 * wide * inner
    encoder = 2 * (positions * per_token + 2 * positions * positions * wide)
    # One token: attention to itself, then to the 30 positions, of which keys and values are made.
    decoder = 3 * (per_token + 2 * wide + 2 * wide * wide + 2 * positions * wide * wide + 2 * positions * wide)
    assert analyzed(WHISPER, "prefill").totals.macs == stem + encoder + decoder + wide * words


def test_a_step_of_whisper_finds_keys_of_sound_and_of_text():
    found = analyzed(WHISPER, "decode", context=20, batch=2)
    cache = [spec for spec in found.model.inputs if spec.name.startswith("cache.")]
    # 3 layers, keys and values of 16, fp32: 20 tokens and 30 positions of sound.
    assert sum(spec.nbytes for spec in cache) == 2 * 3 * 2 * 16 * (20 + 30) * 4
    # Nothing else but the token: of what the encoder read, its output is there, once.
    others = {spec.name: spec.shape for spec in found.model.inputs if spec not in cache}
    assert others == {"decoder_input_ids": (2, 1), "encoder_outputs": (2, 30, 16)}


@pytest.mark.parametrize("kind", ["pegasus", "marian", "blenderbot", "prophetnet", "bigbird_pegasus"])
def test_types_with_an_encoder_are_not_taken_for_their_decoder(kind):
    inputs = resolve(f"hf:{kind}").template[1]
    assert {"input_ids", "decoder_input_ids"} <= set(inputs)
    assert "ForCausalLM" not in type(resolve(f"hf:{kind}", phase=Phase.PREFILL).module).__name__


def test_a_picture_is_so_many_tokens_of_the_text():
    found = analyzed(LLAVA)
    assert inputs_of(found)["pixel_values"] == (1, 3, 28, 28)
    assert inputs_of(found)["input_ids"] == (1, 128 + 16)
    assert [each.where for each in found.assumed]  # that there are as many image tokens as patches
    alone = analyzed(LLAVA, "prefill", seq_len=144)
    patches, wide, inner = 16, 16, 24
    tower = patches * wide * 3 * 49 + 2 * (17 * (4 * wide * wide + 2 * wide * inner) + 2 * 17 * 17 * wide)
    projector = patches * 2 * wide * wide
    # LlavaModel has no head; a prompt puts out the logits of its last token.
    assert found.totals.macs - (alone.totals.macs - wide * 101) == tower + projector


def test_pictures_packed_by_a_preprocessor_leave_the_text_alone():
    found = analyzed("hf:qwen2_vl(text_config={'num_hidden_layers':1})")
    assert set(inputs_of(found)) == {"input_ids"}
    assert "text alone, without pictures and videos" in found.model.notes


def test_boxes_of_words_have_as_many_numbers_as_the_configuration_says():
    found = analyzed("hf:bros(num_hidden_layers=1)", seq_len=11, batch=2)
    assert inputs_of(found)["bbox"] == (2, 11, 8)


@pytest.mark.parametrize(
    ("request_", "phase", "error", "says"),
    [
        ("hf:siglip2", "inference", InputError, "pixel_values.*not known.*\n.*costmodel.analyze"),
        ("hf:musicgen", "inference", ModelError, "default configuration of musicgen"),  # two parts of it are texts
        ("hf:blip", "decode", InputError, "reads pixel_values with every token"),
        ("hf:aya_vision", "inference", ModelError, "default configuration of aya_vision.*\n.*config.json"),
    ],
)
def test_what_is_not_known_is_refused_by_name(request_, phase, error, says):
    with pytest.raises(error, match=says):
        resolve(request_, phase=Phase(phase))


def test_defaults_that_cannot_run_are_told_from_faults_of_a_model():
    with pytest.raises(TraceError, match=r"no model.*config.json"):
        analyzed("hf:deepseek_v2")


def test_a_cache_that_a_configuration_switches_off():
    with pytest.raises(ModelError, match="is_decoder=False"):
        analyzed("hf:bert-generation(num_hidden_layers=1)", "decode")
    found = analyzed("hf:bert-generation(num_hidden_layers=1,is_decoder=True)", "decode", context=5)
    assert any(spec.name.startswith("cache.") for spec in found.model.inputs)


def test_values_that_a_prompt_decides_by_are_said_with_what_can_be_done():
    with pytest.raises(TraceError, match=r"decides by the values.*\n.*\n.*\n.*--execute"):
        analyzed("hf:longcat_flash(num_layers=1)", "decode", context=5)


JAMBA = (
    "hf:jamba(num_hidden_layers=2,attn_layer_offset=1,attn_layer_period=2,expert_layer_period=9,expert_layer_offset=8,"
    "hidden_size=32,intermediate_size=48,num_attention_heads=2,num_key_value_heads=1,mamba_d_state=4,vocab_size=101)"
)


def test_a_scan_over_a_prompt_leaves_the_same_states_after_one_token(monkeypatch):
    def cache():
        loaded = resolve(JAMBA, phase=Phase.DECODE, context=9)
        with torch.inference_mode():
            return [(name, t.shape, t.dtype) for name, t in loaded.prepare(loaded.module, loaded.inputs()[1])[1]]

    quick = cache()
    monkeypatch.setattr("costmodel.sources.transformers_kernels._over_one_token", lambda scan: scan)
    assert quick == cache()
    # A layer of Mamba: 64 wide, a state of 4; a layer of attention: one head of 16 for keys and values.
    assert {shape for _, shape, _ in quick} >= {(1, 64, 4), (1, 1, 9, 16)}


def test_references_of_kernels_that_are_not_installed_are_said():
    notes = resolve(JAMBA).notes
    assert any("selective_scan_fn" in note and "of mamba_ssm" in note for note in notes)
    assert not any("slower than the kernels" in note for note in resolve("hf:bert").notes)


def test_values_that_a_model_reads_and_its_configuration_does_not_declare_may_be_given():
    # Queries of 4 heads and keys and values of 2, 24 wide instead of 64/4 = 16.
    sizes = "num_hidden_layers=1,hidden_size=64,num_attention_heads=4,num_key_value_heads=2,vocab_size=101"
    plain, wide = (resolve(f"hf:qwen3_moe({sizes}{more})").module for more in ("", ",head_dim=24"))
    more = sum(p.numel() for p in wide.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == 64 * 8 * (4 + 2 + 2 + 4) + 2 * 8
    with pytest.raises(InputError, match="head_dimm"):
        resolve("hf:qwen3_moe(head_dimm=24)")


@pytest.mark.parametrize("mode", ["eager", "compile"])
def test_an_encoder_that_has_been_read_lies_there_in_the_dtype_of_the_run(mode):
    found = analyzed(WHISPER, "decode", context=20, dtype="bf16", mode=mode)
    parameters = [held for held in found.memory.moment.holdings if held.kind == "parameters"]
    read = next(spec for spec in found.model.inputs if spec.name == "encoder_outputs")
    assert sum(held.nbytes for held in parameters) == 2 * found.totals.params
    assert found.memory.input_bytes == read.nbytes // 2 + 8  # and one token


LONGFORMER = (
    "hf:longformer(num_hidden_layers=2,hidden_size=32,intermediate_size=48,num_attention_heads=2,vocab_size=101,"
    "attention_window=[8,8],max_position_embeddings=70)"
)
XLM = "hf:xlm(n_layers=2,emb_dim=32,n_heads=2,vocab_size=101)"


@pytest.mark.parametrize("request_", [LONGFORMER, XLM], ids=["longformer", "xlm"])
def test_plain_input_answers_what_models_ask_of_it(request_):
    found = analyzed(request_, seq_len=24, batch=2)
    assert found.assumed
    with real_weights():  # where the question is answered by what the tokens are
        loaded = resolve(request_, seq_len=24)
        args, kwargs = loaded.inputs({"batch": 2})
        kwargs["input_ids"] = kwargs["input_ids"] + 7  # no padding
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            loaded.module(*args, **kwargs)
    assert 2 * found.totals.macs == counter.get_total_flops()


@pytest.mark.parametrize(
    ("request_", "shape"),
    [
        ("hf:timesformer(num_hidden_layers=1,num_frames=4)", ("batch", 4, 3, "height", "width")),
        ("hf:xclip", ("batch", 8, 3, "height", "width")),
        ("hf:vilt", ("batch", 3, "height", "width")),
    ],
)
def test_pixels_of_videos_have_frames(request_, shape):
    assert resolve(request_).template[1]["pixel_values"].dims == shape


def test_text_of_a_type_for_pictures_is_written_by_the_class_of_its_text():
    found = analyzed("hf:qwen3_5(text_config={'num_hidden_layers':4})", "decode", context=9)
    assert class_of(found) == "Qwen3_5ForCausalLM"
    assert set(inputs_of(found)) > {"input_ids"}
    assert "pixel_values" not in inputs_of(found)


def test_several_main_inputs_are_refused_by_name_where_one_is_not_known():
    with pytest.raises(InputError, match="task_inputs"):
        resolve("hf:oneformer")


def test_a_model_without_a_forward_pass_names_its_parts():
    with pytest.raises(InputError, match=r"no forward pass of its own.*\n.*semantic \(BarkSemanticModel\)"):
        resolve("hf:bark")


def test_an_encoder_that_reads_boxes_is_given_them_for_a_prompt_and_not_in_a_step():
    small = "hf:udop(num_layers=1,num_decoder_layers=1,d_model=32,d_kv=8,num_heads=4,d_ff=48,vocab_size=101)"
    assert inputs_of(analyzed(small, "prefill"))["bbox"] == (1, 128, 4)
    assert set(inputs_of(analyzed(small, "decode", context=5))) & {"bbox", "input_ids", "pixel_values"} == set()


def test_regions_of_a_detector_and_spectrograms_stand_beside_the_text():
    lxmert = analyzed("hf:lxmert(l_layers=1,x_layers=1,r_layers=1,vocab_size=101)", batch=2)
    assert {inputs_of(lxmert)[name] for name in ("visual_feats", "visual_pos")} == {(2, 36, 2048), (2, 36, 4)}
    assert lxmert.totals.macs == 2 * counted("hf:lxmert(l_layers=1,x_layers=1,r_layers=1,vocab_size=101)", "inference")
    clap = analyzed("hf:clap(text_config={'num_hidden_layers':1})")
    assert inputs_of(clap)["input_features"] == (1, 1, 1000, 64)
    assert clap.totals.macs == counted("hf:clap(text_config={'num_hidden_layers':1})", "inference")


@pytest.mark.parametrize("phase", ["inference", "prefill", "decode"])
def test_a_configuration_in_half_precision_is_given_sound_in_half_precision(tmp_path, phase):
    values = {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "torch_dtype": "float16",
              "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
              "decoder_attention_heads": 2, "num_mel_bins": 8, "max_source_positions": 30, "vocab_size": 101,
              "pad_token_id": 1}  # fmt: skip
    (tmp_path / "half.json").write_text(json.dumps(values), encoding="utf-8")
    found = analyzed(f"hf:{tmp_path / 'half.json'}", phase)
    assert found.execution.precision.weights == "fp16"
    sound = [spec.dtype for spec in found.model.inputs if spec.name in ("input_features", "encoder_outputs")]
    assert sound == ["float16"]
