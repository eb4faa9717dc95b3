"""Small configurations of eight kinds of models that write text, and the bytes of their caches by hand (fp32)."""

from __future__ import annotations

#: Name -> configuration. Sizes are all different, so that none can stand for another.
CONFIGS: dict[str, dict[str, object]] = {
    "dense": {
        "model_type": "gpt2", "n_layer": 3, "n_embd": 48, "n_head": 4, "vocab_size": 101, "n_positions": 512,
    },
    "gqa": {
        "model_type": "llama", "num_hidden_layers": 3, "hidden_size": 96, "intermediate_size": 112,
        "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101, "max_position_embeddings": 512,
    },
    "mla": {
        "model_type": "deepseek_v3", "num_hidden_layers": 3, "hidden_size": 96, "intermediate_size": 112,
        "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 20,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 12, "v_head_dim": 16, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 40, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 3, "vocab_size": 101, "max_position_embeddings": 512,
    },
    "sliding": {
        "model_type": "mistral", "num_hidden_layers": 3, "hidden_size": 96, "intermediate_size": 112,
        "num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": 24, "vocab_size": 101,
        "max_position_embeddings": 512,
    },
    "experts": {
        "model_type": "mixtral", "num_hidden_layers": 2, "hidden_size": 96, "intermediate_size": 112,
        "num_attention_heads": 6, "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 2,
        "vocab_size": 101, "max_position_embeddings": 512,
    },
    "shared_experts": {
        "model_type": "qwen2_moe", "num_hidden_layers": 2, "hidden_size": 96, "intermediate_size": 112,
        "num_attention_heads": 6, "num_key_value_heads": 2, "num_experts": 6, "num_experts_per_tok": 3,
        "moe_intermediate_size": 40, "shared_expert_intermediate_size": 56, "vocab_size": 101,
        "max_position_embeddings": 512,
    },
    "encoder_decoder": {
        "model_type": "t5", "num_layers": 2, "num_decoder_layers": 2, "d_model": 48, "d_kv": 12, "num_heads": 4,
        "d_ff": 64, "vocab_size": 101,
    },
    "multimodal": {
        "model_type": "llava", "image_token_index": 99,
        "text_config": {
            "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 96, "intermediate_size": 112,
            "num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 101, "max_position_embeddings": 512,
        },
        "vision_config": {
            "model_type": "clip_vision_model", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
    },
}  # fmt: skip


def cache_elements(name: str, batch: int, context: int, seq_len: int) -> int:
    """Elements that the cache holds after ``context`` tokens; ``seq_len`` is what an encoder has read."""
    per_token = {
        "dense": 3 * 2 * 48,  # layers, keys and values, 4 heads of 12
        "gqa": 3 * 2 * 2 * 16,  # 2 heads of 96 / 6
        "mla": 3 * (20 + 8),  # one latent vector, and the part of the keys with rotary positions, for all heads
        "sliding": 3 * 2 * 2 * 16,
        "experts": 2 * 2 * 2 * 16,
        "shared_experts": 2 * 2 * 2 * 16,
        "encoder_decoder": 2 * 2 * 4 * 12,
        "multimodal": 2 * 2 * 3 * 16,
    }[name]
    if name == "sliding":
        context = min(context, 24 - 1)  # the new token is the window's last
    if name == "encoder_decoder":
        context += seq_len  # of cross-attention
    return batch * per_token * context
