"""Image and video generation: diffusers' denoisers and autoencoders at small widths, denoising-diffusion-pytorch."""

from __future__ import annotations

from typing import Any

import torch

from library_models.registry import Built, entry, family


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


_BLOCKS = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
_TIME = torch.tensor([10])

#: Name: (class, options, inputs by keyword).
DIFFUSERS: dict[str, Any] = {
    "unet2d": (
        "UNet2DModel",
        {**_BLOCKS, "sample_size": 32, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        {"sample": zeros(1, 3, 32, 32), "timestep": _TIME},
    ),
    "unet2d_condition": (
        "UNet2DConditionModel",
        {**_BLOCKS, "sample_size": 32, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 32,
            "attention_head_dim": 8},
        {"sample": zeros(1, 4, 32, 32), "timestep": _TIME, "encoder_hidden_states": zeros(1, 77, 32)},
    ),
    "unet3d_condition": (
        "UNet3DConditionModel",
        {**_BLOCKS, "sample_size": 32, "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"), "cross_attention_dim": 32,
            "attention_head_dim": 8},
        {"sample": zeros(1, 4, 4, 32, 32), "timestep": _TIME, "encoder_hidden_states": zeros(1, 4, 32)},
    ),
    "unet_spatio_temporal": (
        "UNetSpatioTemporalConditionModel",
        {"block_out_channels": (32, 64), "sample_size": 32, "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "cross_attention_dim": 32,
            "num_attention_heads": 8, "projection_class_embeddings_input_dim": 96, "addition_time_embed_dim": 32},
        {"sample": zeros(1, 2, 8, 32, 32), "timestep": _TIME, "encoder_hidden_states": zeros(1, 1, 32),
            "added_time_ids": zeros(1, 3)},
    ),
    "controlnet": (
        "ControlNetModel",
        {**_BLOCKS, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": 32,
            "attention_head_dim": 8, "conditioning_embedding_out_channels": (16, 32)},
        {"sample": zeros(1, 4, 32, 32), "timestep": _TIME, "encoder_hidden_states": zeros(1, 77, 32),
            "controlnet_cond": zeros(1, 3, 64, 64)},
    ),
    "autoencoder_kl": (
        "AutoencoderKL",
        {**_BLOCKS, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 4},
        {"sample": zeros(1, 3, 64, 64)},
    ),
    "autoencoder_tiny": ("AutoencoderTiny", {}, {"sample": zeros(1, 3, 64, 64)}),
    "autoencoder_dc": (
        "AutoencoderDC",
        {"latent_channels": 8, "attention_head_dim": 8, "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"), "encoder_block_out_channels": (16, 32),
            "decoder_block_out_channels": (16, 32), "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)), "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1), "downsample_block_type": "Conv",
            "upsample_block_type": "interpolate", "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu"},
        {"sample": zeros(1, 3, 64, 64)},
    ),
    "autoencoder_oobleck": (
        "AutoencoderOobleck",
        {"encoder_hidden_size": 12, "decoder_channels": 12, "decoder_input_channels": 6, "audio_channels": 2,
            "downsampling_ratios": [2, 4], "channel_multiples": [1, 2]},
        {"sample": zeros(1, 2, 1024)},
    ),
    "autoencoder_wan": (
        "AutoencoderKLWan",
        {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [False,
            True, True]},
        {"sample": zeros(1, 3, 5, 32, 32)},
    ),
    "autoencoder_cogvideox": (
        "AutoencoderKLCogVideoX",
        {"in_channels": 3, "out_channels": 3, "down_block_types": ("CogVideoXDownBlock3D",) * 4,
            "up_block_types": ("CogVideoXUpBlock3D",) * 4, "block_out_channels": (8, 8, 8, 8), "latent_channels": 4,
            "layers_per_block": 1, "norm_num_groups": 2, "temporal_compression_ratio": 4},
        {"sample": zeros(1, 3, 8, 16, 16)},
    ),
    "vq_model": (
        "VQModel",
        {**_BLOCKS, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 3, "num_vq_embeddings": 64},
        {"sample": zeros(1, 3, 64, 64)},
    ),
    "dit": (
        "DiTTransformer2DModel",
        {"num_attention_heads": 4, "attention_head_dim": 16, "in_channels": 4, "out_channels": 8, "num_layers": 2,
            "sample_size": 16, "norm_num_groups": 8},
        {"hidden_states": zeros(1, 4, 16, 16), "timestep": _TIME, "class_labels": torch.tensor([3])},
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 2, "sample_size": 16,
            "caption_channels": 32, "cross_attention_dim": 64, "norm_num_groups": 1,
            "use_additional_conditions": False},
        {"hidden_states": zeros(1, 4, 16, 16), "timestep": _TIME, "encoder_hidden_states": zeros(1, 8, 32),
            "added_cond_kwargs": {"aspect_ratio": None, "resolution": None}},
    ),
    "flux": (
        "FluxTransformer2DModel",
        {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
            "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": (4,
            4, 8)},
        {"hidden_states": zeros(1, 64, 16), "encoder_hidden_states": zeros(1, 24, 32), "pooled_projections": zeros(1,
            32), "timestep": zeros(1), "img_ids": zeros(64, 3), "txt_ids": zeros(24, 3)},
    ),
    "sd3": (
        "SD3Transformer2DModel",
        {"sample_size": 32, "in_channels": 4, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4,
            "caption_projection_dim": 32, "joint_attention_dim": 32, "pooled_projection_dim": 64, "out_channels": 4},
        {"hidden_states": zeros(1, 4, 32, 32), "encoder_hidden_states": zeros(1, 77, 32),
            "pooled_projections": zeros(1, 64), "timestep": _TIME},
    ),
    "auraflow": (
        "AuraFlowTransformer2DModel",
        {"sample_size": 32, "in_channels": 4, "num_mmdit_layers": 1, "num_single_dit_layers": 1,
            "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32,
            "joint_attention_dim": 32, "out_channels": 4, "pos_embed_max_size": 256},
        {"hidden_states": zeros(1, 4, 32, 32), "encoder_hidden_states": zeros(1, 24, 32), "timestep": zeros(1)},
    ),
    "sana": (
        "SanaTransformer2DModel",
        {"in_channels": 4, "out_channels": 4, "num_layers": 1, "attention_head_dim": 4, "num_attention_heads": 2,
            "num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8,
            "caption_channels": 8, "sample_size": 32, "patch_size": 1},
        {"hidden_states": zeros(1, 4, 32, 32), "encoder_hidden_states": zeros(1, 8, 8), "timestep": _TIME},
    ),
    "wan": (
        "WanTransformer3DModel",
        {"patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
            "out_channels": 4, "text_dim": 16, "freq_dim": 256, "ffn_dim": 32, "num_layers": 2,
            "rope_max_seq_len": 32},
        {"hidden_states": zeros(1, 4, 2, 16, 16), "timestep": _TIME, "encoder_hidden_states": zeros(1, 12, 16)},
    ),
    "cogvideox": (
        "CogVideoXTransformer3DModel",
        {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4, "time_embed_dim": 2,
            "text_embed_dim": 8, "num_layers": 1, "sample_width": 8, "sample_height": 8, "sample_frames": 8,
            "patch_size": 2, "temporal_compression_ratio": 4, "max_text_seq_length": 8},
        {"hidden_states": zeros(1, 1, 4, 8, 8), "timestep": _TIME, "encoder_hidden_states": zeros(1, 8, 8)},
    ),
    "ltx_video": (
        "LTXVideoTransformer3DModel",
        {"in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8,
            "cross_attention_dim": 16, "num_layers": 1, "caption_channels": 16},
        {"hidden_states": zeros(1, 128, 4), "timestep": _TIME, "encoder_hidden_states": zeros(1, 16, 16),
            "encoder_attention_mask": torch.ones(1, 16, dtype=torch.bool), "num_frames": 2, "height": 8, "width": 8},
    ),
    "prior": (
        "PriorTransformer",
        {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 2, "embedding_dim": 8, "num_embeddings": 7,
            "additional_embeddings": 4},
        {"hidden_states": zeros(1, 8), "timestep": 2, "proj_embedding": zeros(1, 8),
            "encoder_hidden_states": zeros(1, 7, 8)},
    ),
    "uvit2d": (
        "UVit2DModel",
        {"hidden_size": 32, "cond_embed_dim": 32, "micro_cond_encode_dim": 2, "micro_cond_embed_dim": 10,
            "encoder_hidden_size": 32, "vocab_size": 64, "codebook_size": 32, "in_channels": 32,
            "block_out_channels": 32, "num_res_blocks": 1, "block_num_heads": 1, "num_hidden_layers": 1,
            "num_attention_heads": 1, "intermediate_size": 32, "sample_size": 8},
        {"input_ids": torch.zeros(1, 8, 8, dtype=torch.long), "encoder_hidden_states": zeros(1, 7, 32),
            "pooled_text_emb": zeros(1, 32), "micro_conds": zeros(1, 5)},
    ),
    "stable_audio": (
        "StableAudioDiTModel",
        {"sample_size": 64, "in_channels": 8, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4,
            "num_key_value_attention_heads": 2, "out_channels": 8, "cross_attention_dim": 32, "time_proj_dim": 16,
            "global_states_input_dim": 32, "cross_attention_input_dim": 32},
        {"hidden_states": zeros(1, 8, 64), "timestep": zeros(1), "encoder_hidden_states": zeros(1, 16, 32),
            "global_hidden_states": zeros(1, 1, 32), "rotary_embedding": None},
    ),
    "chroma": (
        "ChromaTransformer2DModel",
        {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
            "num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 8),
            "approximator_hidden_dim": 32, "approximator_layers": 1, "approximator_num_channels": 16},
        {"hidden_states": zeros(1, 64, 16), "encoder_hidden_states": zeros(1, 24, 32), "timestep": zeros(1),
            "img_ids": zeros(64, 3), "txt_ids": zeros(24, 3)},
    ),
}  # fmt: skip


@family("diffusers", DIFFUSERS)
def diffusion(name: str) -> Built:
    import diffusers

    kind, options, inputs = DIFFUSERS[name]
    return getattr(diffusers, kind)(**options).eval(), inputs


@entry("denoising-diffusion-pytorch", "unet")
def ddpm_unet() -> Built:
    from denoising_diffusion_pytorch import Unet

    model = Unet(dim=16, dim_mults=(1, 2, 4), flash_attn=False)
    return model.eval(), (torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.long))


@entry("denoising-diffusion-pytorch", "karras_unet")
def karras_unet() -> Built:
    from denoising_diffusion_pytorch.karras_unet import KarrasUnet

    model = KarrasUnet(image_size=32, dim=16, dim_max=32, num_blocks_per_stage=1, num_downsamples=2, attn_res=(16, 8))
    return model.eval(), (torch.zeros(1, 4, 32, 32), torch.zeros(1))
