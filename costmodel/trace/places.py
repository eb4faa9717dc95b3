"""In how many places of a model a module hangs: counters that go through the tree of modules count it once for each."""

from __future__ import annotations

from collections import Counter

from torch import nn

__all__ = ["module_places"]


def module_places(module: nn.Module) -> dict[str, int]:
    """Path -> number of ways down to it, of the submodules with more than one, by the first of their names.

    A module that its parent holds under two names hangs there once, as ``children()`` gives it.
    """
    names: dict[int, str] = {id(part): name for name, part in module.named_modules()}
    ways: Counter[int] = Counter({id(module): 1})
    for part in reversed(_after_its_children(module)):
        for child in part.children():
            ways[id(child)] += ways[id(part)]
    return {names[part]: count for part, count in ways.items() if count > 1}


def _after_its_children(module: nn.Module) -> list[nn.Module]:
    """Every module once, what it holds before it: read from behind, all parents of a module precede it."""
    order: list[nn.Module] = []
    open_parts: list[tuple[nn.Module, bool]] = [(module, False)]
    known: set[int] = set()
    while open_parts:
        part, done = open_parts.pop()
        if done:
            order.append(part)
        elif id(part) not in known:
            known.add(id(part))
            open_parts.append((part, True))
            open_parts += [(child, False) for child in part.children()]
    return order
