"""transformers on the meta device: attention masks that ask for values.

Before it builds a mask, transformers looks whether one is needed: is anything padded, are several sequences packed
into one row? Where nothing is, ``scaled_dot_product_attention`` runs without a mask (``is_causal=True``). The look
reads values, which meta tensors do not have, and raises. Here it is answered as for plain input, neither padded nor
packed, for meta tensors only: what happens to any other tensor does not change.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

__all__ = ["assume_plain_input", "plain_answers"]

#: Lines that ask about a mask or about lengths, and the answer of plain input: no token looks at all others, and no
#: sequence is longer than its row, for which any number does that is small enough.
_ASKING = {
    "is_global_attn = is_index_global_attn.flatten().any().item()": False,
    "assert lengths.max().item() <= slen": 1,
}


def _is_meta(value: Any) -> bool:
    return bool(getattr(value, "is_meta", False))


def _answer_none(look: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(look)
    def answered(first: Any, *args: Any, **kwargs: Any) -> Any:
        return None if _is_meta(first) else look(first, *args, **kwargs)

    return answered


def _forget_padding(look: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(look)
    def answered(padding_mask: Any, *args: Any, **kwargs: Any) -> Any:
        return look(None if _is_meta(padding_mask) else padding_mask, *args, **kwargs)

    return answered


def _skip_warning(warn: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(warn)
    def answered(self: Any, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        return None if _is_meta(input_ids) else warn(self, input_ids, *args, **kwargs)

    return answered


@lru_cache(maxsize=1)
def assume_plain_input() -> None:
    """Answer transformers' looks at padding and packing for meta tensors; once per process.

    A version without one of these functions is left as it is.
    """
    from transformers import PreTrainedModel, masking_utils

    looks = (
        (masking_utils, "find_packed_sequence_indices", _answer_none),
        (masking_utils, "_ignore_causal_mask_sdpa", _forget_padding),
        (masking_utils, "_ignore_bidirectional_mask_sdpa", _forget_padding),
        (PreTrainedModel, "warn_if_padding_and_no_attention_mask", _skip_warning),
    )
    for owner, name, change in looks:
        if hasattr(owner, name):
            setattr(owner, name, change(getattr(owner, name)))


def plain_answers(model: Any) -> dict[str, bool | int | float]:
    """What plain input answers to the questions of a model's own code, by the line that asks."""
    file = sys.modules[type(model).__module__].__file__ or ""
    if "/transformers/" not in file.replace("\\", "/"):
        return {}
    name = file.replace("\\", "/").rpartition("/transformers/")[2]
    asked = enumerate(linecache.getlines(file), start=1)
    return {f"transformers/{name}:{n}": _ASKING[text.strip()] for n, text in asked if text.strip() in _ASKING}
