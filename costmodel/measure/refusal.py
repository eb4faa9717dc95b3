"""Whether a recording is of the model that it is placed on; if not, an error that shows where they part."""

from __future__ import annotations

from collections.abc import Sequence

from costmodel.errors import InputError, librarian
from costmodel.graph import OpGraph
from costmodel.measure.alignment import Token
from costmodel.measure.items import Item

__all__ = ["check_same_model"]

#: Share of contractions that must find a partner of the same sizes, on either side. A model that ran another way
#: (fused attention, a fast path) parts with a few; another model with most.
_LEAST_SHARE = 0.9
_SHOWN = 5  # nodes without a partner that the message names


def check_same_model(
    graph: OpGraph, tokens: Sequence[Token], items: Sequence[Item], pairs: Sequence[tuple[int, int]]
) -> None:
    """Raise InputError where too many contractions of either side have no partner, naming the first of them.

    A contraction that was recorded inside an operator which the graph does not know (a fast path of attention) is
    work of that operator, as are the nodes that it replaced: neither counts.
    """
    paired_nodes, paired_items = {n for n, _ in pairs}, {i for _, i in pairs}
    replaced = _replaced_nodes(len(tokens), items, pairs)
    wanted = [n for n, token in enumerate(tokens) if token.exact and n not in replaced]
    there = [i for i, item in enumerate(items) if item.token.exact and not item.foreign]
    missing = [n for n in wanted if n not in paired_nodes]
    extra = [i for i in there if i not in paired_items]
    matched = len(wanted) - len(missing)
    enough = matched >= _LEAST_SHARE * len(wanted) and len(there) - len(extra) >= _LEAST_SHARE * len(there)
    if wanted and not enough and not any(item.fused for item in items):
        raise InputError(_text(graph, tokens, items, missing, extra, matched, len(wanted)))


def _replaced_nodes(count: int, items: Sequence[Item], pairs: Sequence[tuple[int, int]]) -> set[int]:
    """Nodes in gaps in which something was recorded inside an unknown operator."""
    node_of = {item: node for node, item in pairs}
    replaced: set[int] = set()
    last, foreign = -1, False
    for position, item in enumerate([*items, None]):
        node = count if item is None else node_of.get(position)
        if node is None:
            foreign = foreign or (item is not None and item.foreign)
            continue
        if foreign:
            replaced.update(range(last + 1, node))
        last, foreign = node, False
    return replaced


def _text(
    graph: OpGraph, tokens: Sequence[Token], items: Sequence[Item], missing: Sequence[int], extra: Sequence[int],
    matched: int, wanted: int,
) -> str:  # fmt: skip
    lines = [f"{matched} of its {wanted} convolutions and products have a partner of the same sizes in the trace"]
    lines += [f"not in the trace: {graph.nodes[n].name} ({_said(tokens[n])})" for n in missing[:_SHOWN]]
    lines += [f"not in the model: {items[i].name} ({_said(items[i].token)})" for i in extra[:_SHOWN]]
    left = max(len(missing) - _SHOWN, 0) + max(len(extra) - _SHOWN, 0)
    lines += [f"and {left} more"] if left else []
    kinds = [items[i].token.kind for i in extra] == [tokens[n].kind for n in missing]
    hint = "the sequence is the same: give the --batch and --image-size that the trace was recorded at" if kinds else ""
    return librarian("this trace is of another model, or of other sizes", do="\n".join([*lines, hint]).rstrip())


def _said(token: Token) -> str:
    """``conv2d, 1x3x224x224 and 64x3x7x7``: the operator, and the sizes that it was matched by."""
    packet = token.name.rpartition(".")[2]
    if not isinstance(token.sizes, tuple):
        return packet
    if all(isinstance(size, int) for size in token.sizes):
        batch, m, n, k = token.sizes
        return f"{packet}, {m}x{k} by {k}x{n}" + (f", {batch} times" if batch != 1 else "")
    return f"{packet}, " + " and ".join("x".join(map(str, shape)) for shape in token.sizes)
