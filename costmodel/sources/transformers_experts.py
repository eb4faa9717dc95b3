"""Mixtures of experts of transformers as grouped products: each token meets its own experts, and no weight is copied.

transformers has several ways to run experts. ``batched_mm`` gathers the weights of every token's experts, a copy that
grows with the tokens and that nobody runs at scale; ``grouped_mm`` sorts the tokens by expert and multiplies group by
group, which is what serving libraries do too (vLLM's and SGLang's fused kernels). That is what is analyzed by default.
On meta tensors its product is one operator that knows how many experts a token has; routing is not known, so which of
the weights are read is an expectation (:mod:`costmodel.formulas.experts`). ``eager`` loops over the experts that were
hit, which depends on values.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import lru_cache
from typing import Any

__all__ = ["BATCHED", "GROUPED", "NOTES", "register_grouped_experts"]

#: The way that is analyzed by default, in transformers' table of ways.
GROUPED = "grouped_mm"
BATCHED = "batched_mm"
#: What a report says of each way.
NOTES = {
    GROUPED: "experts: tokens sorted by expert, one grouped product for all; of E experts those are read that are "
    "expected to be met, E (1 - (1 - k/E)^tokens), with routing taken to be uniform "
    "(hf:TYPE(experts_implementation='batched_mm') gathers weights for every token instead)",
    BATCHED: "experts_implementation=batched_mm: the weights of every token's experts are gathered, a copy each",
}

#: torch's registrations, which end with the object that made them.
_KEPT: list[Any] = []
#: Experts that each token is sent to, inside a layer of experts.
_CHOSEN: ContextVar[int] = ContextVar("experts of a token", default=0)


@lru_cache(maxsize=1)
def register_grouped_experts() -> bool:
    """Teach transformers the grouped way for meta tensors; once per process. False where the release has no table of
    ways."""
    import torch

    try:
        from transformers.integrations import moe
    except ImportError:
        return False
    if not all(hasattr(moe, name) for name in ("ALL_EXPERTS_FUNCTIONS", "_grouped_mm", "grouped_mm_experts_forward")):
        return False

    library = torch.library.Library("costmodel", "DEF")
    library.define("grouped_mm(Tensor input, Tensor weight, Tensor offs, int chosen) -> Tensor")

    def on_meta(input: Any, weight: Any, offs: Any, chosen: int) -> Any:
        return torch.empty((input.shape[0], weight.shape[-1]), dtype=input.dtype, device="meta")

    library.impl("grouped_mm", on_meta, "Meta")
    _KEPT.append(library)
    plain, ordinary = moe._grouped_mm, moe.grouped_mm_experts_forward

    def product(input: Any, weight: Any, offs: Any) -> Any:
        if input.is_meta and _CHOSEN.get():
            return torch.ops.costmodel.grouped_mm(input, weight, offs, _CHOSEN.get())
        return plain(input, weight, offs)

    def forward(self: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
        kept = _CHOSEN.set(int(top_k_index.shape[-1]))
        try:
            return ordinary(self, hidden_states, top_k_index, top_k_weights)
        finally:
            _CHOSEN.reset(kept)

    moe._grouped_mm = product
    moe.ALL_EXPERTS_FUNCTIONS.register(GROUPED, forward)
    return True
