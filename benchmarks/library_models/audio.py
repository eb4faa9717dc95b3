"""Speech and audio: torchaudio, encodec, demucs, vocos, Hugging Face's speech models."""

from __future__ import annotations

from typing import Any

import torch

from library_models.registry import Built, entry, family


def wave(samples: int = 4000, channels: int = 1) -> torch.Tensor:
    return torch.zeros(1, channels, samples)


TORCHAUDIO: dict[str, Any] = {
    "wav2letter": lambda m: (m.Wav2Letter(num_classes=40, input_type="waveform", num_features=1), wave(16000)),
    "deepspeech": lambda m: (m.DeepSpeech(n_feature=40, n_hidden=64), torch.zeros(1, 1, 50, 40)),
    "conv_tasnet": lambda m: (m.conv_tasnet_base(num_sources=2), wave(4000)),
    "conformer": lambda m: (m.Conformer(80, 4, 128, 2, 31), (torch.zeros(1, 100, 80), torch.tensor([100]))),
    "emformer": lambda m: (m.Emformer(64, 4, 128, 2, 8, right_context_length=2), (torch.zeros(1, 66, 64),
        torch.tensor([64]))),
    "wavernn": lambda m: (m.WaveRNN(upsample_scales=[5, 5, 8], n_classes=64, hop_length=200, n_res_block=2, n_rnn=64,
        n_fc=64, n_freq=32, n_hidden=32, n_output=32), (wave(200 * 6), torch.zeros(1, 1, 32, 10))),
    "hdemucs": lambda m: (m.hdemucs_low(sources=["a", "b"]), wave(44100, 2)),
    "wav2vec2": lambda m: (m.wav2vec2_model("layer_norm", None, True, 64, 0.1, 16, 4, 2, 4, 0.1, 128, 0.1, 0.1, True,
        0.1, 32), torch.zeros(1, 8000)),
    "hubert": lambda m: (m.hubert_pretrain_base(num_classes=20).wav2vec2, torch.zeros(1, 8000)),
    "squim_objective": lambda m: (m.squim_objective_base(), torch.zeros(1, 8000)),
}  # fmt: skip


@family("torchaudio", TORCHAUDIO)
def torchaudio(name: str) -> Built:
    import torchaudio.models

    module, inputs = TORCHAUDIO[name](torchaudio.models)
    return module.eval(), inputs


@entry("torchaudio", "tacotron2_infer", executed=True)
def tacotron() -> Built:
    from torchaudio.models import Tacotron2

    class Speaking(torch.nn.Module):
        """The decoder runs until its gate says stop: here, to its limit of 20 frames."""

        def __init__(self) -> None:
            super().__init__()
            self.tacotron = Tacotron2(n_symbol=40, decoder_max_step=20, gate_threshold=1.0)

        def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> Any:
            return self.tacotron.infer(tokens, lengths)

    return Speaking().eval(), (torch.ones(1, 12, dtype=torch.long), torch.tensor([12]))


@entry("torchaudio", "rnnt")
def rnnt() -> Built:
    from torchaudio.models import emformer_rnnt_model

    model = emformer_rnnt_model(
        input_dim=80, encoding_dim=64, num_symbols=32, segment_length=8, right_context_length=4,
            time_reduction_input_dim=32,
        time_reduction_stride=4, transformer_num_heads=4, transformer_ffn_dim=64, transformer_num_layers=2,
        transformer_dropout=0.0, transformer_activation="gelu", transformer_left_context_length=8,
        transformer_max_memory_size=0, transformer_weight_init_scale_strategy="depthwise",
            transformer_tanh_on_mem=True,
        symbol_embedding_dim=32, num_lstm_layers=2, lstm_layer_norm=True, lstm_layer_norm_epsilon=1e-3,
            lstm_dropout=0.0,
    )  # fmt: skip
    return model.eval(), (
        torch.zeros(1, 36, 80),
        torch.tensor([36]),
        torch.ones(1, 6, dtype=torch.int32),
        torch.tensor([6]),
    )


@entry("encodec", "encodec_24khz")
def encodec() -> Built:
    from encodec import EncodecModel

    return EncodecModel.encodec_model_24khz(pretrained=False).eval(), wave(6000)


@entry("vocos", "vocos_backbone")
def vocos() -> Built:
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    model = torch.nn.Sequential(VocosBackbone(80, 64, 128, 2), ISTFTHead(64, 256, 64))
    return model.eval(), torch.zeros(1, 80, 40)


@family("demucs", ["HTDemucs", "Demucs"])
def demucs(name: str) -> Built:
    if name == "HTDemucs":
        from demucs.htdemucs import HTDemucs

        options = {"channels": 16, "t_layers": 2, "bottom_channels": 0, "use_train_segment": False, "segment": 1}
        return HTDemucs(["a", "b"], **options).eval(), wave(44100, 2)
    from demucs.demucs import Demucs

    return Demucs(["a", "b"], channels=16, resample=False, depth=4).eval(), wave(22050, 2)


@entry("conformer", "conformer_block")
def conformer() -> Built:
    from conformer import Conformer

    return Conformer(dim=64, depth=2, dim_head=16, heads=4).eval(), torch.zeros(1, 100, 64)


_SPEECH = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "conv_dim": (32,) * 7, "vocab_size": 32, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4}  # fmt: skip

SPEECH: dict[str, Any] = {
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", _SPEECH, lambda: torch.zeros(1, 8000)),
    "hubert": ("HubertModel", "HubertConfig", _SPEECH, lambda: torch.zeros(1, 8000)),
    "wavlm": ("WavLMModel", "WavLMConfig", _SPEECH, lambda: torch.zeros(1, 8000)),
    "sew": ("SEWModel", "SEWConfig", {**_SPEECH, "conv_dim": (32,) * 13, "squeeze_factor": 2}, lambda: torch.zeros(1,
        8000)),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", {"d_model": 64, "encoder_layers": 2,
        "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 96,
        "decoder_ffn_dim": 96, "vocab_size": 500, "max_source_positions": 100, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 1}, lambda: {"input_features": torch.zeros(1, 80, 200),
        "decoder_input_ids": torch.ones(1, 8, dtype=torch.long), "use_cache": False}),
    "encodec": ("EncodecModel", "EncodecConfig", {"num_filters": 8, "hidden_size": 32, "codebook_dim": 32,
        "codebook_size": 64}, lambda: wave(4000)),
    "dac": ("DacModel", "DacConfig", {"encoder_hidden_size": 16, "decoder_hidden_size": 64, "codebook_size": 64,
        "n_codebooks": 3, "downsampling_ratios": [2, 4]}, lambda: wave(1024)),
    "vits": ("VitsModel", "VitsConfig", {"hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 32, "vocab_size": 40,
        "flow_size": 32, "spectrogram_bins": 65, "upsample_initial_channel": 64, "depth_separable_num_layers": 1,
        "prior_encoder_num_wavenet_layers": 1, "posterior_encoder_num_wavenet_layers": 1}, lambda: torch.ones(1, 12,
        dtype=torch.long)),
    "audio_spectrogram_transformer": ("ASTModel", "ASTConfig", {"hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 96, "max_length": 128}, lambda: torch.zeros(1, 128, 128)),
    "wav2vec2_conformer": ("Wav2Vec2ConformerModel", "Wav2Vec2ConformerConfig", {**_SPEECH,
        "position_embeddings_type": "relative"}, lambda: torch.zeros(1, 8000)),
    "speecht5_hifigan": ("SpeechT5HifiGan", "SpeechT5HifiGanConfig", {"upsample_initial_channel": 64},
        lambda: torch.zeros(1, 40, 80)),
    "univnet": ("UnivNetModel", "UnivNetConfig", {"model_hidden_channels": 16}, lambda: torch.zeros(1, 20, 100)),
}  # fmt: skip
_EXECUTED = ["vits"]  # its durations say how long the output is


def _speech(name: str) -> Built:
    import transformers

    kind, configuration, options, inputs = SPEECH[name]
    torch.manual_seed(0)
    return getattr(transformers, kind)(getattr(transformers, configuration)(**options)).eval(), inputs()


family("transformers", [n for n in SPEECH if n not in _EXECUTED], prefix="speech_")(_speech)
family("transformers", _EXECUTED, executed=True, prefix="speech_")(_speech)
