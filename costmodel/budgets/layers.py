"""The layers of two versions of a model beside each other: by name where names stayed, else by what they do."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from costmodel.analysis import Analysis

__all__ = ["LAYER_KEYS", "Growth", "Layer", "aligned", "grown_by", "layers_of"]

#: Amounts of a layer that a baseline keeps.
LAYER_KEYS = ("flops", "macs", "params", "activations", "kernels", "latency_s")


class Layer(NamedTuple):
    """One operator of a step: its name (the module's path), kind and result, and its amounts by key."""

    name: str
    op: str
    outputs: str
    amounts: dict[str, Any]

    @property
    def work(self) -> Hashable:
        """What it does, whatever it is called and however long it takes."""
        return self.op, self.outputs, self.amounts["flops"], self.amounts["params"]


class Growth(NamedTuple):
    """One layer that changed: its names and amounts there and here. No name: it was not there, or is no more."""

    before: str
    now: str
    op: str
    amount_before: float
    amount_now: float

    @property
    def name(self) -> str:
        """What a page calls it."""
        if not self.before:
            return f"{self.now} (new)"
        if not self.now:
            return f"{self.before} (gone)"
        return self.now if self.before == self.now else f"{self.now} (was {self.before})"


def layers_of(analysis: Analysis) -> list[Layer]:
    """The operators of a step that ask for anything, in program order."""
    found = []
    for row in analysis.rows():
        amounts = {key: getattr(row, key) for key in LAYER_KEYS}
        if any(amounts.values()):
            found.append(Layer(row.name, row.op, row.outputs, amounts))
    return found


def grown_by(key: str, before: Sequence[Layer], now: Sequence[Layer]) -> list[Growth]:
    """Layers whose amount ``key`` changed, what grew most first."""
    found = []
    for i, j in aligned(before, now):
        old, new = None if i is None else before[i], None if j is None else now[j]
        had, has = old.amounts[key] if old else 0, new.amounts[key] if new else 0
        if had != has:
            op = (new or old).op  # type: ignore[union-attr]
            found.append(Growth(old.name if old else "", new.name if new else "", op, had, has))
    return sorted(found, key=lambda growth: growth.amount_before - growth.amount_now)


def aligned(before: Sequence[Layer], now: Sequence[Layer]) -> list[tuple[int | None, int | None]]:
    """Pairs of positions, in order; None where a side has no such layer.

    Three passes, each over what the one before left open between its matches: layers of the same name and work, of
    the same work under any name, and of the same kind.
    """
    keys: tuple[Callable[[Layer], Hashable], ...] = (
        lambda layer: (layer.name, layer.work),
        lambda layer: layer.work,
        lambda layer: (layer.name, layer.op),
        lambda layer: layer.op,
    )
    return _aligned(before, now, 0, 0, keys)


def _aligned(
    before: Sequence[Layer], now: Sequence[Layer], i0: int, j0: int, keys: Sequence[Callable[[Layer], Hashable]]
) -> list[tuple[int | None, int | None]]:
    if not keys or not before or not now:
        return [*((i0 + i, None) for i in range(len(before))), *((None, j0 + j) for j in range(len(now)))]
    key, *rest = keys
    matcher = SequenceMatcher(None, [key(layer) for layer in before], [key(layer) for layer in now], autojunk=False)
    found: list[tuple[int | None, int | None]] = []
    i = j = 0
    for block in matcher.get_matching_blocks():
        found += _aligned(before[i : block.a], now[j : block.b], i0 + i, j0 + j, rest)
        found += [(i0 + block.a + k, j0 + block.b + k) for k in range(block.size)]
        i, j = block.a + block.size, block.b + block.size
    return found
