"""Alignment against trying every way."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from costmodel.measure.alignment import Token, align

RELU = Token("relu", "aten.relu", (4,))
CONV_A = Token("convolution", "aten.conv2d", ((1, 3, 8, 8), (8, 3, 3, 3)), exact=True)
CONV_B = Token("convolution", "aten.conv2d", ((1, 8, 8, 8), (8, 8, 3, 3)), exact=True)
UNKNOWN = Token("convolution", "aten.mkldnn_convolution", None, exact=True)
TOKENS = (RELU, CONV_A, CONV_B, UNKNOWN, Token("view", "aten.view", (2, 2)), Token("relu", "aten.relu", (5,)))


def worth(left: Token, right: Token) -> int:
    """The score of a pair, as the module's text has it, by its own lines; 0 for no pair."""
    if left.kind != right.kind:
        return 0
    known = left.sizes is not None and right.sizes is not None
    if left.exact and known and left.sizes != right.sizes:
        return 0
    sizes = 2 if not known else 4 if left.sizes == right.sizes else 0
    return 2 + (left.name == right.name) + sizes + (8 if left.exact else 0)


def best_by_trying(left: list[Token], right: list[Token]) -> int:
    """The best total over every choice of as many elements on either side, paired in order."""
    best = 0
    for count in range(1, min(len(left), len(right)) + 1):
        for chosen in combinations(left, count):
            for others in combinations(right, count):
                scores = [worth(a, b) for a, b in zip(chosen, others, strict=True)]
                if all(scores):
                    best = max(best, sum(scores))
    return best


@pytest.mark.parametrize("seed", range(40))
def test_no_other_alignment_scores_higher(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (no secret)
    left, right = ([chance.choice(TOKENS) for _ in range(chance.randint(1, 6))] for _ in range(2))
    pairs = align(left, right)
    assert sum(worth(left[i], right[j]) for i, j in pairs) == best_by_trying(left, right)
    assert all(worth(left[i], right[j]) for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))


def test_an_extra_element_on_either_side_does_not_shift_the_rest() -> None:
    model = [CONV_A, RELU, CONV_B, RELU]
    assert align(model, [RELU, *model]) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert align([RELU, *model], model) == [(1, 0), (2, 1), (3, 2), (4, 3)]


def test_contractions_of_other_sizes_are_no_pair() -> None:
    assert align([CONV_A], [CONV_B]) == []
    assert align([CONV_A], [UNKNOWN]) == [(0, 0)]


def test_nothing_aligns_with_nothing() -> None:
    assert align([], [RELU]) == [] == align([RELU], [])
