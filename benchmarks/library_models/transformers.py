"""Transformers as libraries write them: x-transformers, vit-pytorch, performers and perceivers, Hugging Face's."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from library_models.registry import Built, entry, family

IMAGE = torch.zeros(1, 3, 256, 256)
SMALL: dict[str, Any] = {
    "image_size": 256,
    "patch_size": 32,
    "num_classes": 10,
    "dim": 64,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 128,
}


def _smaller(*without: str, **more: Any) -> dict[str, Any]:
    return {k: v for k, v in SMALL.items() if k not in without} | more


VIT: dict[str, Any] = {
    "vit.ViT": SMALL,
    "simple_vit.SimpleViT": SMALL,
    "simple_vit_with_register_tokens.SimpleViT": SMALL,
    "simple_vit_with_fft.SimpleViT": _smaller(freq_patch_size=8),
    "simple_vit_with_qk_norm.SimpleViT": SMALL,
    "simple_flash_attn_vit.SimpleViT": SMALL,
    "deepvit.DeepViT": SMALL,
    "parallel_vit.ViT": SMALL,
    "vit_for_small_dataset.ViT": SMALL,
    "rvt.RvT": SMALL,
    "vit_with_patch_merger.ViT": SMALL,
    "normalized_vit.nViT": SMALL,
    "cait.CaiT": _smaller(cls_depth=1),
    "t2t.T2TViT": _smaller("patch_size", t2t_layers=((7, 4), (3, 2), (3, 2))),
    "cct.CCT": {"img_size": 256, "embedding_dim": 64, "n_input_channels": 3, "num_layers": 2, "num_heads": 4,
        "num_classes": 10},
    "cross_vit.CrossViT": {"image_size": 256, "num_classes": 10, "depth": 2, "sm_dim": 64, "lg_dim": 96,
        "sm_patch_size": 16, "lg_patch_size": 64},
    "pit.PiT": _smaller(depth=(2, 2)),
    "levit.LeViT": {"image_size": 224, "num_classes": 10, "dim": (64, 96, 128), "depth": 2, "heads": (2, 3, 4),
        "mlp_mult": 2},
    "cvt.CvT": {"num_classes": 10},
    "twins_svt.TwinsSVT": {"image_size": 224, "num_classes": 10},
    "crossformer.CrossFormer": {"num_classes": 10, "dim": (32, 64, 96, 128), "depth": (1, 1, 1, 1),
        "global_window_size": (8, 4, 2, 1), "local_window_size": 8},
    "scalable_vit.ScalableViT": {"num_classes": 10, "dim": 32, "heads": (2, 4), "depth": (1, 1), "ssa_dim_key": (16,
        16), "reduction_factor": (4, 2), "window_size": (16, 8)},
    "sep_vit.SepViT": {"image_size": 224, "num_classes": 10, "dim": 32, "depth": (1, 1), "heads": (2, 4)},
    "max_vit.MaxViT": {"num_classes": 10, "dim": 32, "depth": (1, 1), "dim_head": 16, "window_size": 8},
    "nest.NesT": {"image_size": 256, "patch_size": 8, "num_classes": 10, "dim": 48, "heads": 3, "num_hierarchies": 3,
        "block_repeats": (1, 1, 1)},
    "mobile_vit.MobileViT": {"image_size": (256, 256), "dims": [48, 64, 80], "channels": [16, 16, 24, 24, 32, 32, 48,
        48, 64, 64, 96], "num_classes": 10},
    "regionvit.RegionViT": {"image_size": 224, "num_classes": 10, "dim": (32, 64, 96, 128), "depth": (1, 1, 1, 1)},
    "xcit.XCiT": _smaller(cls_depth=1),
    "learnable_memory_vit.ViT": SMALL,
    "vit_with_patch_dropout.ViT": SMALL,
    "simple_vit_with_hyper_connections.SimpleViT": _smaller(num_residual_streams=2),
    "look_vit.LookViT": _smaller("mlp_dim", patch_size=32, highres_patch_size=16, cross_attn_heads=4),
}  # fmt: skip


@family("vit-pytorch", VIT)
def vit(name: str) -> Built:
    module, kind = name.split(".")
    options = VIT[name]
    size = options.get("image_size", 256)
    side = size[0] if isinstance(size, tuple) else size
    if module in ("cvt", "twins_svt", "regionvit", "sep_vit"):  # they take any size
        options = {k: v for k, v in options.items() if k != "image_size"}
    return getattr(importlib.import_module(f"vit_pytorch.{module}"), kind)(**options).eval(), torch.zeros(
        1, 3, side, side
    )


@entry("vit-pytorch", "vivit.ViViT")
def vivit() -> Built:
    from vit_pytorch.vivit import ViViT

    options = _smaller(image_patch_size=32, frames=8, frame_patch_size=2, spatial_depth=2, temporal_depth=2)
    del options["patch_size"], options["depth"]
    return ViViT(**options).eval(), torch.zeros(1, 3, 8, 256, 256)


@entry("vit-pytorch", "vit_1d.ViT")
def vit_1d() -> Built:
    from vit_pytorch.vit_1d import ViT

    model = ViT(seq_len=256, patch_size=16, num_classes=10, dim=64, depth=2, heads=4, mlp_dim=128)
    return model.eval(), torch.zeros(2, 3, 256)


@entry("vit-pytorch", "ats_vit.ViT", executed=True)
def ats_vit() -> Built:
    from vit_pytorch.ats_vit import ViT

    torch.manual_seed(0)
    return ViT(**_smaller(max_tokens_per_depth=(32, 16))).eval(), torch.rand(1, 3, 256, 256)


@entry("vit-pytorch", "na_vit.NaViT", executed=True)
def navit() -> Built:
    from vit_pytorch.na_vit import NaViT

    torch.manual_seed(0)
    model = NaViT(image_size=64, patch_size=16, num_classes=10, dim=32, heads=2, depth=2, mlp_dim=64)
    return model.eval(), ([[torch.randn(3, 64, 64), torch.randn(3, 32, 64)], [torch.randn(3, 32, 32)]],)


def _decoder(**options: Any) -> Built:
    from x_transformers import Decoder, TransformerWrapper

    model = TransformerWrapper(
        num_tokens=256, max_seq_len=128, attn_layers=Decoder(dim=64, depth=2, heads=4, **options)
    )
    return model.eval(), torch.zeros(1, 128, dtype=torch.long)


X_DECODERS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "flash": {"attn_flash": True},
    "rotary": {"rotary_pos_emb": True},
    "alibi": {"alibi_pos_bias": True},
    "glu_swish": {"ff_swish": True, "ff_glu": True},
    "grouped_queries": {"attn_kv_heads": 2},
    "talking_heads": {"attn_pre_talking_heads": True},
    "memory_tokens_rmsnorm": {"use_rmsnorm": True, "attn_num_mem_kv": 4},
    "sandwich": {"sandwich_coef": 1},
    "qk_norm": {"attn_qk_norm": True},
    "t5_bias": {"rel_pos_bias": True},
    "shift_tokens": {"shift_tokens": 1},
}


@family("x-transformers", X_DECODERS)
def x_decoder(name: str) -> Built:
    return _decoder(**X_DECODERS[name])


@entry("x-transformers", "encoder_decoder")
def x_encoder_decoder() -> Built:
    from x_transformers import XTransformer

    model = XTransformer(
        dim=64, enc_num_tokens=256, enc_depth=2, enc_heads=4, enc_max_seq_len=64,
        dec_num_tokens=256, dec_depth=2, dec_heads=4, dec_max_seq_len=64,
    )  # fmt: skip
    tokens = torch.zeros(1, 64, dtype=torch.long)
    return model.eval(), (tokens, tokens.clone())


@entry("x-transformers", "vi_transformer")
def x_vision() -> Built:
    from x_transformers import Encoder, ViTransformerWrapper

    model = ViTransformerWrapper(
        image_size=256, patch_size=32, num_classes=10, attn_layers=Encoder(dim=64, depth=2, heads=4)
    )
    return model.eval(), IMAGE


@entry("x-transformers", "autoregressive_loss")
def x_autoregressive() -> Built:
    from x_transformers import AutoregressiveWrapper

    model, tokens = _decoder()
    return AutoregressiveWrapper(model).eval(), tokens


@entry("performer-pytorch", "performer")
def performer() -> Built:
    from performer_pytorch import Performer

    return Performer(dim=64, depth=2, heads=4, dim_head=16, causal=False).eval(), torch.zeros(1, 128, 64)


@entry("local-attention", "local_transformer")
def local_transformer() -> Built:
    from local_attention import LocalTransformer

    model = LocalTransformer(
        num_tokens=256, max_seq_len=256, dim=64, depth=2, heads=4, dim_head=16, local_attn_window_size=64
    )
    return model.eval(), torch.zeros(1, 256, dtype=torch.long)


@entry("perceiver-pytorch", "perceiver")
def perceiver() -> Built:
    from perceiver_pytorch import Perceiver

    model = Perceiver(
        input_channels=3, input_axis=2, num_freq_bands=6, max_freq=10.0, depth=2, num_latents=32, latent_dim=64,
        cross_heads=1, latent_heads=4, num_classes=10, self_per_cross_attn=1,
    )  # fmt: skip
    return model.eval(), torch.zeros(1, 32, 32, 3)


@entry("sentence-transformers", "mean_pooled_bert")
def sentence() -> Built:
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

    class Sentence(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = BertConfig(
                hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=500
            )
            self.bert, self.pooling = BertModel(config), Pooling(64)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found = self.bert(input_ids=input_ids, attention_mask=attention_mask)
            return self.pooling({"token_embeddings": found[0], "attention_mask": attention_mask})["sentence_embedding"]

    tokens = torch.ones(2, 32, dtype=torch.long)
    return Sentence().eval(), {"input_ids": tokens, "attention_mask": tokens.clone()}


HUGGING_FACE: dict[str, Any] = {
    "mamba": ("Mamba", {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 500, "state_size": 8}),
    "mamba2": ("Mamba2", {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 500, "num_heads": 8,
        "head_dim": 16, "state_size": 16, "n_groups": 1}),
    "mixtral": ("Mixtral", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 500,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}),
    "longformer": ("Longformer", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "vocab_size": 500, "num_attention_heads": 4, "attention_window": 16}),
    "big_bird": ("BigBird", {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 500,
        "num_attention_heads": 4, "attention_type": "original_full"}),
    "reformer": ("Reformer", {"hidden_size": 64, "feed_forward_size": 96, "num_attention_heads": 4,
        "vocab_size": 500, "attention_head_size": 16, "attn_layers": ["local", "local"], "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [32, 32], "local_attn_chunk_length": 16}),
    "fnet": ("FNet", {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 500}),
    "rwkv": ("Rwkv", {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 500}),
    "deberta_v2": ("DebertaV2", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "vocab_size": 500, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "xlnet": ("XLNet", {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96, "vocab_size": 500}),
    "recurrent_gemma": ("RecurrentGemma", {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 96, "vocab_size": 500, "lru_width": 64}),
    "jamba": ("Jamba", {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 500, "use_mamba_kernels": False,
        "num_experts": 2, "mamba_dt_rank": 8}),
    "qwen3": ("Qwen3", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 500, "head_dim": 16}),
    "modernbert": ("ModernBert", {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 96, "vocab_size": 500, "pad_token_id": 0}),
}  # fmt: skip


@family("transformers", HUGGING_FACE)
def hugging_face(name: str) -> Built:
    import transformers

    kind, options = HUGGING_FACE[name]
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**options))
    extra = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    return model.eval(), ((torch.ones(1, 64, dtype=torch.long),), extra)
