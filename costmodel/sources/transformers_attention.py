"""A way to run attention that transformers had until its release 4.47: keys and values repeated for every query head.

Heads that share keys and values (grouped queries) were served by a copy of the whole cache for each of them before
attention ran, in every step. Releases since then let the kernel share them. ``attn_implementation="sdpa_repeated"``
analyzes the old way, which measurements of 2024 were made with.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

__all__ = ["REPEATED", "register_repeated"]

#: Its name among transformers' ways.
REPEATED = "sdpa_repeated"


@lru_cache(maxsize=1)
def register_repeated() -> bool:
    """Teach transformers the old way; once per process. False where the release has no table of ways."""
    try:
        from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    except ImportError:
        return False

    def forward(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        groups = getattr(module, "num_key_value_groups", 1)
        alone = SimpleNamespace(is_causal=getattr(module, "is_causal", True), num_key_value_groups=1)
        return sdpa_attention_forward(
            alone,
            query,
            repeat_kv(key, groups),
            repeat_kv(value, groups),
            *args,
            **kwargs,
        )

    ALL_ATTENTION_FUNCTIONS.register(REPEATED, forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register(REPEATED, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    return True
