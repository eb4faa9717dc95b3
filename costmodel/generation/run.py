"""generate(): a prompt and the steps of writing after it, added up.

Steps grow longer with the cache, evenly but for a few thresholds (another split of the keys, an L2 that is full), so
that some of them stand for all: the sum is that of straight lines between the steps at :data:`_SAMPLED` contexts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from costmodel.api import analyze
from costmodel.errors import InputError
from costmodel.generation.cache import CacheTraffic, cache_traffic
from costmodel.host import HostProfile, costs_of
from costmodel.presented import Analysis

__all__ = ["Generation", "generate", "sampled"]

#: Contexts at which steps are predicted.
_SAMPLED = 9


@dataclass(frozen=True)
class Generation:
    """A prompt of ``seq_len`` tokens and ``new_tokens`` written after it, for each of ``batch`` sequences.

    ``seq_len`` is 1 where an encoder reads something else than tokens. The prompt gives the first new token, each step
    one more. ``steps`` are the predicted ones, by the tokens that they find in the cache, in rising order; times in s.
    """

    prompt: Analysis
    steps: tuple[Analysis, ...]
    seq_len: int
    new_tokens: int

    @property
    def what_is_read(self) -> str:
        """The prompt in words: its tokens, or the shape of what an encoder reads, the batch left out."""
        inputs = {tensor.name: tensor.shape for tensor in self.prompt.model.inputs}
        other = [shape for name, shape in inputs.items() if name != "decoder_input_ids"]
        if "input_ids" in inputs or not other:
            return f"a prompt of {self.seq_len:,} tokens"
        return f"an input of {'×'.join(f'{size:,}' for size in other[0][1:])}"

    @property
    def batch(self) -> int:
        """Sequences that are written at once."""
        return self.prompt.execution.batch

    @property
    def first_token_s(self) -> float:
        """Time to the first token: the prompt."""
        return self.prompt.latency

    @property
    def contexts(self) -> tuple[int, ...]:
        """Tokens in the cache of the predicted steps."""
        return tuple(sampled(_first_context(self.prompt, self.seq_len), max(self.new_tokens - 1, 1)))

    def _summed(self, value: Callable[[Analysis], float]) -> float:
        """The sum over all steps, straight lines between the predicted ones."""
        count = self.new_tokens - 1
        if not count:
            return 0.0
        values = [value(step) for step in self.steps]
        if len(values) == 1:
            return count * values[0]
        at = self.contexts
        total = sum((b - a) * (v + w) / 2 for a, b, v, w in zip(at, at[1:], values, values[1:], strict=False))
        return total + (values[0] + values[-1]) / 2

    @cached_property
    def steps_s(self) -> float:
        """Time of all steps after the prompt, with what is done between them."""
        return self._summed(lambda step: step.latency + _between_s(step, step.host, "usual"))

    @property
    def between_s(self) -> float:
        """What of :attr:`steps_s` is done on the host between two steps of which neither holds it, a step."""
        return _between_s(self.steps[-1], self.steps[-1].host, "usual")

    @property
    def total_s(self) -> float:
        """Time for all tokens."""
        return self.first_token_s + self.steps_s

    @cached_property
    def interval_s(self) -> tuple[float, float]:
        """The interval of :attr:`total_s`; what is not known of one step is not known of the others either."""
        low = self._summed(lambda step: step.totals.latency_low_s + _between_s(step, step.host_span.bounds[0], "least"))
        high = self._summed(
            lambda step: step.totals.latency_high_s + _between_s(step, step.host_span.bounds[1], "most")
        )
        return self.prompt.totals.latency_low_s + low, self.prompt.totals.latency_high_s + high

    @property
    def tokens_per_s(self) -> float:
        """New tokens of all sequences over the time for all."""
        return self.batch * self.new_tokens / self.total_s

    @cached_property
    def energy_j(self) -> float:
        """Energy of all; NaN where that of the machine is not modelled."""
        return self.prompt.totals.energy_j + self._summed(lambda step: step.totals.energy_j)

    @property
    def peak_memory_bytes(self) -> int:
        """The most that is allocated at once, in the prompt or in the last step."""
        return max(self.prompt.memory.allocated_bytes, self.steps[-1].memory.allocated_bytes)

    @property
    def fits(self) -> bool | None:
        """Whether all of it fits the machine; None where nobody knows its memory."""
        answers = [self.prompt.memory.fits, self.steps[-1].memory.fits]
        return None if None in answers else all(answers)

    @cached_property
    def cache(self) -> CacheTraffic:
        """The cache of the last step."""
        return cache_traffic(self.steps[-1])


def _between_s(step: Analysis, host: HostProfile, which: str) -> float:
    """What ``generate`` adds to a step: its work on the host, as far as the device is not busy with the step longer
    than the host. It asks whether all sequences have ended, so that no step begins before the last is through."""
    if step.engine.has_own_loop:
        return 0.0
    costs = costs_of(step.execution.software).loop
    work = host.seconds(getattr(costs, which))
    behind = step.latency - max(step.issued, default=0.0)
    return max(0.0, work - max(0.0, behind))


def sampled(first: int, count: int) -> list[int]:
    """Contexts of the steps that are predicted, of ``count`` from ``first`` on.

    >>> sampled(100, 1), sampled(100, 3), sampled(0, 2049)[:3]
    ([100], [100, 101, 102], [0, 256, 512])
    """
    points = min(count, _SAMPLED)
    if points == 1:
        return [first]
    return sorted({first + round(i * (count - 1) / (points - 1)) for i in range(points)})


def generate(model: str, *, hw: Any, new_tokens: int, seq_len: int | None = None, **conditions: Any) -> Generation:
    """Predict a prompt of ``seq_len`` tokens (default: the model's own) and ``new_tokens`` written after it.

    ``conditions`` are those of :func:`costmodel.analyze`. Raises what that raises, and InputError for a model of which
    the context stays closed, or a number of tokens below 1.

    >>> generate("hf:llama", hw="a100", dtype="bf16", new_tokens=100).tokens_per_s        # doctest: +SKIP
    52.9
    """
    if isinstance(new_tokens, bool) or not isinstance(new_tokens, int) or new_tokens < 1:
        raise InputError(f"the number of tokens to write must be a whole number of at least 1, not {new_tokens!r}")
    for name in ("phase", "context"):
        if conditions.pop(name, None) not in (None, "inference"):
            raise InputError(f"a prompt and its steps have a {name} each\n  leave {name} out")
    conditions["symbols"] = ("batch", "seq_len", "context")
    prompt = analyze(model, hw=hw, seq_len=seq_len, phase="prefill", **conditions)
    length = _tokens_of(prompt)
    at = sampled(_first_context(prompt, length), max(new_tokens - 1, 1))
    sizes = {"seq_len": seq_len} if seq_len and _has_encoder(prompt) else {}
    last = analyze(model, hw=hw, phase="decode", context=at[-1], **{**conditions, **sizes})
    steps = [last]
    for context in reversed(at[:-1]):
        first = math.isclose(context, at[0])
        steps.append((last if first else last.in_hand()).at(context=context))
    return Generation(prompt, tuple(reversed(steps)), length, new_tokens)


def _tokens_of(prompt: Analysis) -> int:
    """Tokens of a prompt; of sound or pictures that an encoder reads the one that its decoder begins with."""
    shapes = {tensor.name: tensor.shape for tensor in prompt.model.inputs}
    read = shapes.get("input_ids") or shapes["decoder_input_ids"]
    return int(read[1])


def _first_context(prompt: Analysis, seq_len: int) -> int:
    """What the first step finds in the cache: the prompt, or of a decoder beside an encoder the token it began with."""
    return 1 if _has_encoder(prompt) else seq_len


def _has_encoder(prompt: Analysis) -> bool:
    return any(tensor.name == "decoder_input_ids" for tensor in prompt.bound.tensors)
